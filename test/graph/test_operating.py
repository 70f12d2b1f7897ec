"""`jepa_ros goal`, `stop` and `status` beside a running `jepa_ros up sim`, each called as from another terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from helpers.nodes import NodeProcess, environment, wait_for
from jepa_ros.graph_clients.status import CORE
from jepa_ros.resources import list_models

pytestmark = pytest.mark.skipif("openarm_reach" not in list_models(), reason="needs the model that ships")
NODES = {"arm_gate", "camera", "planner", "simulator", "world_model"}
HERE, THERE = ("0.22", "-0.30", "0.455"), ("0.12", "-0.38", "0.455")  # m
COMMAND = [sys.executable, "-m", "jepa_ros.cli"]


class Terminal:
    """A shell of its own runtime folder without ROS variables, as a user's that has sourced nothing."""

    def __init__(self, folder):
        self.environment = environment() | {"XDG_RUNTIME_DIR": str(folder)}
        for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
            self.environment.pop(name, None)

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*COMMAND, *arguments], env=self.environment, capture_output=True, text=True, timeout=90, check=False
        )

    def status(self) -> dict:
        done = self.run("status", "--once", "--json")
        found = json.loads(done.stdout)
        assert done.returncode == (0 if found["ok"] else 1)
        return found


@pytest.fixture(scope="module")
def terminal(tmp_path_factory):
    return Terminal(tmp_path_factory.mktemp("runtime"))


@pytest.fixture(scope="module")
def up(terminal, tmp_path_factory):
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(terminal.environment)
    try:
        process = NodeProcess([*COMMAND, "up", "sim"], tmp_path_factory.mktemp("up") / "up.log")
    finally:
        os.environ.clear()
        os.environ.update(before)
    wait_for(lambda: process.output.count(": active") == len(NODES), "all nodes", 120.0)
    yield process
    process.end()


@pytest.fixture
def gate(terminal, up):
    """A graph whose gate is not latched."""
    yield
    assert terminal.run("stop", "--release").returncode == 0


def test_status_names_nodes_gate_planner_and_camera_rates(terminal, up):
    found = wait_for(lambda: s if len((s := terminal.status())["nodes"]) == len(NODES) else None, "all nodes")
    assert found["ok"] and {node["name"]: node["state"] for node in found["nodes"]} == dict.fromkeys(NODES, "active")
    assert found["gate"]["state"] == "HOLDING" and found["planner"]["state"] == "IDLE"
    assert [camera["node"] for camera in found["cameras"]] == ["camera"] and found["cameras"][0]["passed_hz"] > 3.0
    table = terminal.run("status", "--once").stdout
    assert all(word in table for word in (*CORE, "HOLDING", "IDLE", "frames/s"))


def test_a_pose_is_reached_with_exit_code_0(terminal, up):
    done = terminal.run("goal", "pose", *HERE)
    assert done.returncode == 0, done
    assert done.stdout.startswith("reached, final distance 0.0") and done.stdout.endswith(" m\n")
    assert "distance" in done.stderr and "plan" in done.stderr, "live progress"


def test_a_goal_image_is_reached(terminal, up, tmp_path):
    """The goal is what the camera sees now, so the arm is there."""
    from jepa_ros.sim.tasks import make_goal_set

    goals = make_goal_set("openarm", 1, 0)
    path = tmp_path / "goal.png"
    cv2.imwrite(str(path), cv2.cvtColor(np.asarray(goals.goals[0].image), cv2.COLOR_RGB2BGR))
    done = terminal.run("goal", "image", str(path))
    assert done.returncode == 0 and done.stdout.startswith("reached, final distance"), done


def test_a_goal_timeout_exits_1_with_the_cause(terminal, up):
    done = terminal.run("goal", "pose", *THERE, "--timeout", "0.3")
    assert done.returncode == 1 and "NOT reached: not reached within 0.3 s (GOAL_TIMEOUT)" in done.stdout, done


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("pose", "2.0", "-0.3", "0.455"), "workspace"),
        (("joints", "elbow=0.5"), "joints"),
        (("object", "cup", "0.1", "-0.2", "0.3"), "object 'cup'"),
        (("image", str(__file__)), "cannot be decoded"),
        (("pose", "2.0", "--tolerence", "0.455"), "goal pose: Y '--tolerence': must be a number"),
    ],
    ids=["pose", "joints", "object", "image", "option"],
)
def test_an_invalid_goal_is_one_line_and_exit_2(terminal, up, arguments, text):
    done = terminal.run("goal", *arguments)
    assert done.returncode == 2 and done.stdout == "", done
    assert len(done.stderr.strip().splitlines()) == 1 and text in done.stderr, done


def test_a_stop_latches_until_it_is_released(terminal, up, gate):
    assert terminal.run("stop").returncode == 0
    done = terminal.run("goal", "pose", *HERE)
    assert done.returncode == 1 and "(GATE_LATCHED)" in done.stdout and "jepa_ros stop --release" in done.stdout, done
    status = terminal.status()
    assert not status["ok"] and (status["gate"]["state"], status["gate"]["code"]) == ("LATCHED", "STOP_SERVICE")
    assert terminal.run("stop", "--release").returncode == 0
    assert terminal.run("goal", "pose", *HERE).returncode == 0


def test_a_goal_is_cancelled_from_another_terminal(terminal, up):
    assert terminal.run("goal", "cancel").stdout == "no goal is under way\n"
    going = subprocess.Popen(
        [*COMMAND, "goal", "pose", *THERE, "--tolerance", "1e-9"],
        env=terminal.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert "distance" in going.stderr.readline() + going.stderr.readline()
        assert terminal.run("goal", "cancel").stdout.startswith("cancelled")
        output, _ = going.communicate(timeout=30.0)
    finally:
        going.kill()
    assert going.returncode == 1 and "NOT reached: cancelled (CANCELLED)" in output


def test_ctrl_c_cancels_the_goal(terminal, up):
    going = subprocess.Popen(
        [*COMMAND, "goal", "pose", *THERE, "--tolerance", "1e-9"],
        env=terminal.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        going.stderr.readline()
        going.send_signal(signal.SIGINT)
        assert going.wait(30.0) == 130
    finally:
        going.kill()
    wait_for(lambda: terminal.run("goal", "cancel").stdout == "no goal is under way\n", "the end of the goal")


def test_without_a_graph_each_command_is_one_line_and_exit_2(tmp_path):
    from jepa_ros.bringup.environment import free_domain

    nobody, where = Terminal(tmp_path), ("--domain", str(free_domain()))
    commands = (("goal", "pose", *HERE), ("goal", "cancel"), ("stop",), ("status", "--once"))
    with ThreadPoolExecutor() as threads:  # each looks for some seconds
        for done in threads.map(lambda arguments: nobody.run(*arguments, *where), commands):
            assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done
            assert "jepa_ros up sim" in done.stderr
