"""What the simulated cell publishes: joint states, images with camera_info, the robot's description, and poses.

Messages that are sent many times a second are made once and refilled, as making one costs more than sending it.
"""

from __future__ import annotations

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from jepa_ros.nodes.common.convert import float64_array, image_message, to_stamp
from jepa_ros.nodes.common.qos import IMAGES, LATCHED, NEWEST, STREAM, TF

WORLD = "world"


class SimulatorTopics:
    """Publishers of one scene; each method is called from one thread only."""

    def __init__(self, node, scene, *, clock: bool) -> None:
        from jepa_ros.sim.scene import OPTICAL_FRAME

        self._scene, self._frame = scene, OPTICAL_FRAME
        # Absolute, as everything that follows simulated time expects it.
        self._clock = node.create_publisher(Clock, "/clock", NEWEST) if clock else None
        self._joint_states = node.create_publisher(JointState, "joint_states", STREAM)
        self._images = node.create_publisher(Image, "image", IMAGES)
        # image_transport's convention: beside the image, wherever that is remapped to.
        beside = node.resolve_topic_name("image").rsplit("/", 1)[0] + "/camera_info"
        own = node.resolve_topic_name("camera_info")
        plain = node.get_namespace().rstrip("/") + "/camera_info"
        self._camera_infos = node.create_publisher(CameraInfo, beside if own == plain else own, IMAGES)
        self._description = node.create_publisher(String, "robot_description", LATCHED)
        self._tf = node.create_publisher(TFMessage, "tf", TF)
        self._tf_static = node.create_publisher(TFMessage, "tf_static", LATCHED)
        self._joint_state = JointState(name=list(scene.joint_names))
        self._camera_info = camera_info(scene.camera_intrinsics, self._frame)
        self._transforms = {name: _transform(name) for name in scene.link_poses()}
        self._poses = TFMessage(transforms=list(self._transforms.values()))

    def publish_fixed(self, now_ns: int) -> None:
        """What does not change: the description and where the camera is."""
        self._description.publish(String(data=self._scene.urdf))
        camera = _transform(self._frame)
        camera.header.stamp = to_stamp(now_ns)
        _fill(camera, *self._scene.camera_pose)
        self._tf_static.publish(TFMessage(transforms=[camera]))

    def publish_clock(self, stamp: Time) -> None:
        """Simulated time, where the simulator gives it."""
        if self._clock is not None:
            self._clock.publish(Clock(clock=stamp))

    def publish_joint_states(self, stamp: Time, state) -> None:
        """state: what Scene.joint_state gives."""
        _, positions, velocities, efforts = state
        message = self._joint_state
        message.header.stamp = stamp
        message.position, message.velocity = float64_array(positions), float64_array(velocities)
        message.effort = float64_array(efforts)
        self._joint_states.publish(message)

    def publish_poses(self, stamp: Time, poses: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
        """poses: what Scene.link_poses gives."""
        for name, (position, quaternion) in poses.items():
            transform = self._transforms[name]
            transform.header.stamp = stamp
            _fill(transform, position, quaternion)
        self._tf.publish(self._poses)

    def publish_image(self, stamp: Time, picture: np.ndarray) -> None:
        """picture: (H, W, 3) uint8 rgb of the state at that stamp."""
        self._images.publish(image_message(picture, stamp, self._frame))
        self._camera_info.header.stamp = stamp
        self._camera_infos.publish(self._camera_info)


def camera_info(intrinsics: dict[str, float], frame_id: str) -> CameraInfo:
    """sensor_msgs/CameraInfo of an ideal pinhole camera."""
    fx, fy, cx, cy = (float(intrinsics[key]) for key in ("fx", "fy", "cx", "cy"))
    message = CameraInfo(
        width=int(intrinsics["width"]),
        height=int(intrinsics["height"]),
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )
    message.header.frame_id = frame_id
    return message


def _transform(child: str) -> TransformStamped:
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = WORLD
    return message


def _fill(message: TransformStamped, position: np.ndarray, quaternion: np.ndarray) -> None:
    translation, rotation = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z = position.tolist()
    rotation.x, rotation.y, rotation.z, rotation.w = quaternion.tolist()
