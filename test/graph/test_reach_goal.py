"""The whole graph, each node a process of its own: a goal image goes in, the arm goes there."""

import json
import subprocess
import sys

import pytest

from jepa_ros.bringup.environment import process_environment
from jepa_ros.resources import list_models

pytestmark = [
    pytest.mark.smoke,
    pytest.mark.skipif("openarm_reach" not in list_models(), reason="needs the model that ships"),
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """`jepa_ros demo` with one goal: its process and the folder that it wrote."""
    out = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "jepa_ros.cli", "demo", "--goals", "1", "--seed", "3", "--headless"]
    done = subprocess.run(
        [*command, "--out", str(out)], env=process_environment(), capture_output=True, text=True, timeout=240
    )
    return done, out


@pytest.fixture(scope="module")
def summary(demo):
    done, out = demo
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((out / "summary.json").read_text())


def test_a_goal_image_is_reached_through_five_processes(summary):
    assert summary["reached"] == 1
    assert summary["final_distance_m"]["max"] <= 0.03 < 0.10 <= summary["start_distance_m"]["min"]
    pids = {process["name"]: process["pid"] for process in summary["processes"]}
    assert {"simulator", "camera", "world_model", "planner", "arm_gate"} <= set(pids)
    assert len(set(pids.values())) == len(pids)


def test_plans_are_made_from_frames_and_used_by_the_gate(summary):
    assert summary["plans"] >= 3
    assert 0 < summary["latency_ms"]["p50"] < 1000
    assert summary["frames"]["encoded"] > 0


def test_the_demo_writes_a_report_and_a_video_and_leaves_no_process(demo, summary):
    _, out = demo
    assert (out / "report.html").stat().st_size > 10_000
    assert (out / "demo.mp4").stat().st_size > 10_000
    for process in summary["processes"]:
        assert not _alive(process["pid"]), process


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
