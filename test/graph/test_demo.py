"""`jepa_ros demo` leaves its results behind also when it is interrupted, and no process."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from helpers.nodes import NodeProcess, wait_for
from helpers.untrained_model import fresh_model

DEMO = "import sys; from jepa_ros.cli import app; app(prog_name='jepa_ros')"


@pytest.fixture
def demo(tmp_path):
    """demo(*options) -> the running command; its results are in tmp_path/out."""
    model = fresh_model(tmp_path / "fresh")
    running = []

    def start(*options: str) -> NodeProcess:
        command = [sys.executable, "-c", DEMO, "demo", "--headless", "--model", str(model), "--seed", "3"]
        running.append(NodeProcess([*command, "--out", str(tmp_path / "out"), *options], tmp_path / "demo.log"))
        return running[-1]

    yield start
    for process in running:
        process.end()


def results(tmp_path) -> dict:
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") >= 2 and "data:image/jpeg" in page
    assert (tmp_path / "out" / "demo.mp4").stat().st_size > 1000
    assert not [p["name"] for p in summary["processes"] if Path(f"/proc/{p['pid']}").exists()]
    return summary


def test_ctrl_c_writes_partial_results_and_leaves_no_process(demo, tmp_path):
    process = demo("--goals", "5")
    wait_for(lambda: "goal 1/5" in process.output or process.process.poll() is not None, "the first goal", 200)
    assert process.process.poll() is None, process.output
    process.signal(signal.SIGINT)
    assert process.wait(60) == 130, process.output
    summary = results(tmp_path)
    assert summary["ended_early"] == "interrupted" and summary["begun"] >= 1 and summary["goals"] == 5
    assert summary["frames"]["sent"] > 0 and summary["start_distance_m"]["min"] > 0.05
    assert "Traceback" not in process.output


def test_a_node_that_dies_ends_the_demo_with_its_name(demo, tmp_path):
    process = demo("--goals", "5")
    wait_for(lambda: "goal 1/5" in process.output or process.process.poll() is not None, "the first goal", 200)
    kids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    [camera] = [int(k) for k in kids if "nodes.camera" in Path(f"/proc/{k}/cmdline").read_text()]
    os.kill(camera, signal.SIGKILL)
    assert process.wait(60) == 1, process.output
    assert "camera was ended by SIGKILL" in results(tmp_path)["ended_early"]
    assert "Traceback" not in process.output
