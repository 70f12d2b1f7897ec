"""Rules for all tests: which ones `make test` runs, their ROS domains, and processes that must not be left behind.

`make test` deselects the marker slow. Tests that start nodes or build the packages (test/graph, test/faults and
test/build) have it, except those that are marked smoke.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers import leftovers

STARTS_PROCESSES = {"graph", "faults", "build"}

# Before anything is started: each process of a test carries it in its environment.
os.environ[leftovers.MARK] = str(os.getpid())
# The cores are shared by the workers: a second thread of torch or OpenBLAS would only take turns with another test.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items) -> None:
    folder = Path(__file__).parent
    for item in items:
        if item.path.relative_to(folder).parts[0] in STARTS_PROCESSES and not item.get_closest_marker("smoke"):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def no_process_is_left():
    """Set up before and torn down after all other fixtures of a module."""
    yield
    left = leftovers.wait_until_gone(os.getpid())
    leftovers.kill(left)
    assert not left, f"processes left behind: {left}"
