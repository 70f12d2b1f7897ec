"""launch/robot.launch.py: arm, controllers and vendor bring-up by its arguments."""

import ast
import runpy
import sys

import pytest
from typer.testing import CliRunner

from helpers.launch_files import LAUNCH, nodes_by_stand_in, real_launch_is_there
from jepa_ros import cli
from jepa_ros.bringup.nodes import RobotArguments, check_inputs, node_list, vendor_of
from jepa_ros.bringup.up import up
from jepa_ros.errors import InputError
from jepa_ros.resources import config_path

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
    with pytest.raises(InputError, match="'servo_joint_jog': ROS package control_msgs not found: install"):
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
    given = {"robot": "ur5e", "bringup": "true", "use_mock_hardware": "true", "params_file": config_path("robot.yaml")}
    service.context.launch_configurations.update({name: str(value) for name, value in given.items()})
    service.include_launch_description(LaunchDescription(entities[:-1]))  # all but the nodes
    assert service.run() == 0
    expected = {"ur_type": "ur5e", "use_mock_hardware": "true", "robot_ip": "0.0.0.0"}
    expected["initial_joint_controller"] = "joint_trajectory_controller"
    assert ast.literal_eval(seen.read_text()) == expected
