"""A robot of publishers, each of which can be wrong: the simulated cell's description, image and poses, at rest.

It is told what to be by JSON on /fake/wanted (fields of Arm), and answers with the number of the order on /fake/is.
"""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import dataclass

import numpy as np
import rclpy
import rclpy.clock
import rclpy.executors
from geometry_msgs.msg import TransformStamped
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64MultiArray, Int64, String
from tf2_msgs.msg import TFMessage
from trajectory_msgs.msg import JointTrajectory

from jepa_ros.nodes.common.convert import image_message, to_stamp
from jepa_ros.nodes.common.qos import LATCHED, NEWEST
from jepa_ros.nodes.simulator import camera_info
from jepa_ros.robot.config import load_robot
from jepa_ros.sim.scene import OPTICAL_FRAME, Scene

ROBOT = load_robot("openarm")
COMMAND = ROBOT.controllers[0].command_topic


@dataclass
class Arm:
    """Defaults: all is well."""

    order: int = 0
    joint_topic: str = "joint_states"
    joint_type: str = "JointState"
    joint_rate: float = 50.0
    joint_age: float = 0.0
    joint_stamp: str = "now"  # now, zero, repeated
    joint_names: str = "openarm_right_joint"
    joint_order: int = 1
    gripper: bool = True
    unit: float = 1.0
    first_joint: float = 0.0
    elbow: float = 1.571
    velocities: bool = True
    description: str = "good"  # good, none, volatile, no_limits, other, unlimited
    camera_topic: str = "image"
    camera_rate: float = 15.0
    camera_age: float = 0.0
    camera_frame: str = OPTICAL_FRAME
    encoding: str = "rgb8"
    image: str = "good"  # good, dark, frozen, turned, strange
    second_camera: bool = False
    focal: float = 1.0
    info: bool = True
    tf: str = "good"  # good, none, no_tool, no_camera, moved, volatile
    listeners: int = 1
    listener_topic: str = COMMAND
    listener_type: str = "JointTrajectory"
    listener_durability: str = "volatile"
    controller_joints: str = ""
    rival: bool = False
    use_sim_time: bool = False
    clock: bool = False


class FakeArm:
    """See the module."""

    def __init__(self) -> None:
        self.node, self.other = rclpy.create_node("fake_arm"), rclpy.create_node("other")
        self.node.declare_parameter("joints", [""])
        scene = Scene()
        scene.teleport({j: ROBOT.home[j] for j in ROBOT.joints})
        self.scene, image = scene, scene.render().astype(int)
        noise = np.random.default_rng(0).integers(-2, 3, (8, *image.shape))
        self.images = [np.clip(image + n, 0, 255).astype(np.uint8) for n in noise]
        self.made, self.timers, self.begun = [], [], time.time()
        self.answer = self.node.create_publisher(Int64, "/fake/is", LATCHED)
        self.node.create_subscription(String, "/fake/wanted", self.become, LATCHED)

    def become(self, message: String) -> None:
        """Another robot."""
        self.arm = Arm(**json.loads(message.data))
        for node, timer in self.timers:
            node.destroy_timer(timer)
        for node, entity in self.made:
            (node.destroy_publisher if hasattr(entity, "publish") else node.destroy_subscription)(entity)
        self.made, self.timers, self.count, self.stamp = [], [], 0, to_stamp(time.time_ns())
        joints = [self.arm.controller_joints] if self.arm.controller_joints else [""]
        self.node.set_parameters(
            [Parameter("use_sim_time", value=self.arm.use_sim_time), Parameter("joints", value=joints)]
        )
        for make in (self.joints, self.describe, self.camera, self.transforms, self.controllers):
            make()
        if self.arm.clock:
            self.clock = self.publish(Clock, "/clock")
            self.every(50.0, lambda: self.clock.publish(Clock(clock=self.time())))
        self.answer.publish(Int64(data=self.arm.order))

    def publish(self, kind, topic, qos=10, node=None):
        node = node or self.node
        self.made.append((node, node.create_publisher(kind, topic, qos)))
        return self.made[-1][1]

    def hear(self, kind, topic, qos=10, node=None):
        node = node or self.node
        self.made.append((node, node.create_subscription(kind, topic, lambda m: None, qos)))

    def every(self, rate, callback):
        steady = rclpy.clock.Clock(clock_type=rclpy.clock.ClockType.STEADY_TIME)
        self.timers.append((self.node, self.node.create_timer(1.0 / rate, callback, clock=steady)))

    def time(self, age=0.0):
        seconds = time.time() - age
        return to_stamp(int((seconds - self.begun + 100.0 if self.arm.clock else seconds) * 1e9))

    # -- topics --------------------------------------------------------------------------------------------------------

    def joints(self):
        arm = self.arm
        if not arm.joint_topic:
            return
        kind = JointState if arm.joint_type == "JointState" else String
        publisher = self.publish(kind, arm.joint_topic)
        names = [j.replace("openarm_right_joint", arm.joint_names) for j in ROBOT.joints]
        home = [ROBOT.home[j] for j in ROBOT.joints]
        home[0], home[3] = arm.first_joint, arm.elbow
        names += ROBOT.gripper if arm.gripper else []
        home += [0.0] if arm.gripper else []

        def send():
            if kind is String:
                publisher.publish(String(data="no joints"))
                return
            message = JointState(name=names[:: arm.joint_order])
            message.position = [arm.unit * q for q in home][:: arm.joint_order]
            message.velocity = [0.0] * len(names) if arm.velocities else []
            now = self.time(arm.joint_age)
            message.header.stamp = {"now": now, "zero": to_stamp(0), "repeated": self.stamp}[arm.joint_stamp]
            publisher.publish(message)

        self.every(arm.joint_rate, send)

    def describe(self):
        how, urdf = self.arm.description, self.scene.urdf
        if how == "none":
            return
        if how == "other":
            urdf = urdf.replace("openarm_right_joint", "panda_joint")
        if how == "no_limits":
            urdf = re.sub(r"<limit [^>]*/>", "", urdf)
        if how == "unlimited":
            urdf = re.sub(r' (lower|upper)="[^"]*"', "", urdf)
        qos = NEWEST if how == "volatile" else LATCHED
        publisher = self.publish(String, "robot_description", qos)
        publisher.publish(String(data=urdf))

    def camera(self):
        arm = self.arm
        if not arm.camera_topic:
            return
        publisher = self.publish(Image, arm.camera_topic, 3)
        if arm.second_camera:
            self.publish(Image, arm.camera_topic, 3, self.other)
        infos = self.publish(CameraInfo, "camera_info", 3) if arm.info else None
        info = camera_info(self.scene.camera_intrinsics, arm.camera_frame)
        info.k[0], info.k[4] = arm.focal * info.k[0], arm.focal * info.k[4]
        strange = np.random.default_rng(1).integers(0, 255, (2, *self.images[0].shape), dtype=np.uint8)

        def send():
            self.count += 1
            image = self.images[0 if arm.image == "frozen" else self.count % 8]
            if arm.image == "dark":
                image = image // 60
            if arm.image == "turned":
                image = np.ascontiguousarray(image[::-1, ::-1])
            if arm.image == "strange":
                image = strange[self.count % 2]
            message = image_message(image, self.time(arm.camera_age), arm.camera_frame)
            message.encoding = arm.encoding
            publisher.publish(message)
            if infos is not None:
                info.header.stamp = message.header.stamp
                infos.publish(info)

        self.every(arm.camera_rate, send)

    def transforms(self):
        how = self.arm.tf
        if how == "none":
            return
        poses = dict(self.scene.link_poses())
        if how == "no_tool":
            poses.pop(ROBOT.tool_frame)
        publisher = self.publish(TFMessage, "/tf")
        message = TFMessage(transforms=[transform(name, *pose) for name, pose in poses.items()])
        self.every(10.0, lambda: publisher.publish(message))
        if how != "no_camera":
            fixed = self.publish(TFMessage, "/tf_static", NEWEST if how == "volatile" else LATCHED)
            place, turn = self.scene.camera_pose
            camera = TFMessage(transforms=[transform(OPTICAL_FRAME, place + 0.05 * (how == "moved"), turn)])
            fixed.publish(camera)
            if how == "volatile":
                self.every(10.0, lambda: fixed.publish(camera))

    def controllers(self):
        arm = self.arm
        kind = JointTrajectory if arm.listener_type == "JointTrajectory" else Float64MultiArray
        qos = LATCHED if arm.listener_durability == "transient" else 10
        for node in [self.node, self.other][: arm.listeners]:
            self.hear(kind, arm.listener_topic, qos, node)
        if arm.rival:
            self.publish(JointTrajectory, COMMAND, 10, self.other)


def transform(name, position, quaternion):
    message = TransformStamped(child_frame_id=name)
    message.header.frame_id = ROBOT.base_frame
    t, r = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = (float(v) for v in position)
    r.x, r.y, r.z, r.w = (float(v) for v in quaternion)
    return message


def main() -> int:
    rclpy.init()
    fake = FakeArm()
    executor = rclpy.executors.SingleThreadedExecutor()
    executor.add_node(fake.node)
    executor.add_node(fake.other)
    print("ready", flush=True)
    try:
        executor.spin()
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
