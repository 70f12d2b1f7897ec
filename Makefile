# `make demo` and `make test` do all their own set-up in .venv. The first time takes some minutes, after that none.
#
#   make demo [GOALS=20] [SEED=0] [HEADLESS=1] [OUT=runs/demo]
#   make test [TESTS=test/unit]
#   make test-all
#   make soak [MINUTES=60] [SEED=0]
#   make lint
#   make clean
#
# PYTHON=... names the Python to use (3.10 to 3.12). TORCH=... is what pip is asked for instead of torch==2.13.0, which
# is a CPU build where one is at hand; a plain range would bring several GB of CUDA packages. TORCH= leaves torch alone.

GOALS ?= 20
SEED ?= 0
OUT ?= runs/demo
MINUTES ?= 60
TESTS ?= quick
TORCH ?= torch==2.13.0
export PYTHON TORCH

.PHONY: help setup demo test test-all soak lint clean docs

help:
	@sed -n 's/^# \{0,1\}//p; /^$$/q' Makefile

setup:
	@tools/setup.sh

demo: setup
	@.venv/bin/jepa_ros demo --goals $(GOALS) --seed $(SEED) --out $(OUT) $(if $(filter-out 0,$(HEADLESS)),--headless)

# At most 5 minutes on two cores. TESTS names paths instead.
test: setup
	@tools/run_tests.sh $(TESTS)

# At most 20 minutes on two cores.
test-all: setup
	@tools/run_tests.sh all

soak: setup
	@.venv/bin/jepa_ros soak --minutes $(MINUTES) --seed $(SEED) --out runs/soak

lint: setup
	@.venv/bin/ruff check .

clean:
	rm -rf build install log .pytest_cache .ruff_cache .hypothesis *.egg-info
	find jepa_ros test tools launch -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

docs: setup
	@.venv/bin/python -c "import mkdocs" 2>/dev/null || .venv/bin/python -m pip install -q -r requirements/docs.txt
	@NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict
