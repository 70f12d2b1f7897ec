"""Controllers that follow the gate's commands and judge them, and the file of a robot that has them all."""

import functools
import math
import tempfile
from pathlib import Path

import numpy as np
import yaml
from geometry_msgs.msg import TwistStamped
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory as JointTrajectoryMessage

from helpers.gate_plans import JOINTS, ROBOT, START, urdf
from jepa_ros.errors import InputError
from jepa_ros.nodes.common.convert import to_seconds, trajectory_of
from jepa_ros.resources import resolve_robot
from jepa_ros.robot.config import load_robot
from jepa_ros.robot.gate.window_auditor import WindowAuditor
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.sim.controller import TrajectoryController

try:
    from control_msgs.msg import JointJog
except ImportError:
    JointJog = None  # it comes with distributions, not with the wheels

JOINT_JOG = "moveit_servo/JointJog"
CONTROLLERS = {
    "joint_trajectory_controller/JointTrajectoryController": "joint_trajectory_controller",
    "forward_command_controller/ForwardCommandController": "forward_position_controller",
    "moveit_servo/TwistStamped": "servo_node",
    JOINT_JOG: "servo_node",
}


@functools.cache
def robot_file():
    """The robot's YAML for the made-up arm, which may go anywhere, with a controller of every kind."""
    config = yaml.safe_load(resolve_robot("openarm").read_text()) | {"self_collision": None}
    config["action_space"]["workspace"] = [[-5, -5], [5, -5], [5, 5], [-5, 5]]
    config["controllers"] = [
        {"name": f"right_{n}", "type": kind, "joints": [*JOINTS]} for kind, n in CONTROLLERS.items()
    ]
    path = Path(tempfile.mkdtemp()) / "arm.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@functools.cache
def limits():
    return JointLimits.from_robot(load_robot(robot_file()), urdf())


class TrajectoryPeer:
    """joint_trajectory_controller: judges each window, then follows it."""

    message = JointTrajectoryMessage

    def __init__(self):
        self.auditor, self.arm = WindowAuditor(limits()), TrajectoryController(JOINTS)
        self.arm.hold(START)

    def hear(self, message, now):
        try:
            trajectory, stamp = trajectory_of(message), to_seconds(message.header.stamp)
            self.auditor.check_window(trajectory, stamp, now)
            self.arm.accept(trajectory, stamp, now)
        except InputError as error:
            if "in the past" not in str(error):  # that is this process having slept, on a machine that is too busy
                self.auditor.record_unreadable(str(error))

    def update(self, now):
        return self.arm.update(now)

    def put(self, q):
        self.arm.hold(q)


class PositionPeer:
    """forward_command_controller: the last set-point holds for ever; there is no time-out and no check."""

    message = Float64MultiArray

    def __init__(self):
        self.auditor, self.q, self.steps = WindowAuditor(limits()), START, []

    def hear(self, message, now):
        q = np.array(message.data)
        if q.shape != START.shape or not np.isfinite(q).all() or limits().excess(q).max() > 1e-6:
            self.auditor.record_unreadable(f"set-point {q}")
            return
        self.steps.append(float(np.abs(q - self.q).max()))
        self.q = q

    def update(self, now):
        return self.q

    def put(self, q):
        self.q = q


class ServoPeer:
    """MoveIt Servo as documented: without a command, by its stamp, for `incoming_command_timeout` the arm stops. Here
    the tool's velocity becomes the joints' by the pseudo-inverse."""

    message = TwistStamped
    TIMEOUT = 0.1

    def __init__(self):
        self.auditor, self.q, self.velocity = WindowAuditor(limits()), START, None
        self.stamp = self.updated = -math.inf
        self.kinematics = Kinematics(urdf(), JOINTS, ROBOT.tool_frame, ROBOT.base_frame)

    def hear(self, message, now):
        velocity, names = self.read(message)
        if message.header.frame_id != ROBOT.base_frame or not np.isfinite(velocity).all():
            self.auditor.record_unreadable(f"{names} {velocity} in {message.header.frame_id}")
        else:
            self.velocity, self.stamp = velocity, to_seconds(message.header.stamp)

    @staticmethod
    def read(message):
        """(6,) m/s and rad/s, and what it is."""
        v, w = message.twist.linear, message.twist.angular
        return np.array([v.x, v.y, v.z, w.x, w.y, w.z]), "twist"

    def speed(self):
        """(J,) rad/s"""
        return np.linalg.pinv(self.kinematics.jacobian(self.q), rcond=1e-3) @ self.velocity

    def update(self, now):
        elapsed, self.updated = min(now - self.updated, 0.05), now
        if now - self.stamp < self.TIMEOUT:
            speed = self.speed()
            if (np.abs(speed) > limits().velocity * 1.01).any():
                self.auditor.record_unreadable(f"joint speeds {speed}")
            self.q = self.q + elapsed * speed
        return self.q

    def put(self, q):
        self.q = q


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

    def speed(self):
        return self.velocity


# By the type of the controller, which command_interface picks; first those whose messages are there everywhere.
PEERS = {
    "joint_trajectory_controller/JointTrajectoryController": TrajectoryPeer,
    "forward_command_controller/ForwardCommandController": PositionPeer,
    "moveit_servo/TwistStamped": ServoPeer,
}
EVERY = PEERS | {JOINT_JOG: JointJogPeer}
