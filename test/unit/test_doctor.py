"""Each check of `jepa_ros doctor` on topics, times, joints and controllers, with one thing wrong."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from helpers import turned_camera
from helpers.doctor_cases import (
    COMMAND,
    CONTROLLER,
    MODEL,
    NOW,
    ROBOT,
    SETUP,
    TRAJECTORY,
    bad,
    good,
    joint_message,
    only,
    stream,
    urdf,
)
from jepa_ros.doctor import finding
from jepa_ros.doctor.arm import check_joints
from jepa_ros.doctor.controllers import check_controllers
from jepa_ros.doctor.examine import examine
from jepa_ros.doctor.finding import FindingCode, Level
from jepa_ros.doctor.model import check_fit
from jepa_ros.doctor.observations import (
    IMAGES,
    JOINT_STATE,
    STRING,
    Endpoint,
    JointMessage,
    MessageTimes,
    NodeParameters,
    Observations,
    Topic,
)
from jepa_ros.doctor.run import _print_findings
from jepa_ros.doctor.topics import qos_mismatch


def test_a_healthy_graph_passes_every_check():
    assert not bad()
    lines = [f.line() for f in examine(good(), SETUP)]
    assert len(lines) > 12 and all(line.startswith("ok ") for line in lines)


def test_every_finding_code_is_used_and_starts_with_its_check():
    text = "".join(path.read_text() for path in Path(finding.__file__).parent.glob("*.py"))
    assert not [code.name for code in FindingCode if f"Code.{code.name}" not in text]
    assert all(code.value.count(".") == 1 for code in FindingCode)


def test_the_camera_rotation_of_the_robot_file_is_reported():
    [fits] = check_fit(replace(SETUP, robot=turned_camera.robot(turned_camera.about_z(-30.0), ROBOT)))
    assert (
        fits.level is Level.OK and "axes are turned by 30.0° against the base's (camera.rotation_to_base)" in fits.found
    )
    [fits] = check_fit(SETUP)
    assert "turned" not in fits.found


def test_a_robot_without_a_workspace_to_plan_in_is_a_warning():
    space = {"type": "pose_delta", "max_translation": 0.05, "max_rotation": 0.2, "max_acceleration": 1.0}
    robot = ROBOT.model_validate(ROBOT.model_dump() | {"action_space": space})
    state = {"kind": "tool_pose", "gripper": tuple("abcdefg"), "mean": (0.0,) * 7, "std": (1.0,) * 7}
    action = {"name": "pose_delta", "dimension": 7}
    model = MODEL.model_validate(MODEL.model_dump() | {"action": action, "proprioception": state})
    [fits, search] = check_fit(replace(SETUP, robot=robot, model=model))
    assert fits.level is Level.OK and search.level is Level.WARNING
    assert search.line().startswith(
        f"warning robot {robot.name}: expected workspace of its action_space, to plan, found"
    )


# -- graph -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topics", "words"),
    [({}, "ROS_DOMAIN_ID"), ({"/chatter": Topic([Endpoint("/talker", STRING)])}, "only /chatter")],
)
def test_a_graph_without_topics_of_the_robot_is_reported(topics, words):
    observed = Observations(topics=topics)
    assert words in only("namespace", observed)


def test_a_misspelt_namespace_is_reported_with_the_nearest_one():
    observed = good()
    observed.topics = {f"/left_arm{name}": who for name, who in observed.topics.items()}
    assert "Try --namespace left_arm." in only("namespace", observed, replace(SETUP, namespace="/left_amr"))


def test_a_robot_in_its_own_namespace_needs_the_robot_namespace_option():
    observed = good()
    for name in ("/joint_states", "/robot_description", COMMAND):
        observed.topics[f"/arm{name}"] = observed.topics.pop(name)
    assert not bad(observed, replace(SETUP, robot_namespace="/arm"))
    assert any("--robot-namespace /arm" in f.line() for f in bad(observed))


def test_a_camera_with_compressed_images_only_is_a_warning():
    observed = good()
    observed.topics["/image/compressed"] = Topic([Endpoint("/eye", IMAGES[1])])
    observed.topics["/image"], observed.cameras[0].times, observed.cameras[0].image = Topic(), MessageTimes(), None
    assert "--camera-topic /image/compressed" in only("topic", observed, level=Level.WARNING)


def test_a_silent_publisher_is_reported():
    observed = good()
    observed.joints, observed.joint_messages = MessageTimes(), []
    assert "none from /driver" in only("silent", observed)


@pytest.mark.parametrize(
    ("publisher", "listener", "words"),
    [
        (Endpoint("/a", STRING), Endpoint("/b", STRING), ""),
        (Endpoint("/a", STRING, False), Endpoint("/b", STRING, True), "best effort offered"),
        (Endpoint("/a", STRING, True), Endpoint("/b", STRING, False, True), "volatile offered"),
        (Endpoint("/a", STRING, True, True), Endpoint("/b", STRING, True, True), ""),
    ],
)
def test_incompatible_qos_is_detected(publisher, listener, words):
    found = qos_mismatch(publisher, listener)
    assert words in found and bool(found) == bool(words)


def test_incompatible_qos_to_another_node_is_only_a_warning():
    observed = good()
    observed.topics["/joint_states"].publishers = [Endpoint("/driver", JOINT_STATE, False)]
    assert "/joint_states to /rsp" in only("qos", observed, level=Level.WARNING)


# -- times -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "words"),
    [(61.0, "61 s old on"), (-60.0, "60 s ahead"), (0.4, "0.4 s old"), (1.6e9, "the same use_sim_time")],
)
def test_stamps_of_another_clock_are_reported(age, words):
    observed = good()
    observed.joints = stream(100, age=age)
    line = only("clocks", observed)
    assert words.removesuffix(" on") in line


def test_low_message_rates_are_reported():
    observed = good()
    observed.joints, observed.cameras[0].times = stream(12), stream(7, frame=ROBOT.camera.frame_id)
    assert [(f.check, f.level) for f in bad(observed)] == [("rate", Level.WARNING)] * 2
    observed.joints = MessageTimes()
    observed.joints.add(NOW, math.nan, NOW, "")
    assert "0.2 Hz" in bad(observed)[0].line() and bad(observed)[0].level is Level.ERROR


def test_simulated_time_needs_use_sim_time_and_a_clock():
    observed = good()
    for one in (observed.joints, observed.cameras[0].times):
        one.stamps = [s - NOW + 50 for s in one.stamps]
        one.clock = [s + 0.01 for s in one.stamps]
    observed.clock_moves, observed.topics["/clock"] = True, Topic([Endpoint("/gz", "rosgraph_msgs/msg/Clock")])
    assert "--use-sim-time" in only("clock", observed, level=Level.WARNING)
    assert not bad(observed, replace(SETUP, use_sim_time=True))
    observed.clock_moves = False
    assert "a publisher that sends nothing" in only("clock", observed, replace(SETUP, use_sim_time=True))


# -- joints ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("described", "check", "words"),
    [
        ("<robot", "description", "invalid XML"),
        (urdf('velocity="3"'), "limits", "none for openarm_right_joint1"),
        (urdf().replace("<limit", "<none"), "limits", "expected a <limit>"),
        (urdf('lower="1" upper="-1" velocity="3"'), "description", "lower ≤ upper"),
        (urdf('lower="-0.005" upper="0.005" velocity="3"'), "limits", "lower < upper"),
        (urdf(links=("wrld", ROBOT.tool_frame)), "description", "but wrld"),
        (urdf().replace("openarm_right", "joint_of"), "description", "joint_of_joint1"),
    ],
)
def test_invalid_robot_descriptions_are_reported(described, check, words):
    observed = good()
    observed.description = described
    assert words in only(check, observed)


def test_continuous_joints_need_no_position_limits():
    observed = good()
    observed.description = urdf('velocity="3"').replace("revolute", "continuous")
    assert not bad(observed)


def test_a_continuous_joint_may_have_made_many_turns():
    observed = good()
    first = f'name="{ROBOT.joints[0]}" type="revolute"'
    observed.description = urdf().replace(first, first.replace("revolute", "continuous"))
    assert observed.description.count("continuous") == 1
    observed.joint_messages = [joint_message(**{ROBOT.joints[0]: 25.0})]
    assert not bad(observed)


@pytest.mark.parametrize(
    ("message", "check", "words"),
    [
        (replace(joint_message(), names=("joint1",) * 8), "joints", "missing"),
        (replace(joint_message(), names=(*ROBOT.joints, ROBOT.joints[0], *ROBOT.gripper)), "joints", "twice"),
        (replace(joint_message(), positions=(0.0,)), "values", "1 for 8 names"),
        (joint_message(openarm_right_joint2=math.inf), "values", "NaN or Inf for openarm_right_joint2"),
        (joint_message(openarm_right_joint4=90.0), "units", "degrees"),
        (joint_message(openarm_right_joint4=2.6), "range", "openarm_right_joint4 at 2.600 rad"),
        (joint_message(openarm_right_joint4=200.0), "range", "200.000 rad"),
    ],
)
def test_invalid_joint_states_are_reported(message, check, words):
    observed = good()
    observed.joint_messages = [message] * 10
    assert words in only(check, observed)


@pytest.mark.parametrize(
    ("velocities", "words"),
    [
        ((), "for openarm_right_joint1"),
        ((0.0,) * 3, "for openarm_right_joint1"),
        ((0.0, math.nan) + (0.0,) * 6, "or NaN, for openarm_right_joint2. Not measured"),
    ],
)
def test_velocities_that_are_not_measured_are_only_a_warning(velocities, words):
    observed = good()
    observed.joint_messages = [replace(joint_message(), velocities=velocities)] * 10
    line = only("velocities", observed, level=Level.WARNING)
    assert words in line and "speed is taken from differences" in line


def test_publishers_of_joint_states_that_contradict_each_other_are_both_named():
    observed = good()
    observed.topics["/joint_states"].publishers.append(Endpoint("/other_driver", JOINT_STATE))
    assert not bad(observed)  # they agree, as do drivers of an arm and of its gripper
    there = joint_message(openarm_right_joint2=0.5)
    observed.joint_messages = [joint_message(), there] * 100
    line = only("joint_sources", observed)
    assert "/driver, /other_driver" in line and "openarm_right_joint2 at 0.000 and 0.500 rad" in line
    observed.topics["/joint_states"].publishers.pop()
    assert not bad(observed)  # one publisher: an arm that shakes


def test_an_arm_that_moves_is_not_taken_for_two():
    observed = good()
    observed.topics["/joint_states"].publishers.append(Endpoint("/gripper_driver", JOINT_STATE))
    observed.joint_messages = [joint_message(openarm_right_joint2=0.03 * k) for k in [*range(20), *range(20, 0, -1)]]
    assert not bad(observed)


def test_a_gripper_in_separate_joint_states_is_reported_as_missing():
    arm, gripper = JointMessage(tuple(ROBOT.joints), (0.5,) * 7, (0.0,) * 7), JointMessage(("x",), (0.0,), (0.0,))
    found = check_joints(Observations(joint_messages=[gripper, arm]), SETUP)
    assert [f.check for f in found if f.level] == ["joints"]  # the model takes the arm's gripper from the same message


# -- control -----------------------------------------------------------------------------------------------------------


def controlled(**changes):
    observed = good()
    for name, value in changes.items():
        setattr(observed, name, value)
    return observed


def test_an_inactive_controller_is_reported():
    observed = controlled(controllers={ROBOT.controllers[0].name: "inactive"})
    assert "--activate right_joint_trajectory_controller" in only("controller", observed)
    other = only("controller", controlled(controllers={CONTROLLER: "inactive"}, controller_manager="/arm/manager"))
    assert f"ros2 control switch_controllers -c /arm/manager --activate {CONTROLLER}" in other
    raw = only("controller", controlled(controllers={CONTROLLER: "unconfigured"}))
    assert (
        f"set_controller_state {CONTROLLER} inactive; ros2 control switch_controllers --activate {CONTROLLER}." in raw
    )
    assert not bad(controlled(controllers={CONTROLLER: "active"}))


def test_a_controller_that_its_manager_does_not_know_is_a_warning():
    observed = controlled(controllers={"arm_controller": "active"})
    assert "only arm_controller" in only("controller", observed, level=Level.WARNING)


def test_the_controllers_known_to_the_controller_manager_are_listed():
    observed = controlled(controllers={"arm_controller": "active"})
    observed.topics.pop(COMMAND)
    assert "the controller manager knows arm_controller" in only("controller", observed)


def test_a_recorder_is_not_taken_for_a_controller():
    observed = good()
    observed.topics[COMMAND].subscribers.insert(0, Endpoint("/recorder", TRAJECTORY))
    assert not bad(observed)
    observed.topics[COMMAND].subscribers = [Endpoint("/rosbag2_recorder", TRAJECTORY)]
    assert "found none. Load and activate" in only("controller", observed)


def test_two_gates_are_reported_as_rival_publishers():
    observed = good()
    observed.topics[COMMAND].publishers = [Endpoint("/arm_gate", TRAJECTORY)]
    assert not bad(observed)
    observed.topics[COMMAND].publishers = [Endpoint("/arm_gate", TRAJECTORY), Endpoint("/b/arm_gate", TRAJECTORY)]
    assert "one arm_gate" in only("rival", observed)


@pytest.mark.parametrize(
    ("kind", "fits"),
    [
        ("joint_trajectory_controller/JointTrajectoryController", True),
        ("forward_command_controller/ForwardCommandController", False),
        ("moveit_servo/JointJog", True),
    ],
)
def test_joint_order_is_checked_where_commands_carry_no_names(kind, fits):
    controller = ROBOT.controllers[0].model_copy(update={"type": kind})
    observed = good()
    setup = replace(SETUP, robot=ROBOT.model_copy(update={"controllers": [controller]}))
    listener = Endpoint("/controller", controller.message_type)
    observed.topics[f"/{controller.command_topic}"] = Topic([], [listener])
    observed.nodes["/controller"] = NodeParameters(joints=ROBOT.joints[::-1], interface_name="position")
    found = [f for f in check_controllers(observed, setup) if f.level]
    assert [f.check for f in found] == ([] if fits else ["controller_joints"])


def test_a_missing_moveit_servo_or_message_package_is_reported():
    servo = ROBOT.controllers[0].model_copy(update={"name": "servo_node", "type": "moveit_servo/JointJog"})
    setup = replace(SETUP, robot=ROBOT.model_copy(update={"controllers": [servo]}))
    assert "Start MoveIt Servo" in only("controller", good(), setup)
    observed = good()
    observed.topics["/servo_node/delta_joint_cmds"] = Topic([], [Endpoint("/servo_node", "control_msgs/msg/JointJog")])
    assert bad(observed, setup) == []
    observed.missing_packages = {"servo_node": "ros-jazzy-control-msgs"}
    assert "make setup-robot, or install ros-jazzy-control-msgs there" in only("package", observed, setup)


def test_findings_are_printed_in_80_columns_the_worst_last(capsys):
    observed = good()
    observed.topics[COMMAND].publishers = [Endpoint("/teleop", TRAJECTORY)]
    observed.controllers, observed.missing_state_packages = None, ("controller_manager_msgs",)
    _print_findings(examine(observed, SETUP))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line[:7].strip() for line in lines if line[:7].strip()][-2:] == ["warning", "error"]
    assert all(line.startswith((" " * 8, "ok ", "warning ", "error ")) for line in lines)
