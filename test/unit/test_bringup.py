"""`jepa_ros up` and the launch files start the same nodes; arguments are checked before anything starts."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from helpers.launch_files import LAUNCH, nodes_by_launch, nodes_by_stand_in, real_launch_is_there
from jepa_ros.bringup import nodes as bringup
from jepa_ros.bringup.nodes import ARGUMENTS, ReplayArguments, SimArguments, node_list
from jepa_ros.bringup.up import environment_of
from jepa_ros.errors import InputError
from jepa_ros.resources import config_path, resolve_model


@pytest.fixture
def model(tmp_path):
    """A checkpoint's directory, so that these tests need none that is trained."""
    folder = tmp_path / "some_model"
    folder.mkdir()
    assert resolve_model(folder) == folder
    return str(folder)


def by_up(kind, arguments):
    return [
        {
            "executable": spec.name,
            "package": "jepa_ros",
            "name": spec.name,
            "namespace": spec.namespace,
            "params_file": spec.params_file,
            "parameters": dict(spec.parameters),
            "remappings": list(spec.remappings),
            "log_level": spec.log_level,
            "prefix": f"nice -n {spec.nice}" if spec.nice else "",
        }
        for spec in node_list(kind, ARGUMENTS[kind](**arguments))
    ]


KINDS = ["sim", "robot", "replay", "gazebo"]
GIVEN = [
    {},
    {"record": "runs/of_today"},
    {"camera_topic": "/head/image_raw", "namespace": "left/arm", "use_sim_time": True, "log_level": "debug"},
    {"namespace": "/cell"},
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", GIVEN)
def test_launch_files_and_up_start_the_same_nodes_with_the_same_parameters(kind, given, model, monkeypatch):
    given = {"model": model, **given}
    words = {name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()}
    assert nodes_by_stand_in(kind, words, monkeypatch)[0] == by_up(kind, given)


@pytest.mark.skipif(not real_launch_is_there(), reason="launch and launch_ros are not installed")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", GIVEN)
def test_ros2_launch_starts_the_same_nodes_as_up(kind, given, model):
    given = {"model": model, "params_file": str(config_path(f"{kind}.yaml")), **given}
    words = {name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()}
    expected = by_up(kind, {**given, "params_file": Path(given["params_file"])})
    assert nodes_by_launch(kind, words) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_launch_files_declare_every_argument_of_up_with_the_same_default(kind, monkeypatch, model):
    _, declared = nodes_by_stand_in(kind, {}, monkeypatch)
    defaults = {k: str(v).lower() if isinstance(v, (bool, float)) else v for k, v in vars(ARGUMENTS[kind]()).items()}
    assert declared == defaults | {"params_file": str(config_path(f"{kind}.yaml"))}


def test_a_node_is_started_by_this_python_with_its_ros_arguments(model):
    gate = node_list("sim", SimArguments(model=model, namespace="x"))[-1]
    assert gate.command()[:3] == [sys.executable, "-m", "jepa_ros.nodes.arm_gate"]
    arguments = gate.ros_arguments()
    assert arguments[:5] == ["--ros-args", "-r", "__node:=arm_gate", "-r", "__ns:=/x"]
    assert 'robot:="openarm"' in arguments and "use_sim_time:=false" in arguments


def test_the_parameter_files_of_the_package_are_valid():
    for kind in bringup.NODES:
        bringup.check_params_file(config_path(f"{kind}.yaml"))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"robot": "r2d2"}, "robot 'r2d2'"),
        ({"model": "nothing"}, "model 'nothing'"),
        ({"params_file": "missing.yaml"}, "parameters file missing.yaml.*No such file"),
        ({"log_level": "loud"}, "log level 'loud': expected one of debug"),
        ({"camera_topic": "no spaces"}, "camera topic 'no spaces'"),
        ({"camera_topic": ""}, "camera topic: empty"),
        ({"namespace": "a//b"}, "namespace 'a//b'"),
        ({"namespace": "1st"}, "namespace '1st'"),
    ],
)
def test_an_invalid_argument_is_refused_by_name(given, complaint, model):
    with pytest.raises(InputError, match=complaint):
        node_list("sim", SimArguments(**{"model": model, **given}))


def test_every_node_of_a_bringup_is_installed_as_an_executable():
    setup = ast.parse((LAUNCH.parent / "setup.py").read_text())
    [installed] = [n.value for n in setup.body if isinstance(n, ast.Assign) and n.targets[0].id == "NODES"]
    assert {*ast.literal_eval(installed)} == {"recorder"}.union(*bringup.NODES.values())


def test_in_a_replay_the_gate_commands_no_controller_and_uses_the_player_s_clock(model):
    specs = {spec.name: spec for spec in node_list("replay", ReplayArguments(model=model, bag="b"))}
    assert specs["arm_gate"].parameters["shadow"] is True
    assert [name for name, spec in specs.items() if not spec.parameters["use_sim_time"]] == ["player"]
    assert ("executed", "shadow/executed") in specs["arm_gate"].remappings


@pytest.mark.parametrize(("kind", "alone"), [("sim", True), ("replay", True), ("robot", False), ("record", False)])
def test_nodes_that_command_or_record_a_robot_join_the_shell_s_graph(kind, alone, monkeypatch):
    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS"):
        monkeypatch.delenv(name, raising=False)
    found = environment_of(kind)
    assert ("ROS_DOMAIN_ID" in found) == alone and ("ROS_AUTOMATIC_DISCOVERY_RANGE" in found) == alone


def test_a_missing_recording_is_refused_before_anything_starts(model):
    with pytest.raises(InputError, match="bag 'nowhere': expected a rosbag2 directory or file"):
        bringup.check_inputs(ReplayArguments(bag="nowhere"))


def test_an_unknown_bringup_is_refused():
    with pytest.raises(InputError, match="bring-up 'moon': expected one of sim, robot, replay, record, gazebo"):
        node_list("moon")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("camera: {ros__parameters: {}}", "expected keys such as '/\\*\\*' or '/\\*\\*/camera', found 'camera'"),
        ("/**: {rate: 3}", "/\\*\\*: expected one key 'ros__parameters', found rate"),
        ("/**: 3", "found int"),
        ("- 1", "expected node names as keys, found list"),
        ("", "expected node names as keys, found NoneType"),
        ("/**: [", "expected YAML"),
        ("/**: {ros__parameters: [1]}", "/\\*\\*: ros__parameters: expected names and values, found list"),
        ("/**/planner: {ros__parameters: {model: other}}", "model is an argument of the bring-up"),
    ],
)
def test_a_malformed_parameters_file_is_refused_in_one_line(tmp_path, content, complaint):
    path = tmp_path / "p.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=complaint) as refused:
        bringup.check_params_file(path)
    assert "\n" not in str(refused.value)


def test_a_parameters_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="parameters file .*: expected YAML, found .*decode"):
        bringup.check_params_file(path)
