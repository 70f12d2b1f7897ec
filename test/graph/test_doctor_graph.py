"""`jepa_ros doctor` beside a robot with one problem after the other: it reports that problem and no other."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from itertools import count

import pytest
from std_msgs.msg import Int64, String

from helpers.nodes import HELPERS, ROOT, environment
from jepa_ros.doctor.examine import examine
from jepa_ros.doctor.finding import Level
from jepa_ros.doctor.observations import RobotSetup
from jepa_ros.errors import InputError
from jepa_ros.nodes.common.qos import LATCHED
from jepa_ros.resources import resolve_model
from jepa_ros.robot.config import load_robot

ROBOT = load_robot("openarm")
COMMAND = f"/{ROBOT.controllers[0].command_topic}"
SECONDS, DISCOVERY = 0.6, 0.8
ALL_WELL = {}
with_states = pytest.mark.skipif(
    importlib.util.find_spec("control_msgs") is None or importlib.util.find_spec("controller_manager_msgs") is None,
    reason="control_msgs and controller_manager_msgs are not installed",
)

WRONG = {
    # what is wrong: (the fake arm, what the doctor is asked, the check that must name it, words of it)
    "namespace": (ALL_WELL, {"namespace": "/arm"}, "namespace", "Leave out --namespace"),
    "camera topic": ({"camera_topic": "imag"}, ALL_WELL, "topic", "Try --camera-topic /imag"),
    "no joint states": ({"joint_topic": ""}, ALL_WELL, "topic", "/joint_states: expected a publisher"),
    "joint states in another namespace": (
        {"joint_topic": "arm/joint_states"},
        ALL_WELL,
        "topic",
        "but /arm/joint_states",
    ),
    "joint states of another type": ({"joint_type": "String"}, ALL_WELL, "type", "std_msgs/msg/String from /fake_arm"),
    "no description": ({"description": "none"}, ALL_WELL, "topic", "Start robot_state_publisher"),
    "volatile description": ({"description": "volatile"}, ALL_WELL, "qos", "volatile offered"),
    "description of another arm": (
        {"description": "other"},
        ALL_WELL,
        "description",
        "Publish the description of openarm",
    ),
    "description without limits": ({"description": "no_limits"}, ALL_WELL, "limits", "expected a <limit>"),
    "no velocity limits": ({"description": "unlimited"}, ALL_WELL, "limits", "none for openarm_right_joint1"),
    "slow joint states": ({"joint_rate": 4.0}, ALL_WELL, "rate", "rate of /joint_states"),
    "joint states without stamps": ({"joint_stamp": "zero"}, ALL_WELL, "stamps", "header.stamp"),
    "repeated stamps": ({"joint_stamp": "repeated"}, ALL_WELL, "stamps", "later from message to message"),
    "joint states with another clock": ({"joint_age": 60.0}, ALL_WELL, "clocks", "chrony"),
    "camera with another clock": ({"camera_age": -2.0}, ALL_WELL, "clocks", "2 s ahead"),
    "no clock": ({"use_sim_time": True}, ALL_WELL, "clock", "/fake_arm"),
    "simulated stamps": ({"clock": True}, ALL_WELL, "clock", "--use-sim-time"),
    "renamed joints": ({"joint_names": "right_joint"}, ALL_WELL, "joints", "there are right_joint1"),
    "no gripper": ({"gripper": False}, ALL_WELL, "joints", "openarm_right_finger_joint1 missing"),
    "degrees": ({"unit": 57.29578}, ALL_WELL, "units", "degrees"),
    "joint outside its limits": ({"first_joint": 3.6}, ALL_WELL, "range", "openarm_right_joint1 at 3.600 rad"),
    "another zero position": ({"first_joint": 0.5}, ALL_WELL, "tool_seen", "from where the joints put it"),
    "joint at its limit": ({"elbow": 0.005}, ALL_WELL, "range", "expected 0.01 rad of distance"),
    "joint states with nan": ({"first_joint": float("nan")}, ALL_WELL, "values", "NaN or Inf for openarm_right_joint1"),
    "no velocities": ({"velocities": False}, ALL_WELL, "velocities", "velocity interface"),
    "no controller": ({"listeners": 0}, ALL_WELL, "controller", "Load and activate right_joint_trajectory_controller"),
    "controller with another name": (
        {"listener_topic": "arm_controller/joint_trajectory"},
        ALL_WELL,
        "controller",
        "none, but /arm_controller/joint_trajectory",
    ),
    "two controllers": ({"listeners": 2}, ALL_WELL, "listeners", "found 2: "),
    "controller of another type": ({"listener_type": "Array"}, ALL_WELL, "type", "std_msgs/msg/Float64MultiArray"),
    "controller with incompatible qos": (
        {"listener_durability": "transient"},
        ALL_WELL,
        "qos",
        "It would receive no command",
    ),
    "controller with other joints": ({"controller_joints": "joint1"}, ALL_WELL, "controller_joints", "found joint1"),
    "rival publisher": ({"rival": True}, ALL_WELL, "rival", "found /other"),
    "no transforms": ({"tf": "none"}, ALL_WELL, "tf", "no transforms"),
    "no tool frame": ({"tf": "no_tool"}, ALL_WELL, "tf", f"{ROBOT.tool_frame} missing"),
    "no camera frame": ({"tf": "no_camera"}, ALL_WELL, "camera_frame", "static_transform_publisher"),
    "volatile static transforms": ({"tf": "volatile"}, ALL_WELL, "qos", "/tf_static"),
    "moved camera": ({"tf": "moved"}, ALL_WELL, "camera_pose", "8.7 cm"),
    "another camera frame": ({"camera_frame": "wrist"}, ALL_WELL, "camera_frame", "found wrist"),
    "slow camera": ({"camera_rate": 3.0}, ALL_WELL, "rate", "rate of /image"),
    "unsupported image encoding": ({"encoding": "32FC1"}, ALL_WELL, "encoding", "32FC1"),
    "dark image": ({"image": "dark"}, ALL_WELL, "dark", "lens cap"),
    "frozen camera": ({"image": "frozen"}, ALL_WELL, "frozen", "the same pixels"),
    "upside down": ({"image": "turned"}, ALL_WELL, "upside_down", "turned by 180°"),
    "unknown scene": ({"image": "strange"}, ALL_WELL, "latent", "from the training data"),
    "two cameras": ({"second_camera": True}, ALL_WELL, "cameras", "/other"),
    "another focal length": ({"focal": 1.5}, ALL_WELL, "intrinsics", "f 386 px"),
    "no camera_info": ({"info": False}, ALL_WELL, "intrinsics", "no camera_info"),
    "views": (ALL_WELL, {"camera_topics": ("image", "image")}, "views", "expected 1 image topics"),
}


@pytest.fixture(scope="module")
def checkpoint():
    import torch

    from jepa_ros.world_model.checkpoint import load_checkpoint

    torch.set_num_threads(1)
    return load_checkpoint("openarm_reach")


@pytest.fixture(scope="module")
def become(start, client):
    """become(**fields of Arm): the fake arm is this from now on."""
    process = start(HELPERS / "fake_arm.py")
    process.says("ready", 60)
    order, said = count(1), client.collect(Int64, "/fake/is", LATCHED)
    wanted = client.node.create_publisher(String, "/fake/wanted", LATCHED)
    client.wait_for(wanted.get_subscription_count, "the fake arm")

    def ask(**changes):
        number = next(order)
        wanted.publish(String(data=json.dumps({**changes, "order": number})))
        client.wait_for(lambda: said and said[-1].data == number, "the fake arm to change")

    return ask


@pytest.fixture(scope="module")
def doctor(client, checkpoint):
    """doctor(**fields of RobotSetup) -> all findings."""
    import rclpy

    from jepa_ros.doctor.graph_listener import observe_graph
    from jepa_ros.graph_clients.session import PASSIVE
    from jepa_ros.nodes.common.executor import make_executor

    node, executor = rclpy.create_node("doctor", **PASSIVE), make_executor()
    executor.add_node(node)
    setup = RobotSetup(ROBOT, checkpoint.config)

    def look(discovery=DISCOVERY, **changes):
        asked = replace(setup, **changes)
        return examine(observe_graph(node, executor, asked, SECONDS, discovery=discovery), asked, checkpoint)

    yield look
    executor.remove_node(node)
    node.destroy_node()
    executor.shutdown(timeout_sec=1.0)


def bad(findings):
    return [f for f in findings if f.level]


@pytest.mark.smoke
def test_a_healthy_robot_has_no_findings(become, doctor):
    become(joint_order=-1)
    findings = doctor()
    assert not bad(findings), [f.line() for f in findings]
    assert any("in another order" in f.found for f in findings)
    assert {"upside_down", "rate", "stamps", "limits", "controller", "tf", "camera_pose", "intrinsics", "latent"} - {
        f.check for f in findings
    } == {"upside_down"}


@pytest.mark.parametrize("wrong", WRONG)
def test_each_fault_is_the_only_finding(become, doctor, wrong):
    arm, asked, check, words = WRONG[wrong]
    become(**arm)
    findings = bad(doctor(**asked))
    lines = [f.line() for f in findings]
    assert {f.check for f in findings} == {check}, lines
    assert len(findings) == 1 and words in lines[0], lines
    assert "\n" not in lines[0]


NAME = ROBOT.controllers[0].name
ALL_RIGHT = {
    "trajectory": {},
    "forward": {"forward": True},
    "late controller": {"controller": "late"},
    "late forward controller": {"forward": True, "controller": "late"},
    "late manager": {"manager": "late"},
}
OF_CONTROLLERS = {
    # what is wrong: (the controllers, the check that must name it, its level, words of it)
    "inactive": ({"state": "inactive"}, "controller", Level.ERROR, f"--activate {NAME}"),
    "mute controller": ({"controller": "mute"}, "answer", Level.WARNING, f"ros2 param get /{NAME}"),
    "mute forward controller": (
        {"forward": True, "controller": "mute"},
        "answer",
        Level.ERROR,
        "joints, interface_name",
    ),
    "forward controller without services": (
        {"forward": True, "controller": "never"},
        "answer",
        Level.ERROR,
        "Look yourself before anything moves",
    ),
    "no manager": ({"manager": "never"}, "answer", Level.WARNING, "give --robot-namespace"),
    "velocities": ({"forward": True, "interface_name": "velocity"}, "command_meaning", Level.ERROR, "found 'velocity'"),
    "reversed": ({"forward": True, "reversed": True}, "controller_joints", Level.ERROR, "in this order"),
    "late and reversed": (
        {"forward": True, "reversed": True, "controller": "late"},
        "controller_joints",
        Level.ERROR,
        "in this order",
    ),
    "no interpolation": ({"interpolation_method": "none"}, "interpolation", Level.ERROR, "jump"),
    "slowed": ({"speed_scaling": 0.25}, "speed_scaling", Level.WARNING, "found 0.25"),
    "paused": ({"speed_scaling": 0.0}, "speed_scaling", Level.WARNING, "which is a pause"),
}


def with_controller(start, become, doctor, **told):
    """The findings beside a fake controller, which is started for this look."""
    become(listeners=0)
    changes = {}
    if told.get("forward"):
        forward = "forward_command_controller/ForwardCommandController"
        controller = ROBOT.controllers[0].model_copy(update={"type": forward})
        changes["robot"] = ROBOT.model_copy(update={"controllers": [controller]})
    process = start(HELPERS / "fake_controllers.py", told)
    process.says("ready", 60)
    try:
        return doctor(discovery=5.0, **changes)  # a process that has just started: lost announcements come after 3 s
    finally:
        process.end()


@with_states
@pytest.mark.parametrize("right", ALL_RIGHT)
def test_controllers_that_answer_late_are_waited_for(start, become, doctor, right):
    findings = with_controller(start, become, doctor, **ALL_RIGHT[right])
    assert not bad(findings), [f.line() for f in findings]
    lines = [f.line() for f in findings]
    assert any(f"/{NAME} subscribes, active" in line for line in lines), lines
    assert any("arm_gate alone does" in line for line in lines), lines


@with_states
@pytest.mark.parametrize("wrong", OF_CONTROLLERS)
def test_each_fault_of_a_controller_is_the_only_finding(start, become, doctor, wrong):
    told, check, level, words = OF_CONTROLLERS[wrong]
    findings = bad(with_controller(start, become, doctor, **told))
    lines = [f.line() for f in findings]
    assert [(f.check, f.level) for f in findings] == [(check, level)], lines
    assert words in lines[0], lines


@with_states
def test_a_controller_manager_that_never_answers_is_an_error(start, become, doctor):
    findings = bad(with_controller(start, become, doctor, manager="mute"))
    assert [f.level for f in findings if "list_controllers" in f.line()] == [Level.ERROR]
    assert {f.check for f in findings} == {"answer"}, [f.line() for f in findings]


@with_states
def test_without_the_packages_to_ask_with_states_are_said_to_be_unknown(start, become, doctor, monkeypatch):
    from jepa_ros.doctor import graph_listener

    monkeypatch.setattr(graph_listener, "_import_interface", lambda name: None)
    findings = bad(with_controller(start, become, doctor, state="inactive"))
    assert [(f.code, f.level) for f in findings] == [("answer.package_missing", Level.WARNING)] * 2
    assert all("make setup-robot" in f.line() for f in findings)


def test_the_simulated_cell_has_no_findings(start, become, doctor):
    become(joint_topic="", camera_topic="", description="none", tf="none", listeners=0)
    simulator = start("jepa_ros.nodes.simulator", {}, {"__ns": "/cell"})
    simulator.says("active", 60)
    findings = doctor(namespace="/cell")
    # Images arrive later where the cores are busy.
    assert not [f for f in bad(findings) if f.check != "rate"], [f.line() for f in findings]


def test_an_invalid_ros_name_is_refused():
    from jepa_ros.doctor.run import _make_setup

    for names in ({"topics": ["im age"]}, {"namespace": "a-b"}, {"robot_namespace": "1"}):
        given = {"topics": [], "namespace": "", "robot_namespace": ""} | names
        with pytest.raises(InputError, match="not a valid ROS name") as refused:
            _make_setup("openarm", resolve_model("openarm_reach"), command_interface="", use_sim_time=False, **given)
        assert "\n" not in str(refused.value)


def test_doctor_publishes_no_commands(become, client, doctor):
    become()
    doctor()
    assert not client.node.get_publishers_info_by_topic(COMMAND)
    names = {name for name, _ in client.node.get_publisher_names_and_types_by_node("doctor", "/")}
    assert names <= {"/parameter_events"}


@pytest.mark.parametrize(
    ("arm", "options", "code", "words"),
    [
        (ALL_WELL, [], 0, "no problems found"),
        ({"rival": True}, [], 1, "error   " + COMMAND),
        (ALL_WELL, ["--robot", "nobody"], 2, "robot 'nobody'"),
    ],
)
def test_doctor_reports_by_exit_code_and_files(become, tmp_path, arm, options, code, words):
    become(**arm)
    command = [sys.executable, "-m", "jepa_ros.cli", "doctor", "--seconds", "1", "--out", str(tmp_path), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=environment())
    assert done.returncode == code, done.stdout + done.stderr
    assert words in done.stdout + done.stderr and "Traceback" not in done.stderr
    if code < 2:
        summary = json.loads((tmp_path / "summary.json").read_text())
        assert summary["errors"] == code
        assert (tmp_path / "overlay.jpg").stat().st_size > 1000
        assert "data:image/jpeg" in (tmp_path / "report.html").read_text()
    else:
        assert len(done.stderr.splitlines()) == 1
