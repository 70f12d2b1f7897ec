"""One pass over a bag: frames are decoded, checked and encoded; everything else is kept as plain numbers."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from jepa_ros.bags.reader import Bag
from jepa_ros.bags.recovery import RawMessage
from jepa_ros.bags.typestore import IMAGE, JOINT_STATE, JointStateReader, header_stamp
from jepa_ros.errors import InputError
from jepa_ros.evaluation.bag.reading.images import ENCODER_BATCH, BatchEncoder, CameraImage, ImageDecoder
from jepa_ros.evaluation.bag.reading.recording import BagTopics, CameraMessages, EvaluationSpec, LatentStore, Recording
from jepa_ros.evaluation.bag.reading.result_bag import ResultBag
from jepa_ros.evaluation.bag.reading.situations import Situations, evenly_spread, find_situations
from jepa_ros.frame_checks import FrameChecks, FrameDropped
from jepa_ros.robot.camera_rotation import MIN_MOVES, estimate_rotation
from jepa_ros.robot.config import VELOCITY_SPACES
from jepa_ros.robot.motion.velocity_space import make_velocity_space
from jepa_ros.world_model.camera_sync import CameraSynchronizer
from jepa_ros.world_model.history import executed_problem
from jepa_ros.world_model.proprioception import make_reader

STAMP_SLACK_S = 1e-3  # jitter of stamps beyond half a control tick, as in the world_model node
CAMERA_LIMITS = {"max_age": 0.5, "max_skew": 0.05, "frozen_after": 1.0}
"""Limits of the camera node. Ages are not checked: recording times and stamps may be of different clocks."""
MAX_MOVES = 300
MIN_TURN_DEG = 3.0
"""Smaller rotations are ignored: the arm's lag behind its reference looks like one."""
MIN_EXPLAINED = 0.8
"""Share of the joints' motion that the turned actions must explain; otherwise actions are not turned."""


class BagReader:
    """Reads one bag into a Recording. urdf: robot_description given by the user; default: the bag's. result: the bag
    that gets the inputs and latents. workers: threads that decode images."""

    def __init__(
        self,
        source: Bag,
        topics: BagTopics,
        spec: EvaluationSpec,
        result: ResultBag | None = None,
        urdf: str | None = None,
        workers: int = 0,
    ):
        self._source, self._topics, self._spec, self._result = source, topics, spec, result
        self._config, self._encoder, self._workers = spec.config, BatchEncoder(spec.checkpoint.model), workers
        self._joint_states = JointStateReader()
        self._recording = Recording(source.path, LatentStore(self._config.latent_shape), urdf, source, topics)
        self._recording.cameras = [CameraMessages() for _ in topics.cameras]
        self._checks = [FrameChecks(**CAMERA_LIMITS) for _ in topics.cameras]
        self._sets = CameraSynchronizer(self._config.cameras, 0.5 * self._config.tick + STAMP_SLACK_S)
        self._epoch = 0  # of the frames that are being matched
        self._batch: list[tuple[tuple[CameraImage, bool], ...]] = []
        self._reader = None
        self._make_reader()
        self._handlers: dict[tuple[str, str], Callable[[RawMessage, Any], None]] = {
            **dict.fromkeys(topics.episodes, self._on_episode),
            **dict.fromkeys(topics.description, self._on_description),
        }
        if topics.joint_states is not None:
            self._handlers[topics.joint_states] = self._on_joint_states
        if topics.executed is not None:
            self._handlers[topics.executed] = self._on_executed

    def read(self, progress: Callable[[int], None] = lambda frames: None) -> Recording:
        """Read the whole bag. progress: called with the number of frames encoded so far."""
        recording, reported = self._recording, 0
        cameras = {name: number for number, name in enumerate(self._topics.cameras)}
        with ImageDecoder(self._workers, self._config.preprocessing.size) as decoder:
            for message in self._source.messages(self._topics.keys):
                recorded = message.recorded
                recording.begin = recorded if recording.begin is None else min(recording.begin, recorded)
                recording.end = max(recording.end, recorded)
                name = (message.topic, message.msgtype)
                if name in cameras:
                    self._check_images(self._decode(decoder, message, cameras[name]))
                else:
                    self._handle(name, message)
                if len(recording.frame_stamps) != reported:
                    reported = len(recording.frame_stamps)
                    progress(reported)
            self._check_images(decoder.finish())
        self._encode()
        turn_into_model_axes(recording, self._spec)
        recording.unmatched = self._sets.incomplete
        if self._source.undecompressed:
            recording.unreadable["compressed messages"] += self._source.undecompressed
        progress(len(recording.frame_stamps))
        return recording

    def _deserialise(self, message: RawMessage) -> Any:
        """Return the message, None where it is undecodable."""
        try:
            if message.msgtype == JOINT_STATE:
                return self._joint_states.read(message.data)
            return message.deserialise()
        except Exception:  # the library raises many kinds of errors for garbage
            self._recording.unreadable[message.topic] += 1
            return None

    # -- images --------------------------------------------------------------------------------------------------------

    def _decode(self, decoder: ImageDecoder, message: RawMessage, number: int) -> Iterator[CameraImage]:
        """Pass an image message to the decoder; yield the images that are due."""
        name, raw = (message.topic, message.msgtype), message.msgtype == IMAGE
        if self._result is not None and not raw:
            self._result.copy(name, message.recorded, message.data)
        read = self._deserialise(message)
        if read is None:
            return
        camera, stamp = self._recording.cameras[number], header_stamp(read)
        camera.without_stamp += not stamp
        stamp = stamp or message.recorded
        camera.stamps.append(stamp)
        camera.frame_id = read.header.frame_id
        epoch = self._recording.clock.assign(stamp, message.recorded)
        if epoch is None:
            camera.dropped["straggler"] += 1
            return
        image = CameraImage(number, epoch, stamp, message.recorded, read.header.frame_id, read.data)
        yield from decoder.add(image, read, copy=raw and self._result is not None)

    def _check_images(self, images: Iterable[CameraImage]) -> None:
        """Check images as the camera node does, and match them as the world_model node does."""
        for image in images:
            camera, checks = self._recording.cameras[image.camera], self._checks[image.camera]
            if self._result is not None:
                self._result.write_image(self._topics.cameras[image.camera], image)
            if image.problem is not None:
                camera.dropped[image.problem.cause] += 1
                camera.problem = camera.problem or str(image.problem)
                continue
            try:
                checks.check_stamp(image.stamp, image.stamp)
            except FrameDropped as error:
                camera.dropped[error.cause] += 1
                continue
            frozen = False
            try:
                checks.accept(image.stamp, image.data)
            except FrameDropped:  # evaluated all the same: an arm at rest in simulation looks like this
                frozen = True
            image.data = None
            self._match(image, frozen)

    def _match(self, image: CameraImage, frozen: bool) -> None:
        if image.epoch != self._epoch:
            self._epoch = image.epoch
            self._sets.clear()
        camera = self._config.cameras[image.camera]
        for matched in self._sets.add(camera, image.stamp * 1e-9, (image, frozen)):
            self._batch.append(matched)
            if len(self._batch) == ENCODER_BATCH:
                self._encode()

    def _encode(self) -> None:
        batch, self._batch = self._batch, []
        if not batch:
            return
        frames = [np.stack([image.frame for image, _ in matched]) for matched in batch]
        latents, distances = self._encoder.encode([f[0] if len(f) == 1 else f for f in frames])
        good = np.isfinite(latents.reshape(len(latents), -1)).all(axis=1)
        recording = self._recording
        recording.not_finite += int((~good).sum())
        recording.latents.add(latents[good])
        for row in np.flatnonzero(good):
            first, _ = batch[row][0]
            recording.frame_stamps.append(first.stamp)
            recording.frame_recorded.append(first.recorded)
            recording.frame_epochs.append(first.epoch)
            recording.frozen.append(any(frozen for _, frozen in batch[row]))
            recording.training_distance.append(float(distances[row]))
            if self._result is not None:
                self._result.write_latent(first.stamp, first.recorded, first.frame_id, latents[row])

    # -- everything else -----------------------------------------------------------------------------------------------

    def _handle(self, name: tuple[str, str], message: RawMessage) -> None:
        if self._result is not None:
            self._result.copy(name, message.recorded, message.data)
        handle = self._handlers.get(name)
        read = None if handle is None else self._deserialise(message)
        if read is not None:
            handle(message, read)

    def _on_joint_states(self, message: RawMessage, read: Any) -> None:
        stamp = header_stamp(read) or message.recorded
        epoch = self._recording.clock.assign(stamp, message.recorded)
        if self._reader is None:
            self._recording.refused["joint_states: no robot_description before them"] += 1
        elif epoch is not None:
            try:
                _, state = self._reader.read(read)
            except InputError as error:
                self._recording.refused[str(error)] += 1
                return
            self._recording.states.add(stamp, epoch, state)
            self._recording.joint_recorded.append(message.recorded)

    def _on_executed(self, message: RawMessage, read: Any) -> None:
        problem = executed_problem(self._config, read.action_space, read.period, read.values)
        stamp = header_stamp(read) or message.recorded - round(self._config.tick * 1e9)
        epoch = self._recording.clock.assign(stamp, message.recorded)
        if problem:
            self._recording.refused[problem] += 1
        elif epoch is not None:
            self._recording.actions.add(stamp, epoch, np.asarray(read.values, float))

    def _on_episode(self, message: RawMessage, read: Any) -> None:
        stamp = header_stamp(read) or message.recorded
        epoch = self._recording.clock.assign(stamp, message.recorded)
        if epoch is not None:
            self._recording.episodes.append((stamp, epoch))

    def _on_description(self, message: RawMessage, read: Any) -> None:
        if self._recording.urdf is None:
            self._recording.urdf = read.data
            self._make_reader()

    def _make_reader(self) -> None:
        proprioception = self._config.proprioception
        if self._reader is None and (proprioception.kind == "joints" or self._recording.urdf is not None):
            try:
                self._reader = make_reader(proprioception, self._spec.robot, self._recording.urdf or "")
            except InputError as error:
                self._recording.refused[f"robot_description: {error}"] += 1


def turn_into_model_axes(recording: Recording, spec: EvaluationSpec) -> None:
    """Turn the recording's actions into the model's axes as the robot file defines them, where the joints show that
    they are in others, and set recording.turned_deg. Nothing changes where that is unknown: no description, a model
    without joint states, too little motion.

    The gate publishes `executed` in the model's axes, as the robot file defined them at that time; the bag does not
    contain that rotation. The joint positions show it: their motion is in the base frame in any case. So a recording
    made before the camera was calibrated, or with an earlier calibration, is evaluated as if made with the given file.
    """
    config = spec.config
    situations = find_situations(recording, replace(spec, horizon=1))
    known = np.flatnonzero(situations.known[:, 0] & np.isfinite(situations.target_states[:, 0]).all(axis=1))
    if len(known) < MIN_MOVES:
        return
    known = evenly_spread(known, MAX_MOVES)
    try:
        moved = _measured_motion(situations, known)
        if moved is None:
            return
        done = situations.future[known, 0].reshape(len(known), config.block, -1).sum(1)[:, : moved.shape[1]]
        turn = estimate_rotation(done, moved)
    except InputError:
        return
    if turn.explained < MIN_EXPLAINED or turn.degrees < max(MIN_TURN_DEG, turn.error_degrees):
        return
    rows = np.array(recording.actions.values).reshape(-1, config.action.dimension)
    recording.actions.values = array("d", _turn_actions(rows, turn.rotation).ravel())
    recording.turned_deg = turn.degrees


def _measured_motion(situations: Situations, rows: np.ndarray) -> np.ndarray | None:
    """Tool motion (n, 2 or 3) of a model step by the measured joints, in the model's axes and the unit of summed
    actions; None where it is unknown."""
    config, robot = situations.spec.config, situations.spec.robot
    state = config.proprioception
    mean, std = np.array(state.mean), np.array(state.std)
    before, after = (x[rows] * std + mean for x in (situations.states[:, -1], situations.target_states[:, 0]))
    if state.kind == "tool_pose":
        return after[:, :3] - before[:, :3]
    if not state.joints or config.action.name not in VELOCITY_SPACES:
        return None
    space = make_velocity_space(robot, situations.recording.make_kinematics(robot), config.tick)
    arm = len(state.joints)
    moved = np.array([space.executed(*q) for q in zip(before[:, :arm], after[:, :arm], strict=True)])
    # With yaw, the model's axes can be turned about z only, as in a plane.
    return moved.reshape(-1, space.dimension)[:, : 3 if space.axes == 3 else 2]


def _turn_actions(actions: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Return actions (n, A) of any action space turned by a rotation (3, 3)."""
    if actions.shape[1] == 2:
        return actions @ rotation[:2, :2].T
    if actions.shape[1] <= 4:  # velocities in space; yaw is about the axis of the rotation
        return np.hstack([actions[:, :3] @ rotation.T, actions[:, 3:]])
    turn = Rotation.from_matrix(rotation)
    turns = (turn * Rotation.from_euler("xyz", actions[:, 3:6]) * turn.inv()).as_euler("xyz")
    return np.hstack([actions[:, :3] @ rotation.T, turns, actions[:, 6:]])
