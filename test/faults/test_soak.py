"""`jepa_ros soak` with the whole graph: faults are survived, and Ctrl-C ends it with its results written."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path

import pytest

from helpers.nodes import ROOT, NodeProcess, wait_for

SOAK = "import sys; from jepa_ros.cli import app; app(prog_name='jepa_ros')"


@pytest.fixture
def soak(tmp_path):
    """soak(*options) -> the running command; its results are in tmp_path/out."""
    running = []

    def start(*options: str) -> NodeProcess:
        command = [sys.executable, "-c", SOAK, "soak", "--seed", "3", "--out", str(tmp_path / "out"), *options]
        running.append(NodeProcess(command, tmp_path / "soak.log"))
        return running[-1]

    yield start
    for process in running:
        process.end()


def results(tmp_path) -> dict:
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") >= 2 and "Every fault" in page
    return json.loads((tmp_path / "out" / "summary.json").read_text())


def children(pid: int) -> list[int]:
    return [int(k) for k in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.graph
@pytest.mark.slow
def test_a_short_soak_survives_its_faults(soak, tmp_path):
    process = soak("--minutes", "5", "--faults", "3", "--load", "0")  # half a minute, where the machine is free
    assert process.wait(500) == 0, process.output + (tmp_path / "out" / "nodes.log").read_text()[-3000:]
    summary = results(tmp_path)
    assert summary["passed"] and summary["violations"] == 0 and summary["windows"] > 100
    assert summary["faults"] == summary["survived"] == 3
    assert summary["largest_step_rad"] < 0.02 and not summary["unexpected_exits"] and not summary["tracebacks"]
    assert set(summary["memory"]) == {"simulator", "camera", "world_model", "planner", "arm_gate"}
    ms = {name: summary["latency_ms"][name]["p50"] for name in ("latent", "plan", "window")}
    assert 0 < ms["latent"] < min(ms["plan"], ms["window"]) and max(ms.values()) < 2000
    stopping = [row for row in summary["rows"] if row["stops"]]
    assert all(0 < row["stop_ms"] < 4000 and row["said"] for row in stopping)
    assert summary["goals"]["sent"] > 0


@pytest.mark.graph
@pytest.mark.slow
def test_ctrl_c_writes_partial_results_and_leaves_no_process(soak, tmp_path):
    process = soak("--minutes", "60", "--load", "1")
    log = tmp_path / "out" / "nodes.log"
    wait_for(
        lambda: process.process.poll() is not None or (log.exists() and "survived: " in log.read_text()),
        "the first fault",
        200,
    )
    assert process.process.poll() is None, process.output
    pids = children(process.pid)
    assert len(pids) == 7  # five nodes, relay and load
    process.signal(signal.SIGINT)
    assert process.wait(60) == 130, process.output
    summary = results(tmp_path)
    assert summary["ended_early"] == "interrupted" and not summary["passed"] and summary["faults"] >= 1
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert "Traceback" not in process.output


def test_every_row_of_the_documented_fault_catalogue_has_a_marked_test():
    text = (ROOT / "docs" / "results" / "reliability.md").read_text()
    rows = {int(number): files for number, files in re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", text, re.MULTILINE)}
    assert sorted(rows) == list(range(1, 49))
    for number, files in rows.items():
        named = re.findall(r"`(test_\w+\.py)`", files)
        assert named, f"row {number} names no test"
        for name in named:
            [path] = (ROOT / "test").rglob(name)
            assert f"mark.fault({number})" in path.read_text(), f"{name} does not cover row {number}"
