"""Commands to MoveIt Servo: velocities of the tool or of the joints, and a missing control_msgs."""

import sys
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from jepa_ros.errors import InputError
from jepa_ros.nodes.arm_gate.controllers import (
    POSITION_GAIN,
    ZEROS_AFTER_MOTION,
    JointJogCommand,
    make_command,
)
from jepa_ros.robot.config import load_robot
from jepa_ros.robot.motion.limits import JointLimits

ROBOT = load_robot("ur5e", "servo_joint_jog")
[SERVO] = ROBOT.controllers
NAMES = tuple(ROBOT.joints)
LIMITS = JointLimits(NAMES, np.full(6, -3.0), np.full(6, 3.0), np.full(6, 1.5), np.full(6, 5.0), np.full(6, 100.0))
JACOBIAN = np.arange(36.0).reshape(6, 6) / 36.0
ARM = SimpleNamespace(jacobian=lambda q: JACOBIAN)
STILL = np.zeros(6)


@dataclass
class JointJog:
    """The fields of control_msgs/msg/JointJog."""

    header: Header = field(default_factory=Header)
    joint_names: list = field(default_factory=list)
    displacements: list = field(default_factory=list)
    velocities: list = field(default_factory=list)
    duration: float = 0.0


class Node:
    """Keeps what is published."""

    def __init__(self):
        self.sent, self.topics = [], []

    def create_lifecycle_publisher(self, message, topic, qos):
        self.topics.append((message, topic))
        return SimpleNamespace(topic_name=topic, publish=self.sent.append)

    def get_clock(self):
        return SimpleNamespace(now=lambda: SimpleNamespace(to_msg=lambda: Time(sec=7)))


@pytest.fixture
def control_msgs(monkeypatch):
    """Stands in for the package, which may not be installed."""
    package, messages = ModuleType("control_msgs"), ModuleType("control_msgs.msg")
    package.__spec__, messages.JointJog = ModuleSpec("control_msgs", None), JointJog
    monkeypatch.setitem(sys.modules, "control_msgs", package)
    monkeypatch.setitem(sys.modules, "control_msgs.msg", messages)


def command(node, interface="servo_joint_jog"):
    robot = load_robot("ur5e", interface)
    return make_command(node, robot.controllers[0], robot, ARM, LIMITS, True)


def reference(velocity, position=STILL):
    return np.array([position, velocity, STILL])


def test_joint_velocities_are_sent_by_name_with_stamp_and_frame(control_msgs):
    node, speed = Node(), np.array([0.1, -0.2, 0.3, 0.0, 0.5, -0.6])
    command(node).send_reference(reference(speed), STILL, moving=True)
    [message] = node.sent
    assert node.topics == [(JointJog, "servo_node/delta_joint_cmds")]
    assert message.joint_names == list(NAMES) and np.allclose(message.velocities, speed)
    assert message.header.stamp.sec == 7 and message.header.frame_id == ROBOT.base_frame
    assert message.displacements == [] and message.duration == 0.0


def test_joint_velocities_are_in_the_order_of_the_controller(control_msgs):
    node, turned = Node(), SERVO.model_copy(update={"joints": list(NAMES[::-1])})
    jog = JointJogCommand(node, turned, LIMITS, ROBOT.base_frame)
    jog.send_reference(reference(np.arange(6.0) / 10), STILL, moving=True)
    assert node.sent[0].joint_names == list(NAMES[::-1])
    assert np.allclose(node.sent[0].velocities, np.arange(6.0)[::-1] / 10)


def test_a_lagging_arm_is_corrected_and_all_joints_are_slowed_together(control_msgs):
    node, behind = Node(), np.array([0.0, 0.1, 0.0, 0.0, 0.0, 0.0])
    jog = command(node)
    jog.send_reference(reference(STILL, behind), STILL, moving=True)
    assert np.allclose(node.sent[-1].velocities, POSITION_GAIN * behind)
    jog.send_reference(reference(np.array([3.0, 0.0, -1.0, 0.0, 0.0, 0.0])), STILL, moving=True)
    assert np.allclose(node.sent[-1].velocities, [1.5, 0.0, -0.5, 0.0, 0.0, 0.0])


def test_the_twist_matches_the_joint_velocities(control_msgs):
    jogs, twists = Node(), Node()
    for node, interface in ((jogs, "servo_joint_jog"), (twists, "servo_twist")):
        command(node, interface).send_reference(reference(np.linspace(-2.0, 2.0, 6)), STILL, moving=True)
    twist = twists.sent[0].twist
    found = [getattr(part, axis) for part in (twist.linear, twist.angular) for axis in "xyz"]
    assert np.allclose(found, JACOBIAN @ jogs.sent[0].velocities)


@pytest.mark.parametrize("interface", ["servo_joint_jog", "servo_twist"])
def test_a_motion_is_followed_by_zero_velocities_and_then_silence(control_msgs, interface):
    node = Node()
    servo = command(node, interface)
    for at in (None, reference(STILL)):
        servo.send_reference(at, STILL, moving=False)
    assert node.sent == []
    servo.send_reference(reference(np.ones(6)), STILL, moving=True)
    for _ in range(3 * ZEROS_AFTER_MOTION):
        servo.send_reference(reference(STILL), np.ones(6), moving=False)
    assert len(node.sent) == 1 + ZEROS_AFTER_MOTION
    if interface == "servo_joint_jog":
        assert any(node.sent[0].velocities) and not any(v for m in node.sent[1:] for v in m.velocities)


def test_without_control_msgs_joint_jog_is_refused_in_one_line_but_not_twist(monkeypatch):
    monkeypatch.setitem(sys.modules, "control_msgs", None)
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    with pytest.raises(InputError) as refused:
        command(Node())
    assert str(refused.value) == (
        "command_interface 'servo_joint_jog': ROS package control_msgs not found: run make setup-robot, "
        "or install ros-jazzy-control-msgs and source the distribution"
    )
    assert command(Node(), "servo_twist")
