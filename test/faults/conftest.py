"""The fault catalogue's tests: which row each one is of, what it measured, and runs/faults/summary.json."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from helpers.nodes import client, domain, start  # noqa: F401  the fixtures of graph tests

ROOT = Path(__file__).resolve().parents[2]
SUMMARY = ROOT / "runs" / "faults" / "summary.json"

_KEY = pytest.StashKey[list]()


@pytest.fixture
def measured(request) -> dict:
    """What a test found: stop_ms, from the fault to rest; caught_ms, from the timeout that caught it to the first
    stopping command; max_violation of the limits by what a controller would have received (see WindowAuditor.worst)."""
    found = {"stop_ms": None, "caught_ms": None, "max_violation": 0.0}
    request.node.stash[_KEY] = found
    return found


def pytest_configure(config) -> None:
    config.stash[_KEY] = []


def pytest_collection_modifyitems(items) -> None:
    """Fast DDS looks up the network's interfaces once a process: what has a network of its own must come first."""
    items.sort(key=lambda item: "network" not in item.fixturenames)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    decided = call.when == "call" or not report.passed  # a set-up or an end that fails decides as well
    for mark in item.iter_markers("fault") if decided else ():
        found = item.stash.get(_KEY, {"stop_ms": None, "caught_ms": None, "max_violation": 0.0})
        test = item.nodeid.removeprefix("test/faults/")
        entries = item.config.stash[_KEY]
        entries[:] = [e for e in entries if (e["row"], e["test"]) != (mark.args[0], test)]
        entries.append({"row": mark.args[0], "test": test, "passed": report.passed, **found})


def pytest_sessionfinish(session) -> None:
    """Rows of tests that ran now replace their own older entries; the others stay, so that parts can be run again."""
    ran = session.config.stash[_KEY]
    if not ran:
        return
    SUMMARY.parent.mkdir(parents=True, exist_ok=True)
    with open(SUMMARY.with_suffix(".lock"), "w") as lock:  # two workers may end at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        _add_to_summary(ran)


def _add_to_summary(ran: list[dict]) -> None:
    before = json.loads(SUMMARY.read_text()) if SUMMARY.exists() else []
    again = {(e["row"], e["test"]) for e in ran}
    there = {path.name for path in Path(__file__).parent.glob("test_*.py")}
    kept = [e for e in before if (e["row"], e["test"]) not in again and e["test"].split("::")[0] in there]
    entries = kept + ran
    partial = SUMMARY.with_suffix(".partial")
    partial.write_text(json.dumps(sorted(entries, key=lambda e: (e["row"], e["test"])), indent=1) + "\n")
    partial.replace(SUMMARY)
