# `make demo` and `make test` do all their own set-up in .venv. The first time takes some minutes, after that none.
#
#   make setup [CLEAR=1]             only the set-up; CLEAR=1 replaces an existing .venv
#   make setup-robot                 with the messages by which gate and doctor read the state of real controllers
#   make demo [GOALS=20] [SEED=0] [HEADLESS=1] [OUT=runs/demo]
#   make test [TESTS=test/unit]
#   make test-all
#   make soak [MINUTES=60] [SEED=0]
#   make docs                        the documentation site, in build/site
#   make lint
#   make typecheck                   mypy, over the public packages that setup.cfg names
#   make clean
#
# PYTHON=... names the Python to use (3.10 to 3.12); an existing .venv keeps its own. TORCH=... is what pip is asked for
# instead of torch==2.13.0, which is a CPU build where one is at hand; TORCH= keeps the installed torch. PRUNE=0 keeps
# files of packages that nothing here uses.

GOALS ?= 20
SEED ?= 0
OUT ?= runs/demo
MINUTES ?= 60
TESTS ?= quick
TORCH ?= torch==2.13.0
export PYTHON TORCH CLEAR PRUNE

.PHONY: help setup setup-robot setup-test demo test test-all soak lint typecheck clean docs

help:
	@sed -n 's/^# \{0,1\}//p; /^$$/q' Makefile

setup:
	@tools/setup.sh

# With control_msgs and controller_manager_msgs, which have no wheels.
setup-robot:
	@tools/setup.sh robot

# With the packages that only the tests need.
setup-test:
	@tools/setup.sh test

demo: setup
	@.venv/bin/jepa_ros demo --goals $(GOALS) --seed $(SEED) --out $(OUT) $(if $(filter-out 0,$(HEADLESS)),--headless)

# At most 5 minutes on two cores. TESTS names paths instead.
test: setup-test
	@tools/run_tests.sh $(TESTS)

# At most 20 minutes on two cores.
test-all: setup-test
	@tools/run_tests.sh all

soak: setup
	@.venv/bin/jepa_ros soak --minutes $(MINUTES) --seed $(SEED) --out runs/soak

lint:
	@tools/setup.sh lint
	@.venv/bin/ruff check .

typecheck:
	@tools/setup.sh lint
	@.venv/bin/mypy

clean:
	rm -rf build install log .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
	find jepa_ros test tools launch -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

docs:
	@tools/setup.sh docs
	@NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict
