"""Node world_model: encodes camera frames, measures surprise, and answers encode_goal and imagine.

A model with several cameras (`cameras` in its config.json) needs one frame of each, stamped within half a control tick
of the first camera's. The latent has the first camera's header. If a camera has no such frame, there is no latent.

A model whose state is the tool's pose (`proprioception.kind` in its config.json) also needs `robot_description`.

torch runs in one worker thread: frames first, requests in slices between them.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from functools import partial

import numpy as np
from jepa_msgs.msg import Action, LatentState, Surprise
from jepa_msgs.srv import EncodeGoal, Imagine
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from jepa_ros.errors import InputError
from jepa_ros.nodes.common.convert import decode_image, float32_array, to_seconds
from jepa_ros.nodes.common.diagnostics import ERROR, OK, WARN, Meter, Status
from jepa_ros.nodes.common.lifecycle import JepaNode, NotReady
from jepa_ros.nodes.common.parameters import MODEL_PARAMETERS, Parameter
from jepa_ros.nodes.common.process import run_node
from jepa_ros.nodes.common.qos import EXECUTED, IMAGES, RELIABLE, SENSOR
from jepa_ros.nodes.common.topics import LatestMessage, robot_topic
from jepa_ros.nodes.common.worker import Worker, describe_error
from jepa_ros.nodes.planner.goals import goal_frames
from jepa_ros.world_model.proprioception import make_reader

PARAMETERS = (
    *MODEL_PARAMETERS,
    Parameter(
        "frame_timeout",
        0.5,
        "Without frames of all cameras for this long, diagnostics report an error.",
        "s",
        (0.05, 60.0),
    ),
    Parameter("max_samples", 8192, "Maximum number of action sequences in one `imagine` request.", range=(1, 100_000)),
)
STAMP_JITTER = 1e-3  # s allowed beyond half a control tick
STALLED_AFTER = 1.0  # s without a latent although frames arrive, after which diagnostics report it
SLICE_TIME = 0.006  # s, target time of one rollout step of several sequences; frames are handled between steps


class WorldModelNode(JepaNode):
    """In: frame (one for each camera), joint_states, executed, robot_description. Out: latent, surprise.
    Services: encode_goal, imagine."""

    def __init__(self) -> None:
        super().__init__("world_model", PARAMETERS)
        self._worker: Worker | None = None
        self._description = LatestMessage(self, String, robot_topic(self, "robot_description"))
        self._frames, self._encoded = Meter(), Meter()
        self._frame_at: dict[str, float] = {}  # steady time of each camera's last frame
        self._complete_at = time.monotonic()  # when frames of all cameras with matching stamps were last received
        self._encoded_at = self._complete_at
        self._inputs, self._answers = [], []
        self._input_group = MutuallyExclusiveCallbackGroup()  # a service blocks its own group while it is answered
        self._synchronizer = None
        self._encode_ms, self._surprised = 0.0, False
        self._failure = ""
        self._bad_frames = 0

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    def configure(self) -> None:
        import torch

        from jepa_ros.resources import resolve_model
        from jepa_ros.robot.config import load_robot
        from jepa_ros.world_model.camera_sync import CameraSynchronizer
        from jepa_ros.world_model.checkpoint import check_robot, load_checkpoint
        from jepa_ros.world_model.config import read_config
        from jepa_ros.world_model.device import choose_device
        from jepa_ros.world_model.history import ObservationHistory
        from jepa_ros.world_model.surprise import SurpriseMonitor

        torch.set_num_threads(self.p.threads)
        config, robot = read_config(resolve_model(self.p.model)), load_robot(self.p.robot)
        check_robot(config, robot)
        description = self._description.message
        if config.proprioception.kind == "tool_pose" and description is None:
            raise NotReady("no robot_description received yet")
        self._reader = make_reader(config.proprioception, robot, description.data if description else "")
        # Last: it may be gigabytes, and must not be loaded again at every attempt.
        self._checkpoint = load_checkpoint(self.p.model, choose_device(self.p.device))
        self._size, self._cameras = config.preprocessing.size, config.cameras
        self._observations = ObservationHistory(config)
        self._synchronizer = CameraSynchronizer(config.cameras, 0.5 * config.tick + STAMP_JITTER)
        self._monitor = SurpriseMonitor(self._checkpoint, self._observations)
        for _ in range(3):  # the first inference allocates and is slow
            self._encode(np.zeros(config.frame_shape, np.uint8))
        self._latents = self.create_lifecycle_publisher(LatentState, "latent", RELIABLE)
        self._surprises = self.create_lifecycle_publisher(Surprise, "surprise", RELIABLE)
        self._worker = Worker(self._on_failure)

    def activate(self) -> None:
        self._complete_at = self._encoded_at = time.monotonic()
        self._failure = ""
        self._frame_at = dict.fromkeys(self._cameras, self._complete_at)
        self._observations.clear()
        self._observations.continuous = self._find_continuous()
        self._synchronizer.clear()
        self._subscribe(JointState, robot_topic(self, "joint_states"), self._on_joint_states, SENSOR)
        self._subscribe(Action, "executed", self._on_executed, EXECUTED)
        for camera in self._cameras:
            self._subscribe(Image, camera, partial(self._on_frame, camera), IMAGES)
        self._answers = [
            self.create_service(EncodeGoal, "encode_goal", self._on_encode_goal),
            self.create_service(Imagine, "imagine", self._on_imagine),
        ]

    def _find_continuous(self) -> tuple[int, ...]:
        """Return the columns of the proprioception with continuous joints; none before a robot_description arrives."""
        from jepa_ros.robot.urdf import RobotDescription

        joints, description = self._checkpoint.config.proprioception.joints, self._description.message
        if description is None or not joints:
            return ()
        try:
            continuous = RobotDescription.from_urdf(description.data).find_continuous(joints)
        except InputError as error:
            self.warn_throttled("robot_description", str(error))
            return ()
        return tuple(number for number, found in enumerate(continuous) if found)

    def _subscribe(self, kind: type, topic: str, callback, qos: QoSProfile) -> None:
        self._inputs.append(self.create_subscription(kind, topic, callback, qos, callback_group=self._input_group))

    def deactivate(self) -> None:
        while self._inputs:
            self.destroy_subscription(self._inputs.pop())
        while self._answers:
            self.destroy_service(self._answers.pop())

    def cleanup(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    # -- inputs --------------------------------------------------------------------------------------------------------

    def _on_frame(self, camera: str, message: Image) -> None:
        if camera == self._cameras[0]:
            self._frames.count()
        self._frame_at[camera] = time.monotonic()
        try:
            frame = decode_image(message)
            if frame.shape != (self._size, self._size, 3):
                expected = f"{self._size} x {self._size}"
                raise InputError(f"{camera}: expected {expected} pixels, found {frame.shape[1]} x {frame.shape[0]}")
        except InputError as error:
            self._bad_frames += 1
            self.warn_throttled(camera, str(error))
            return
        stamp = to_seconds(message.header.stamp)
        for views in self._synchronizer.add(camera, stamp, (message.header, frame)):
            self._complete_at = time.monotonic()
            self._worker.submit_latest(partial(self._handle_views, views[0][0], [frame for _, frame in views]))

    def _on_joint_states(self, message: JointState) -> None:
        try:
            stamp, state = self._reader.read(message)
        except InputError as error:
            self.warn_throttled("joint_states", str(error))
            return
        self._observations.states.add(stamp, state)

    def _on_executed(self, message: Action) -> None:
        from jepa_ros.world_model.history import executed_problem

        problem = executed_problem(self._checkpoint.config, message.action_space, message.period, message.values)
        if problem:
            self.warn_throttled("executed", problem)
        else:
            self._observations.actions.add(to_seconds(message.header.stamp), message.values)

    # -- in the worker's thread ----------------------------------------------------------------------------------------

    def _encode(self, frame: np.ndarray):
        import torch

        with torch.inference_mode():
            return self._checkpoint.model.encode(frame[None])[0]

    def _handle_views(self, header, views: list[np.ndarray]) -> None:
        """Publish the latent of one frame for each camera, (S, S, 3), and the surprise if it is due."""
        begin = time.perf_counter()
        latent = self._encode(views[0] if len(views) == 1 else np.stack(views))
        message = self._latent_message(header, latent)
        message.encode_ms = self._encode_ms = 1e3 * (time.perf_counter() - begin)
        self._failure, self._encoded_at = "", time.monotonic()
        if not np.isfinite(message.norm):
            self._bad_frames += 1
            self.warn_throttled("latent", "frame dropped: the encoder returned NaN or Inf")
            return
        self._latents.publish(message)
        self._encoded.count()
        stamp = to_seconds(header.stamp)
        if not self._observations.latents.add(stamp, latent):
            self._observations.actions.clear()
        reading = self._monitor.read(stamp)
        if reading is not None:
            self._surprised = reading.surprised
            self._surprises.publish(Surprise(header=header, surprised=reading.surprised, **asdict(reading)))

    def _latent_message(self, header, latent) -> LatentState:
        values = latent.numpy()
        message = LatentState(header=header, model_id=self._checkpoint.model_id, shape=list(values.shape))
        message.data = float32_array(values)
        message.norm = float(np.linalg.norm(values))
        return message

    def _on_failure(self, error: Exception) -> None:
        self._failure = f"inference: {describe_error(error)}"
        self.error_throttled("worker", self._failure)
        self.diagnostics_changed()

    # -- services ------------------------------------------------------------------------------------------------------

    async def _on_encode_goal(self, request, response):
        try:
            frame = goal_frames([request.image, *request.more_images], self._checkpoint.config)
            latent = await self._worker.submit(lambda: self._encode(frame), self.executor)
            response.success, response.latent = True, self._latent_message(request.image.header, latent)
        except Exception as error:  # even out of memory: the request fails, the node does not
            response.success, response.message = False, describe_error(error)
        return response

    async def _on_imagine(self, request, response):
        try:
            actions = self._read_actions(request)
            response.latents, response.shape, response.imagine_ms = await self._worker.submit(
                lambda: self._imagine(to_seconds(request.stamp), actions), self.executor
            )
            response.success = True
        except Exception as error:  # even out of memory: the request fails, the node does not
            response.success, response.message = False, describe_error(error)
        return response

    def _read_actions(self, request) -> np.ndarray:
        """Return a request's action blocks (samples, horizon, width). Raises InputError where they are invalid."""
        config = self._checkpoint.config
        width = config.action_block
        wanted = request.samples * request.horizon * width
        if not 1 <= request.samples <= self.p.max_samples or not 1 <= request.horizon <= 64:
            found = f"{request.samples} and {request.horizon}"
            raise InputError(f"imagine: expected 1 to {self.p.max_samples} samples and 1 to 64 steps, found {found}")
        if len(request.actions) != wanted:
            raise InputError(f"imagine: actions: expected {wanted} values, found {len(request.actions)}")
        actions = np.array(request.actions, np.float32).reshape(request.samples, request.horizon, width)
        if not np.isfinite(actions).all():
            raise InputError("imagine: actions: expected finite values, found NaN or Inf")
        return actions

    def _imagine(self, stamp: float, actions: np.ndarray):
        import torch

        from jepa_ros.world_model.protocol import step_context

        begin = time.perf_counter()
        stamp = stamp or self._observations.latents.newest
        context = None if stamp is None else self._observations.context_at(stamp)
        if context is None:
            raise InputError("imagine: stamp: no latent and joint states near it")
        last, rest, count = [], torch.from_numpy(actions), 16
        while len(rest):
            part, rest = rest[:count], rest[count:]
            seen, slowest = context.expand(len(part)), 0.0
            for block in part.split(1, dim=1):
                started = time.perf_counter()
                with torch.inference_mode():
                    seen = step_context(self._checkpoint.model, seen, block)
                slowest = max(slowest, time.perf_counter() - started)
                self._worker.run_latest_first()
            last.append(seen.latents[:, -1])
            # As many sequences as one step can handle in SLICE_TIME; at most twice as many as before.
            count = int(min(max(len(part) * SLICE_TIME / slowest, 1), 2 * len(part)))
        latents = torch.cat(last)
        return float32_array(latents.numpy()), list(latents.shape), 1e3 * (time.perf_counter() - begin)

    # -- diagnostics ---------------------------------------------------------------------------------------------------

    def diagnose(self) -> list[Status]:
        if not self.active:
            level, text = OK, "not active"
        elif missing := self._describe_missing():
            level, text = ERROR, missing
        elif self._failure:
            level, text = ERROR, self._failure
        elif self._surprised:
            level, text = WARN, "surprised: the latest observation differs from the prediction"
        else:
            level, text = OK, "frames are encoded"
        values = {
            "frames_hz": self._frames.rate(),
            "encoded": self._encoded.total,
            "bad_frames": self._bad_frames,
            "dropped": self._worker.dropped if self._worker else 0,
            "encode_ms": self._encode_ms,
        }
        if self._synchronizer and len(self._cameras) > 1:
            values |= {"cameras": ", ".join(self._cameras), "incomplete_sets": self._synchronizer.incomplete}
        return [Status("inference", level, text, values)]

    def _describe_missing(self) -> str:
        """Return why nothing is encoded, in one sentence; empty if frames are encoded."""
        now, timeout = time.monotonic(), self.p.frame_timeout
        silent = [camera for camera, at in self._frame_at.items() if now - at > timeout]
        if silent and len(self._cameras) == 1:
            return "no frames received from the camera node"
        if silent:
            return f"no frames received on {', '.join(silent)}"
        if now - self._complete_at <= timeout or len(self._cameras) == 1:
            stalled = now - self._encoded_at > max(timeout, STALLED_AFTER)
            return "frames are received, but none was encoded recently" if stalled and not self._failure else ""
        for camera, apart in self._synchronizer.apart.items():
            order = "later" if apart > 0 else "earlier"
            return f"{camera}: frames are stamped {abs(apart):.3g} s {order} than those on {self._cameras[0]}"
        return f"no frames with matching stamps received on {', '.join(self._cameras)}"


if __name__ == "__main__":
    sys.exit(run_node(WorldModelNode))
