"""The launch files under launch itself, where launch, launch_ros and an installed jepa_ros are there."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from helpers.nodes import NodeProcess, wait_for
from jepa_ros.bringup.nodes import NODES

ROS2 = "from ros2cli.cli import main; raise SystemExit(main())"


def _missing() -> str:
    try:
        from ament_index_python.packages import get_package_prefix
        from launch import LaunchDescription  # noqa: F401  (the folder launch/ would be found as well)
        from launch_ros.actions import Node  # noqa: F401
        from ros2cli.cli import main  # noqa: F401
    except ImportError as error:
        return str(error)
    try:
        executable = Path(get_package_prefix("jepa_ros"), "lib", "jepa_ros", "camera")
    except LookupError as error:
        return str(error)
    return "" if executable.is_file() else f"{executable} is not there"


pytestmark = pytest.mark.skipif(bool(_missing()), reason=_missing() or "all is there")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from helpers.untrained_model import fresh_model

    return fresh_model(tmp_path_factory.mktemp("model") / "fresh")


@pytest.fixture
def launch(tmp_path, checkpoint):
    """launch(kind, argument="value", ...) -> the running `ros2 launch`."""
    running = []

    def start(kind: str, **arguments: str) -> NodeProcess:
        words = [f"{name}:={value}" for name, value in {"model": checkpoint, **arguments}.items()]
        command = [sys.executable, "-c", ROS2, "launch", "jepa_ros", f"{kind}.launch.py", *words]
        running.append(NodeProcess(command, tmp_path / f"{len(running)}.log"))
        return running[-1]

    yield start
    for process in running:
        process.end()


def pids(process: NodeProcess) -> dict[str, int]:
    """Process ids of the nodes, the newest of each."""
    return {
        name: int(pid) for name, pid in re.findall(r"\[(\w+)-\d+\]: process started with pid \[(\d+)\]", process.output)
    }


def active(process: NodeProcess) -> set[str]:
    return set(re.findall(r"^\[(\w+)-\d+\] .*: active$", process.output, re.MULTILINE))


def ended(process: NodeProcess) -> bool:
    return process.process.poll() is not None


def alive(process: NodeProcess) -> list[str]:
    return [name for name, pid in pids(process).items() if Path(f"/proc/{pid}").exists()]


def test_the_simulated_cell_starts_and_ends_on_ctrl_c(launch, client):
    process = launch("sim", namespace="launched")
    wait_for(lambda: active(process) == set(NODES["sim"]) or ended(process), "all nodes", 240)
    assert active(process) == set(NODES["sim"]), process.output
    assert client.get_parameter("/launched/camera", "frozen_after") == 0.0
    process.signal(signal.SIGINT)
    assert process.wait(60) == 0, process.output
    assert not alive(process)


def test_the_launch_ends_when_the_replayed_recording_ends(launch, tmp_path):
    from jepa_ros.bags.reader import open_bag
    from jepa_ros.collecting.simulated import collect_simulated

    assert collect_simulated(out=tmp_path / "play", episodes=1, seed=7, width=64, height=64, workers=1) == 0
    process = launch("replay", bag=tmp_path / "play", record=tmp_path / "results", namespace="replayed")
    wait_for(lambda: active(process) == {*NODES["replay"], "recorder"} or ended(process), "all nodes", 240)
    process.wait(120)
    assert "end of the recording" in process.output and not alive(process)
    with open_bag(tmp_path / "results") as source:
        assert {t.topic: t.count for t in source.topics}["/replayed/latent"] > 10, source.problems


def test_the_launch_ends_when_a_node_dies(launch):
    process = launch("robot", namespace="ending", camera_topic="/head/image_raw")
    wait_for(lambda: "camera" in active(process) or ended(process), "the camera", 240)
    os.kill(pids(process)["camera"], signal.SIGKILL)
    process.wait(90)
    assert not alive(process)


def test_with_respawn_a_node_is_restarted(launch, client):
    process = launch("robot", namespace="respawned", respawn="true", camera_topic="/head/image_raw")
    wait_for(lambda: "camera" in active(process) or ended(process), "the camera", 240)
    first = pids(process)["camera"]
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: pids(process)["camera"] != first or ended(process), "a second camera", 60)
    assert set(alive(process)) == set(NODES["robot"])
    process.signal(signal.SIGINT)
    process.wait(60)
    assert not alive(process)
