"""`jepa_ros up sim` as a user runs it: all nodes start, and one Ctrl-C ends them all."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from helpers.nodes import NodeProcess, wait_for
from jepa_ros.bringup.nodes import NODES

UP = "import sys; from jepa_ros.cli import app; app(prog_name='jepa_ros')"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model with fresh weights: what is tested here needs none that has learnt anything."""
    from helpers.untrained_model import fresh_model

    return fresh_model(tmp_path_factory.mktemp("model") / "fresh")


@pytest.fixture
def up(tmp_path, checkpoint):
    """up(*options) -> the running command."""
    running = []

    def start(*options: str) -> NodeProcess:
        command = [sys.executable, "-c", UP, "up", *options, "--model", str(checkpoint)]
        running.append(NodeProcess(command, tmp_path / f"{len(running)}.log"))
        return running[-1]

    yield start
    for process in running:
        process.end()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pids) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def active(process: NodeProcess, namespace: str = "") -> set[str]:
    return set(re.findall(r"^ *(\w+) \| .*: active$", process.output, re.MULTILINE))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_all_nodes_start_and_end_together(up, client, number):
    process = up("sim", "--namespace", f"cell_{int(number)}")
    wait_for(lambda: active(process) == set(NODES["sim"]) or process.process.poll() is not None, "all nodes", 120)
    assert active(process) == set(NODES["sim"]), process.output
    assert client.state(f"/cell_{int(number)}/arm_gate") == "active"
    pids = children(process.pid)
    assert len(pids) == len(NODES["sim"])
    process.signal(number)
    assert process.wait(20) == 0, process.output
    assert not alive(pids)
    assert "Traceback" not in process.output


def test_a_killed_node_is_named_and_ends_the_bring_up(up):
    process = up("sim", "--namespace", "dying")
    wait_for(lambda: "camera" in active(process), "the camera", 120)
    pids = children(process.pid)
    [camera] = [pid for pid in pids if "jepa_ros.nodes.camera" in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(camera, signal.SIGKILL)
    assert process.wait(30) == 1
    assert "camera was ended by SIGKILL" in process.output
    assert not alive(pids)


def test_a_refused_node_parameter_ends_the_bringup_with_exit_2(up, tmp_path):
    params = tmp_path / "p.yaml"
    params.write_text("/**/camera: {ros__parameters: {max_age: -1.0}}")
    process = up("robot", "--namespace", "wrong", "--params-file", str(params))
    assert process.wait(60) == 2
    assert "max_age" in process.output and "camera ended with code 2" in process.output
    assert "Traceback" not in process.output
