"""Graphs that run on this machine: how `jepa_ros goal`, `stop` and `status` find the one to join."""

import json
import os

import pytest

from jepa_ros.bringup import running_graphs
from jepa_ros.bringup.running_graphs import announce, join_graph
from jepa_ros.commands.operating import read_joints
from jepa_ros.errors import InputError

LOCAL = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A runtime folder of this test's own, and a shell without ROS variables."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    return tmp_path / f"jepa_ros-{os.getuid()}"


def add(folder, pid, **graph):
    folder.mkdir(exist_ok=True)
    (folder / f"{pid}.json").write_text(json.dumps({"command": "up sim", "domain": 7} | graph))


def test_the_only_graph_is_joined_by_its_domain_range_and_namespace():
    with announce("up sim", {"ROS_DOMAIN_ID": "42", **LOCAL}, "cell"):
        found = join_graph()
    assert (found.domain, found.namespace) == (42, "cell")
    assert os.environ["ROS_DOMAIN_ID"] == "42" and os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert not running_graphs.running_graphs(), "it has ended"


def test_without_a_graph_the_ros_domain_of_the_shell_is_joined(monkeypatch):
    assert join_graph().domain == 0
    monkeypatch.setenv("ROS_DOMAIN_ID", "5")
    assert join_graph(None, "cell").domain == 5 and "ROS_AUTOMATIC_DISCOVERY_RANGE" not in os.environ


@pytest.mark.parametrize("shell", ["9", ""])
def test_the_user_s_options_take_precedence(folder, monkeypatch, shell):
    monkeypatch.setenv("ROS_DOMAIN_ID", shell)
    add(folder, os.getpid(), discovery_range="LOCALHOST", namespace="cell")
    assert join_graph(9, "mine").domain == 9
    assert os.environ["ROS_DOMAIN_ID"] == "9" and "ROS_AUTOMATIC_DISCOVERY_RANGE" not in os.environ


def test_with_several_graphs_the_user_must_choose(folder):
    add(folder, os.getpid(), discovery_range="LOCALHOST")
    add(folder, os.getppid(), domain=8, namespace="cell")
    with pytest.raises(InputError, match="2 graphs run on this machine: .*domain 7.*domain 8.*--domain or --namespace"):
        join_graph()
    assert join_graph(namespace="/cell").domain == 8


@pytest.mark.parametrize("text", ["{", "[]", '{"domain": 1}', '{"command": "up sim", "domain": 1, "more": 2}'])
def test_invalid_graph_files_are_ignored(folder, text):
    folder.mkdir()
    (folder / f"{os.getpid()}.json").write_text(text)
    add(folder, 2**22 + 1)  # no process has this number
    assert not running_graphs.running_graphs()


def test_joint_options_are_parsed_by_name():
    assert read_joints(["elbow=-0.5", "wrist=1"]) == {"elbow": -0.5, "wrist": 1.0}


@pytest.mark.parametrize("text", ["elbow", "=1", "elbow=", "elbow=nan", "elbow=1e999", "elbow=1=2"])
def test_a_malformed_joint_option_is_refused(text):
    with pytest.raises(InputError, match="expected NAME=RAD"):
        read_joints([text])


def test_a_repeated_joint_option_is_refused():
    with pytest.raises(InputError, match="joint 'elbow': given twice"):
        read_joints(["elbow=1", "elbow=2"])
