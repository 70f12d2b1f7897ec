"""Each check of `jepa_ros doctor` on topics, times, joints and controllers, with one thing wrong."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from helpers import turned_camera
from helpers.doctor_cases import (
    COMMAND,
    JOB,
    MODEL,
    NOW,
    ROBOT,
    TRAJECTORY,
    bad,
    good,
    joint_message,
    only,
    stream,
    urdf,
)
from jepa_ros.doctor import control, fit, graph, joints
from jepa_ros.doctor.examine import examine
from jepa_ros.doctor.finding import Level
from jepa_ros.doctor.observations import (
    IMAGES,
    JOINT_STATE,
    STRING,
    End,
    JointMessage,
    Node,
    Seen,
    Stream,
    Topic,
)


def test_all_well():
    assert not bad()
    lines = [f.line() for f in examine(good(), JOB)]
    assert len(lines) > 12 and all(line.startswith("ok ") for line in lines)


def test_a_camera_that_the_robots_file_turns_is_said():
    [said] = fit.check(replace(JOB, robot=turned_camera.robot(turned_camera.about_z(-30.0), ROBOT)))
    assert (
        said.level is Level.OK and "axes are turned by 30.0° against the base's (camera.rotation_to_base)" in said.found
    )
    [said] = fit.check(JOB)
    assert "turned" not in said.found


def test_a_space_that_cannot_be_searched_is_said():
    space = {"type": "pose_delta", "max_translation": 0.05, "max_rotation": 0.2, "max_acceleration": 1.0}
    robot = ROBOT.model_validate(ROBOT.model_dump() | {"action_space": space})
    state = {"kind": "tool_pose", "gripper": tuple("abcdefg"), "mean": (0.0,) * 7, "std": (1.0,) * 7}
    action = {"name": "pose_delta", "dimension": 7}
    model = MODEL.model_validate(MODEL.model_dump() | {"action": action, "proprioception": state})
    [fits, search] = fit.check(replace(JOB, robot=robot, model=model))
    assert fits.level is Level.OK and search.level is Level.WARNING
    assert search.line().startswith(
        f"warning robot {robot.name}: expected workspace of its action_space, to plan, found"
    )


# -- graph -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topics", "words"),
    [({}, "ROS_DOMAIN_ID"), ({"/chatter": Topic([End("/talker", STRING)])}, "only /chatter")],
)
def test_where_nothing_of_a_robot_is(topics, words):
    seen = Seen(topics=topics)
    assert words in only("namespace", seen)


def test_a_namespace_typo_is_told_with_the_nearest():
    seen = good()
    seen.topics = {f"/left_arm{name}": who for name, who in seen.topics.items()}
    assert "Try --namespace left_arm." in only("namespace", seen, replace(JOB, namespace="/left_amr"))


def test_a_robot_in_a_namespace_of_its_own():
    seen = good()
    for name in ("/joint_states", "/robot_description", COMMAND):
        seen.topics[f"/arm{name}"] = seen.topics.pop(name)
    assert not bad(seen, replace(JOB, robot_namespace="/arm"))
    assert any("--robot-namespace /arm" in f.line() for f in bad(seen))


def test_compressed_pictures_only():
    seen = good()
    seen.topics["/image/compressed"] = Topic([End("/eye", IMAGES[1])])
    seen.topics["/image"], seen.cameras[0].stream, seen.cameras[0].picture = Topic(), Stream(), None
    assert "--camera-topic /image/compressed" in only("topic", seen, level=Level.WARNING)


def test_a_publisher_that_says_nothing():
    seen = good()
    seen.joints, seen.joint_messages = Stream(), []
    assert "none from /driver" in only("silent", seen)


@pytest.mark.parametrize(
    ("publisher", "listener", "words"),
    [
        (End("/a", STRING), End("/b", STRING), ""),
        (End("/a", STRING, False), End("/b", STRING, True), "best effort offered"),
        (End("/a", STRING, True), End("/b", STRING, False, True), "volatile offered"),
        (End("/a", STRING, True, True), End("/b", STRING, True, True), ""),
    ],
)
def test_quality_of_service_that_fits(publisher, listener, words):
    found = graph.incompatible(publisher, listener)
    assert words in found and bool(found) == bool(words)


def test_a_bystander_that_hears_nothing_is_a_warning():
    seen = good()
    seen.topics["/joint_states"].publishers = [End("/driver", JOINT_STATE, False)]
    assert "/joint_states to /rsp" in only("qos", seen, level=Level.WARNING)


# -- times -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "words"),
    [(61.0, "61 s old on"), (-60.0, "60 s ahead"), (0.4, "0.4 s old"), (1.6e9, "the same use_sim_time")],
)
def test_clocks_that_differ(age, words):
    seen = good()
    seen.joints = stream(100, age=age)
    line = only("clocks", seen)
    assert words.removesuffix(" on") in line


def test_the_rates_that_matter():
    seen = good()
    seen.joints, seen.cameras[0].stream = stream(12), stream(7, frame=ROBOT.camera.frame_id)
    assert [(f.check, f.level) for f in bad(seen)] == [("rate", Level.WARNING)] * 2
    seen.joints = Stream()
    seen.joints.add(NOW, math.nan, NOW, "")
    assert "0.2 Hz" in bad(seen)[0].line() and bad(seen)[0].level is Level.ERROR


def test_simulated_time():
    seen = good()
    for one in (seen.joints, seen.cameras[0].stream):
        one.stamps = [s - NOW + 50 for s in one.stamps]
        one.clock = [s + 0.01 for s in one.stamps]
    seen.clock_moves, seen.topics["/clock"] = True, Topic([End("/gz", "rosgraph_msgs/msg/Clock")])
    assert "--use-sim-time" in only("clock", seen, level=Level.WARNING)
    assert not bad(seen, replace(JOB, use_sim_time=True))
    seen.clock_moves = False
    assert "a publisher that says nothing" in only("clock", seen, replace(JOB, use_sim_time=True))


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
def test_descriptions_that_will_not_do(described, check, words):
    seen = good()
    seen.description = described
    assert words in only(check, seen)


def test_continuous_joints_need_no_limits_of_position():
    seen = good()
    seen.description = urdf('velocity="3"').replace("revolute", "continuous")
    assert not bad(seen)


@pytest.mark.parametrize(
    ("message", "check", "words"),
    [
        (replace(joint_message(), names=("joint1",) * 8), "joints", "missing"),
        (replace(joint_message(), names=(*ROBOT.joints, ROBOT.joints[0], *ROBOT.gripper)), "joints", "twice"),
        (replace(joint_message(), positions=(0.0,)), "values", "1 for 8 names"),
        (replace(joint_message(), velocities=()), "values", "velocity interface"),
        (joint_message(openarm_right_joint2=math.inf), "values", "NaN or Inf for openarm_right_joint2"),
        (joint_message(openarm_right_joint4=90.0), "units", "degrees"),
        (joint_message(openarm_right_joint4=2.6), "range", "openarm_right_joint4 at 2.600 rad"),
        (joint_message(openarm_right_joint4=200.0), "range", "200.000 rad"),
    ],
)
def test_joint_states_that_will_not_do(message, check, words):
    seen = good()
    seen.joint_messages = [message] * 10
    assert words in only(check, seen)


def test_the_gripper_may_come_in_messages_of_its_own():
    arm, gripper = JointMessage(tuple(ROBOT.joints), (0.5,) * 7, (0.0,) * 7), JointMessage(("x",), (0.0,), (0.0,))
    found = joints.check(Seen(joint_messages=[gripper, arm]), JOB)
    assert [f.check for f in found if f.level] == ["joints"]  # the model takes the arm's gripper from the same message


# -- control -----------------------------------------------------------------------------------------------------------


def controlled(**changes):
    seen = good()
    for name, value in changes.items():
        setattr(seen, name, value)
    return seen


def test_a_controller_that_is_not_active():
    seen = controlled(controllers={ROBOT.controllers[0].name: "inactive"})
    assert "--activate right_joint_trajectory_controller" in only("controller", seen)
    assert not bad(controlled(controllers={ROBOT.controllers[0].name: "active"}))


def test_the_manager_says_which_controllers_there_are():
    seen = controlled(controllers={"arm_controller": "active"})
    seen.topics.pop(COMMAND)
    assert "the controller manager knows arm_controller" in only("controller", seen)


def test_a_recorder_listens_and_follows_nothing():
    seen = good()
    seen.topics[COMMAND].listeners.insert(0, End("/recorder", TRAJECTORY))
    assert not bad(seen)
    seen.topics[COMMAND].listeners = [End("/rosbag2_recorder", TRAJECTORY)]
    assert "found nobody. Load and activate" in only("controller", seen)


def test_the_gate_is_no_rival_but_two_gates_are():
    seen = good()
    seen.topics[COMMAND].publishers = [End("/arm_gate", TRAJECTORY)]
    assert not bad(seen)
    seen.topics[COMMAND].publishers = [End("/arm_gate", TRAJECTORY), End("/b/arm_gate", TRAJECTORY)]
    assert "one arm_gate" in only("rival", seen)


@pytest.mark.parametrize(
    ("kind", "fits"),
    [
        ("joint_trajectory_controller/JointTrajectoryController", True),
        ("forward_command_controller/ForwardCommandController", False),
        ("moveit_servo/JointJog", True),
    ],
)
def test_order_counts_where_commands_carry_no_names(kind, fits):
    controller = ROBOT.controllers[0].model_copy(update={"type": kind})
    seen = good()
    job = replace(JOB, robot=ROBOT.model_copy(update={"controllers": [controller]}))
    listener = End("/controller", controller.message_type)
    seen.topics[f"/{controller.command_topic}"] = Topic([], [listener])
    seen.nodes["/controller"] = Node(joints=ROBOT.joints[::-1])
    found = [f for f in control.check(seen, job) if f.level]
    assert [f.check for f in found] == ([] if fits else ["controller_joints"])


def test_servo_that_is_not_there_and_commands_that_cannot_be_sent():
    servo = ROBOT.controllers[0].model_copy(update={"name": "servo_node", "type": "moveit_servo/JointJog"})
    job = replace(JOB, robot=ROBOT.model_copy(update={"controllers": [servo]}))
    assert "Start MoveIt Servo" in only("controller", good(), job)
    seen = good()
    seen.topics["/servo_node/delta_joint_cmds"] = Topic([], [End("/servo_node", "control_msgs/msg/JointJog")])
    assert bad(seen, job) == []
    seen.lacking = {"servo_node": "ros-jazzy-control-msgs"}
    assert "install ros-jazzy-control-msgs where the nodes run" in only("package", seen, job)
