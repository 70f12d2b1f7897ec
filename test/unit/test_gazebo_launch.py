"""The programs that gazebo.launch.py starts beside our nodes: each name in it is documented upstream."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml

from helpers.gazebo_names import (
    BRIDGE_KEYS,
    BRIDGE_TYPES,
    CONSTRAINTS,
    CONTROLLER_KEYS,
    GZ_LAUNCH_ARGUMENTS,
    GZ_OPTIONS,
    PUBLISHED,
)
from jepa_ros.bringup import gazebo
from jepa_ros.bringup.nodes import GazeboArguments, node_list
from jepa_ros.errors import InputError
from jepa_ros.resources import config_path


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    return gazebo.make_cell("openarm", "left/", tmp_path_factory.mktemp("a cell"))


def options(program: gazebo.Program) -> set[str]:
    """The words of its arguments that are no numbers and begin with a dash."""
    return {word for word in program.arguments if word.startswith("-") and not word[1:2].isdigit()}


def all_programs(cell, **arguments) -> list[gazebo.Program]:
    made = gazebo.processes(GazeboArguments(**arguments), cell)
    return [*made.running, made.spawning, made.starting]


def test_every_program_argument_and_parameter_is_documented_upstream(cell):
    programs = all_programs(cell)
    assert {(p.package, p.executable) for p in programs} == set(PUBLISHED)
    for program in programs:
        arguments, parameters = PUBLISHED[program.package, program.executable]
        assert options(program) <= arguments and set(program.parameters) <= parameters


@pytest.mark.parametrize("headless", [False, True])
def test_gazebo_is_started_with_documented_arguments(cell, headless):
    gz = gazebo.processes(GazeboArguments(headless=headless), cell).gz
    assert set(gz) <= GZ_LAUNCH_ARGUMENTS
    *given, world = shlex.split(gz["gz_args"])
    assert set(given) <= GZ_OPTIONS and "-r" in given and Path(world).is_file()
    assert {"-s", "--headless-rendering"}.issubset(given) == headless


def test_every_named_file_exists(cell):
    named = [word for p in all_programs(cell) for word in (*p.arguments, *p.parameters.values())]
    files = [word for word in named if isinstance(word, str) and word.startswith("/")]
    assert len(files) == 3 and all(Path(file).is_file() for file in files)  # the robot, controllers, the bridge's


def test_the_bridge_s_file_has_documented_keys_and_pairs_of_types():
    for entry in yaml.safe_load(config_path("gazebo", "bridge.yaml").open()):
        assert set(entry) <= BRIDGE_KEYS and entry["direction"] == "GZ_TO_ROS"
        assert (entry["ros_type_name"], entry["gz_type_name"]) in BRIDGE_TYPES


def test_the_controllers_file_has_documented_keys():
    sections = yaml.safe_load(config_path("gazebo", "controllers.yaml").open())
    names = {key.removeprefix("/**/") for key in sections}
    assert names == set(CONTROLLER_KEYS)
    for key, section in sections.items():
        own = CONTROLLER_KEYS[key.removeprefix("/**/")] | names
        values = section["ros__parameters"]
        assert set(section) == {"ros__parameters"} and set(values) <= own
        for name, value in values.get("constraints", {}).items():
            assert set(value) <= CONSTRAINTS if isinstance(value, dict) else name in CONSTRAINTS


@pytest.mark.parametrize("node", CONTROLLER_KEYS)
@pytest.mark.parametrize("namespace", ["/", "/left"])
def test_the_controllers_file_applies_to_each_node_in_any_namespace(node, namespace, monkeypatch):
    """rcl reads less than YAML: no aliases, for one."""
    from rclpy.context import Context
    from rclpy.node import Node

    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")  # the parameters are all that matters here
    context = Context()
    context.init(args=["--ros-args", "--params-file", str(config_path("gazebo", "controllers.yaml"))])
    try:
        options = {"allow_undeclared_parameters": True, "automatically_declare_parameters_from_overrides": True}
        made = Node(node, namespace=namespace, context=context, start_parameter_services=False, **options)
        found = made.get_parameters_by_prefix("")
        made.destroy_node()
    finally:
        context.shutdown()
    sections = yaml.safe_load(config_path("gazebo", "controllers.yaml").open())
    wanted = sections[f"/**/{node}"]["ros__parameters"]
    for name, value in wanted.items():
        if not isinstance(value, dict):
            assert found[name].value == value
    assert node != "right_joint_trajectory_controller" or found["constraints.openarm_right_joint7.trajectory"].value > 0


def test_the_robot_s_controllers_are_started(cell):
    [starting] = [p for p in all_programs(cell) if p.executable == "spawner"]
    assert starting.arguments[:2] == ("joint_state_broadcaster", "right_joint_trajectory_controller")


@pytest.mark.parametrize(
    ("topic", "info"), [("image", "camera_info"), ("/head/image_raw", "/head/camera_info"), ("a/b", "a/camera_info")]
)
def test_camera_info_is_beside_the_image(cell, topic, info):
    [bridge] = [p for p in all_programs(cell, camera_topic=topic) if p.executable == "parameter_bridge"]
    assert dict(bridge.remappings) == {"image": topic, "camera_info": info}


def test_the_controller_manager_has_the_namespace_of_the_nodes(cell):
    assert "<namespace>/left</namespace>" in cell.robot.read_text()


def test_nodes_use_the_gazebo_clock():
    nodes = node_list("gazebo")
    assert [n.name for n in nodes] == ["camera", "world_model", "planner", "arm_gate"]
    assert all(n.parameters["use_sim_time"] for n in nodes)


def test_a_robot_without_a_gazebo_model_is_refused(tmp_path):
    text = yaml.safe_load(config_path("robots", "openarm.yaml").open())
    text["controllers"][0]["name"] = "arm_controller"
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(text))
    with pytest.raises(
        InputError, match="controller arm_controller: expected it with its joints in .*controllers.yaml"
    ):
        gazebo.make_cell(str(tmp_path / "other.yaml"), "", tmp_path)
    assert not list(tmp_path.glob("*.sdf"))


def test_missing_packages_are_named_in_one_line(cell):
    def find(package):
        if package.startswith("ros_gz"):
            raise LookupError(package)

    packages = gazebo.processes(GazeboArguments(), cell).packages
    with pytest.raises(
        InputError,
        match="2 of the . required ROS packages are missing: apt install ros-jazzy-ros-gz-bridge ros-jazzy-ros-gz-sim$",
    ):
        gazebo.check_packages(packages, find)
    gazebo.check_packages(packages, lambda package: "/")


def test_up_gazebo_prints_the_launch_command():
    from typer.testing import CliRunner

    from jepa_ros.cli import app

    result = CliRunner().invoke(app, ["up", "gazebo"])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1 and "ros2 launch jepa_ros gazebo.launch.py" in result.stderr
