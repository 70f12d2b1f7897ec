"""launch/robot.launch.py: arm, controllers and vendor bring-up by its arguments."""

import ast
import re
import runpy
import sys

import pytest
import yaml
from typer.testing import CliRunner

from helpers import small_models
from helpers.launch_files import LAUNCH, nodes_by_stand_in, real_launch_is_there
from helpers.vendor_arms import published
from jepa_ros import cli
from jepa_ros.bringup.nodes import (
    Arguments,
    RobotArguments,
    check_inputs,
    check_model_fits,
    node_list,
    vendor_of,
)
from jepa_ros.bringup.up import up
from jepa_ros.errors import InputError
from jepa_ros.resources import config_path, resolve_robot
from jepa_ros.robot.config import load_robot
from jepa_ros.robot.files.check import find_problems
from jepa_ros.robot.files.draft import draft_robot_yaml
from jepa_ros.robot.files.open_marks import require_finished

OPENARM = load_robot("openarm")

VENDORS = {
    "openarm_v10": ("openarm_bringup", {"arm_type": "v10", "use_fake_hardware": "true"}),
    "openarm_v2": ("openarm_bringup", {"arm_type": "openarm_v2.0", "use_fake_hardware": "true"}),
    "franka_fr3": ("franka_fr3_moveit_config", {"use_fake_hardware": "true", "robot_ip": "dont-care"}),
    "ur5e": ("ur_robot_driver", {"ur_type": "ur5e", "use_mock_hardware": "true", "robot_ip": "0.0.0.0"}),
    "kinova_gen3": ("kortex_bringup", {"dof": "7", "use_fake_hardware": "true", "robot_ip": "0.0.0.0"}),
}


def arguments(**given):
    return RobotArguments(**{"model": "openarm_reach", "robot": "ur5e", **given})


def parameters(**given):
    return {spec.name: dict(spec.parameters) for spec in node_list("robot", arguments(**given))}


def test_command_interface_and_robot_namespace_reach_the_nodes_that_need_them():
    found = parameters(command_interface="servo_twist", robot_namespace="/", record="runs/a")
    assert [name for name, p in found.items() if p.get("command_interface") == "servo_twist"] == [
        "arm_gate",
        "recorder",
    ]
    assert [name for name, p in found.items() if "robot_namespace" not in p] == ["camera"]


def test_arm_left_selects_the_left_robot_file_in_every_node(monkeypatch):
    found = parameters(robot="openarm_v10", arm="left")
    assert {p["robot"] for p in found.values() if "robot" in p} == {"openarm_v10_left"}
    words = {"robot": "openarm_v10", "arm": "left", "command_interface": "forward_position", "robot_namespace": "/"}
    launched, _ = nodes_by_stand_in("robot", words, monkeypatch)
    assert {n["parameters"]["robot"] for n in launched if n["name"] != "camera"} == {"openarm_v10_left"}
    [gate] = [n["parameters"] for n in launched if n["name"] == "arm_gate"]
    assert gate["command_interface"] == "forward_position" and gate["robot_namespace"] == "/"


def test_the_launch_file_declares_the_hardware_arguments(monkeypatch):
    _, declared = nodes_by_stand_in("robot", {}, monkeypatch)
    wanted = {"arm": "right", "command_interface": "", "bringup": "false", "use_mock_hardware": "false"}
    assert {name: declared.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("robot", VENDORS)
def test_with_mock_hardware_the_vendor_s_bring_up_needs_no_arguments(robot):
    package, expected = VENDORS[robot]
    vendor = vendor_of(arguments(robot=robot, bringup=True, use_mock_hardware=True))
    assert vendor.package == package and expected.items() <= vendor.arguments.items()
    assert vendor.file.endswith(".launch.py")


@pytest.mark.parametrize("robot", VENDORS)
def test_real_hardware_is_requested_explicitly_whatever_the_vendor_s_default(robot):
    given = {"bringup_arguments": "robot_ip:=192.168.1.2"}
    vendor = vendor_of(arguments(robot=robot, bringup=True, **given))
    assert {"use_fake_hardware": "false", "use_mock_hardware": "false"}.items() & vendor.arguments.items()
    assert vendor.arguments["robot_ip"] == "192.168.1.2"


def test_the_vendor_bringup_activates_the_commanded_controller():
    for interface, active in {"": "joint_trajectory", "forward_position": "forward_position"}.items():
        given = {"command_interface": interface, "bringup": True, "use_mock_hardware": True}
        assert vendor_of(arguments(**given)).arguments["initial_joint_controller"] == f"{active}_controller"
        openarm = vendor_of(arguments(robot="openarm_v2", **given)).arguments
        assert openarm["robot_controller"] == f"{active}_controller"
    for interface in ("servo_twist", "servo_joint_jog"):  # Servo sends to this one
        given = {"command_interface": interface, "bringup": True, "use_mock_hardware": True}
        assert vendor_of(arguments(**given)).arguments["initial_joint_controller"] == "forward_position_controller"


def test_the_robot_s_namespace_is_by_default_that_of_the_nodes():
    mock = {"bringup": True, "use_mock_hardware": True}
    assert vendor_of(arguments(robot="franka_fr3", namespace="a", **mock)).arguments["namespace"] == "a"
    rooted = vendor_of(arguments(robot="openarm_v10", namespace="right", robot_namespace="/", **mock))
    assert "arm_prefix" not in rooted.arguments


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"command_interface": "telepathy"}, "command_interface 'telepathy': expected one that robot ur5e has, found"),
        ({"robot": "franka_fr3", "command_interface": "servo_twist"}, "found joint_trajectory"),
        (
            {"arm": "left"},
            "arm 'left': expected right, or left of one of .openarm_v10, openarm_v2., found robot 'ur5e'",
        ),
        ({"arm": "third"}, "arm 'third'"),
        ({"use_mock_hardware": True}, "use_mock_hardware: requires bringup:=true"),
        ({"bringup_arguments": "a:=b"}, "bringup_arguments: requires bringup:=true"),
        ({"bringup": True}, "bringup: robot ur5e requires bringup_arguments:='robot_ip:=VALUE'"),
        ({"bringup": True, "bringup_arguments": "robot_ip=1"}, "expected name:=value, found 'robot_ip=1'"),
        (
            {"bringup": True, "bringup_arguments": "robot_ip:='1"},
            "expected name:=value ..., found No closing quotation",
        ),
        (
            {"bringup": True, "robot": "openarm"},
            "no section 'bringup' in the file of robot openarm",
        ),
        ({"bringup": True, "use_mock_hardware": True, "namespace": "a"}, "use robot_namespace:=/, not 'a'"),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(given, complaint):
    with pytest.raises(InputError, match=complaint) as refused:
        check_inputs(arguments(**given))
    assert "\n" not in str(refused.value)


def test_a_command_interface_without_its_message_package_is_refused_at_start(monkeypatch):
    monkeypatch.setitem(sys.modules, "control_msgs", None)
    with pytest.raises(InputError, match="'servo_joint_jog': ROS package control_msgs not found: run make setup-robot"):
        check_inputs(arguments(command_interface="servo_joint_jog"))
    check_inputs(arguments(command_interface="servo_twist"))


def test_an_invalid_robot_namespace_is_refused():
    with pytest.raises(InputError, match="robot_namespace 'a b': expected a ROS name"):
        node_list("robot", arguments(robot_namespace="a b"))


def test_up_refuses_a_vendor_s_bring_up_and_names_the_launch_file():
    with pytest.raises(InputError, match="up robot: .*ros2 launch jepa_ros robot.launch.py bringup:=true"):
        up("robot", arguments(bringup=True))
    done = CliRunner().invoke(cli.app, ["up", "robot", "--robot", "ur5e", "--bringup"])
    assert done.exit_code == 2 and "ros2 launch" in done.output and len(done.output.strip().splitlines()) == 1


# -- files that are not finished, models that do not fit ---------------------------------------------------------------


def test_a_drafted_robot_file_starts_nothing_before_its_marks_are_resolved(tmp_path):
    drafted = tmp_path / "mine.yaml"
    drafted.write_text(draft_robot_yaml(published("ur5e"), "mine"))
    with pytest.raises(
        InputError, match=r"robot .*mine.yaml: line \d+: open TODO: name and type.* and 3 more"
    ) as refused:
        check_inputs(arguments(robot=str(drafted)))
    assert "\n" not in str(refused.value) and "jepa_ros robot check" in str(refused.value)
    for kind in ("robot", "sim"):
        done = CliRunner().invoke(cli.app, ["up", kind, "--robot", str(drafted)])
        assert done.exit_code == 2 and "open TODO" in done.output, done.output
        assert len(done.output.strip().splitlines()) == 1 and "Traceback" not in done.output
    drafted.write_text(re.sub("# TODO.*", "", drafted.read_text()))
    check_inputs(arguments(robot=str(drafted)))


def test_an_open_mark_in_the_file_of_the_other_arm_counts(tmp_path):
    (tmp_path / "both.yaml").write_text(resolve_robot("openarm_v10").read_text() + "# TODO measure the table\n")
    (tmp_path / "other.yaml").write_text("{name: other, same_as: both, replace: {right: left}}")
    with pytest.raises(InputError, match=r"both.yaml: line \d+: open TODO: measure the table; nothing moves"):
        require_finished(tmp_path / "other.yaml")
    assert any("both.yaml, line" in problem for problem in find_problems(tmp_path / "other.yaml"))
    require_finished("openarm_v10_left")


def test_a_recording_may_be_made_with_an_unfinished_file(tmp_path):
    drafted = tmp_path / "mine.yaml"
    drafted.write_text(draft_robot_yaml(published("ur5e"), "mine"))
    check_inputs(Arguments(robot=str(drafted), model="openarm_reach"))


def model_of(folder, **changes):
    folder.mkdir()
    (folder / "config.json").write_text(small_models.config(OPENARM.joints, **changes).model_dump_json())
    return str(folder)


POSE = {"name": "pose_delta", "dimension": 7}


@pytest.mark.parametrize(
    ("changes", "robot", "complaint"),
    [
        ({}, "ur5e", "expected a robot with action space planar_velocity of 0.2 m/s, found planar_velocity of 0.1 m/s"),
        (
            {"action": POSE},
            "openarm",
            "expected a robot with action space pose_delta, found planar_velocity on openarm",
        ),
        ({"action": {"name": "planar_velocity", "dimension": 3, "max_speed": 0.2}}, "openarm", "actions of 3 numbers"),
        ({"control_rate": 5.0}, "openarm", "expected a control period of 0.2 s, found 0.1 s: set control_period"),
        ({"cameras": ("wrist/frame",)}, "openarm", "expected the camera topic frame .*, found wrist/frame"),
    ],
)
def test_a_model_that_does_not_fit_the_robot_is_one_line_before_anything_starts(tmp_path, changes, robot, complaint):
    model = model_of(tmp_path / "model", **changes)
    with pytest.raises(InputError, match=f"model tiny: .*{complaint}") as refused:
        check_model_fits("robot", arguments(robot=robot, model=model))
    assert "\n" not in str(refused.value)
    done = CliRunner().invoke(cli.app, ["up", "robot", "--robot", robot, "--model", model])
    assert done.exit_code == 2 and str(refused.value) in done.output and len(done.output.strip().splitlines()) == 1


def test_a_model_of_another_control_period_fits_a_gate_with_that_period(tmp_path):
    model, params = model_of(tmp_path / "model", control_rate=5.0), tmp_path / "p.yaml"
    for key in ("/**", "/**/arm_gate", "/cell/arm_gate"):
        params.write_text(f"{key}: {{ros__parameters: {{control_period: 0.2}}}}")
        check_model_fits("robot", arguments(robot="openarm", model=model, params_file=params, namespace="cell"))
    with pytest.raises(InputError, match="control period"):
        check_model_fits("robot", arguments(robot="openarm", model=model, params_file=params, namespace="other"))


def test_a_robot_without_the_limits_of_a_search_is_refused(tmp_path):
    keys = yaml.safe_load(resolve_robot("openarm").read_text())
    keys["action_space"] = {"type": "pose_delta", "max_translation": 0.01, "max_rotation": 0.05}
    robot = tmp_path / "poses.yaml"
    robot.write_text(yaml.safe_dump(keys))
    with pytest.raises(InputError, match="expected max_acceleration and workspace for planning, found none"):
        check_model_fits("robot", arguments(robot=str(robot), model=model_of(tmp_path / "model", action=POSE)))


@pytest.mark.skipif(not real_launch_is_there(), reason="launch and launch_ros are not installed")
def test_launch_includes_the_vendor_s_file_with_only_its_own_arguments(tmp_path, monkeypatch):
    from launch import LaunchDescription, LaunchService

    share, seen = tmp_path / "share", tmp_path / "seen"
    (share / "ament_index/resource_index/packages").mkdir(parents=True)
    (share / "ament_index/resource_index/packages/ur_robot_driver").touch()
    (share / "ur_robot_driver/launch").mkdir(parents=True)
    (share / "ur_robot_driver/launch/ur_control.launch.py").write_text(
        "from pathlib import Path\nfrom launch import LaunchDescription\nfrom launch.actions import OpaqueFunction\n"
        f"def told(context):\n    Path({str(seen)!r}).write_text(repr(dict(context.launch_configurations)))\n"
        "def generate_launch_description():\n    return LaunchDescription([OpaqueFunction(function=told)])\n"
    )
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    entities = runpy.run_path(str(LAUNCH / "robot.launch.py"))["generate_launch_description"]().entities
    service = LaunchService(argv=[])
    fitting = {"name": "planar_velocity", "dimension": 2, "max_speed": 0.1}
    (model := tmp_path / "model").mkdir()
    (model / "config.json").write_text(small_models.config(load_robot("ur5e").joints, action=fitting).model_dump_json())
    given = {"robot": "ur5e", "bringup": "true", "use_mock_hardware": "true", "params_file": config_path("robot.yaml")}
    given |= {"model": model}
    service.context.launch_configurations.update({name: str(value) for name, value in given.items()})
    service.include_launch_description(LaunchDescription(entities[:-1]))  # all but the nodes
    assert service.run() == 0
    expected = {"ur_type": "ur5e", "use_mock_hardware": "true", "robot_ip": "0.0.0.0"}
    expected["initial_joint_controller"] = "joint_trajectory_controller"
    assert ast.literal_eval(seen.read_text()) == expected
