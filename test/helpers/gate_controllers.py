"""Controllers that follow the gate's commands and judge them, by the messages that they receive."""

import math

import numpy as np
from geometry_msgs.msg import TwistStamped
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory as JointTrajectoryMessage

from helpers import controller_peers
from helpers.controller_peers import Peer
from helpers.controller_peers import limits as limits
from helpers.controller_peers import robot_file as robot_file
from helpers.gate_plans import JOINTS, ROBOT, urdf
from jepa_ros.nodes.common.convert import points_of, to_seconds
from jepa_ros.robot.motion.kinematics import Kinematics

try:
    from control_msgs.msg import JointJog
except ImportError:
    JointJog = None  # it comes with distributions, not with the wheels

JOINT_JOG = "moveit_servo/JointJog"


class TrajectoryPeer(controller_peers.TrajectoryPeer):
    """joint_trajectory_controller: judges each window, then follows it."""

    message = JointTrajectoryMessage

    def hear(self, message, now):
        self.receive(points_of(message), now)


class PositionPeer(controller_peers.PositionPeer):
    """forward_command_controller: the last set-point holds for ever."""

    message = Float64MultiArray

    def hear(self, message, now):
        self.receive(message.data, now)


class ServoPeer(Peer):
    """MoveIt Servo as documented: without a command, by its stamp, for `incoming_command_timeout` the arm stops. Here
    the tool's velocity becomes the joints' by the pseudo-inverse."""

    message = TwistStamped
    TIMEOUT = 0.1

    def __init__(self):
        super().__init__()
        self.velocity, self.stamp = None, -math.inf
        self.kinematics = Kinematics(urdf(), JOINTS, ROBOT.tool_frame, ROBOT.base_frame)

    def hear(self, message, now):
        self.receive(message, now)

    def judge(self, message, now):
        velocity, names = self.read(message)
        if message.header.frame_id != ROBOT.base_frame or not np.isfinite(velocity).all():
            self.auditor.record_unreadable(f"{names} {velocity} in {message.header.frame_id}")
        elif self.active:
            self.velocity, self.stamp = velocity, to_seconds(message.header.stamp)

    @staticmethod
    def read(message):
        """(6,) m/s and rad/s, and what it is."""
        v, w = message.twist.linear, message.twist.angular
        return np.array([v.x, v.y, v.z, w.x, w.y, w.z]), "twist"

    def joint_speed(self):
        """(J,) rad/s"""
        return np.linalg.pinv(self.kinematics.jacobian(self.q), rcond=1e-3) @ self.velocity

    def cycle(self, now):
        if now - self.stamp >= self.TIMEOUT:
            return self.q
        speed = self.joint_speed()
        if (np.abs(speed) > limits().velocity * 1.01).any():
            self.auditor.record_unreadable(f"joint speeds {speed}")
        return self.q + self.period * speed

    def changed(self, active):
        self.stamp = -math.inf


class JointJogPeer(ServoPeer):
    """Its other command, by the rules of moveit_servo's jointDeltaFromJointJog and processJointJogCommand."""

    message = JointJog

    @staticmethod
    def read(message):
        """(J,) rad/s; NaN where Servo would not take the message. What it is."""
        names, velocities = list(message.joint_names), np.array(message.velocities)
        fits = sorted(names) == sorted(JOINTS) and len(velocities) == len(names) and not message.displacements
        speed = velocities[[names.index(j) for j in JOINTS]] if fits else np.full(len(JOINTS), np.nan)
        return speed, f"velocities of {names}"

    def joint_speed(self):
        return self.velocity


# By the type of the controller, which command_interface picks; first those whose messages are there everywhere.
PEERS = {
    "joint_trajectory_controller/JointTrajectoryController": TrajectoryPeer,
    "forward_command_controller/ForwardCommandController": PositionPeer,
    "moveit_servo/TwistStamped": ServoPeer,
}
EVERY = PEERS | {JOINT_JOG: JointJogPeer}
