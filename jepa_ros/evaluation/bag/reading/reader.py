"""One pass over a bag: every frame is decoded, checked and encoded, everything else is kept as plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from jepa_ros.bags.joint_states import JointStateReader
from jepa_ros.bags.reader import Bag
from jepa_ros.bags.recovery import RawMessage
from jepa_ros.bags.typestore import IMAGE, typestore
from jepa_ros.errors import InputError
from jepa_ros.evaluation.bag.reading.axes import into_models
from jepa_ros.evaluation.bag.reading.latents import BATCH, BatchEncoder, LatentStore
from jepa_ros.evaluation.bag.reading.pictures import Decoder, Picture
from jepa_ros.evaluation.bag.reading.records import Recorded, View
from jepa_ros.evaluation.bag.reading.result_bag import ResultBag
from jepa_ros.evaluation.bag.reading.topics import JOINT_STATE, Inputs
from jepa_ros.frame_checks import FrameChecks, FrameDropped
from jepa_ros.robot.config import RobotConfig
from jepa_ros.world_model.camera_sync import CameraSynchronizer
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.history import executed_problem
from jepa_ros.world_model.proprioception import make_reader

STAMP_SLACK = 1e-3  # s that stamps may jitter beyond half a control tick, as in the world_model node
CAMERA = {"max_age": 0.5, "max_skew": 0.05, "frozen_after": 1.0}
"""Bounds of the camera node. Ages are not judged: a bag may have been recorded on another clock than it was stamped."""


class Intake:
    """Reads one bag into `found`. urdf: robot_description where the user gives one; else it is the bag's."""

    def __init__(
        self,
        source: Bag,
        inputs: Inputs,
        checkpoint: Checkpoint,
        robot: RobotConfig,
        result: ResultBag | None = None,
        urdf: str | None = None,
        workers: int = 0,
    ):
        self._source, self._inputs, self._robot, self._result = source, inputs, robot, result
        self._config, self._encoder, self._workers = checkpoint.config, BatchEncoder(checkpoint.model), workers
        self._types, self._joint_states = typestore(), JointStateReader()
        self.found = Recorded(source.path, LatentStore(self._config.latent_shape), urdf)
        self.found.views = [View() for _ in inputs.views]
        self._checks = [FrameChecks(**CAMERA) for _ in inputs.views]
        self._sets = CameraSynchronizer(self._config.cameras, 0.5 * self._config.tick + STAMP_SLACK)
        self._epoch = 0  # of the frames that are matched
        self._batch: list[tuple[tuple[Picture, bool], ...]] = []
        self._reader = None
        self._make_reader()
        self._handlers: dict[tuple[str, str], Callable[[RawMessage, Any], None]] = {
            **dict.fromkeys(inputs.episodes, self._on_episode),
            **dict.fromkeys(inputs.description, self._on_description),
        }
        if inputs.joint_states is not None:
            self._handlers[inputs.joint_states] = self._on_joint_states
        if inputs.executed is not None:
            self._handlers[inputs.executed] = self._on_executed

    def run(self, progress: Callable[[int], None] = lambda frames: None) -> Recorded:
        """All of it. progress: called with the number of frames encoded."""
        found, told = self.found, 0
        views = {name: number for number, name in enumerate(self._inputs.views)}
        with Decoder(self._workers, self._config.preprocessing.size) as decoder:
            for message in self._source.messages(self._inputs.wanted):
                found.begin = message.recorded if found.begin is None else min(found.begin, message.recorded)
                found.end = max(found.end, message.recorded)
                name = (message.topic, message.msgtype)
                if name in views:
                    self._see(self._decoded(decoder, message, views[name]))
                else:
                    self._hear(name, message)
                if len(found.frame_stamps) != told:
                    told = len(found.frame_stamps)
                    progress(told)
            self._see(decoder.rest())
        self._encode()
        into_models(found, self._config, self._robot)
        found.apart = self._sets.incomplete
        found.unreadable.update(
            {"compressed messages": self._source.undecompressed} if self._source.undecompressed else {}
        )
        progress(len(found.frame_stamps))
        return found

    def _read(self, message: RawMessage) -> Any:
        """The message, or None where it is none."""
        try:
            if message.msgtype == JOINT_STATE:
                return self._joint_states.read(message.data)
            return self._types.deserialize_cdr(message.data, message.msgtype)
        except Exception:  # whatever the library makes of garbage
            self.found.unreadable[message.topic] += 1
            return None

    # -- pictures ------------------------------------------------------------------------------------------------------

    def _decoded(self, decoder: Decoder, message: RawMessage, number: int) -> Iterator[Picture]:
        """Hand a message to the decoder; the pictures that are due."""
        name, raw = (message.topic, message.msgtype), message.msgtype == IMAGE
        if self._result is not None and not raw:
            self._result.copy(name, message.recorded, message.data)
        read = self._read(message)
        if read is None:
            return
        view, stamp = self.found.views[number], _stamp(read)
        view.without_stamp += not stamp
        stamp = stamp or message.recorded
        view.stamps.append(stamp)
        view.recorded.append(message.recorded)
        view.frame_id = read.header.frame_id
        epoch = self.found.clock.of(stamp, message.recorded)
        if epoch is None:
            view.dropped["straggler"] += 1
            return
        made = Picture(number, epoch, stamp, message.recorded, read.header.frame_id, read.data)
        yield from decoder.add(made, read, copy=raw and self._result is not None)

    def _see(self, pictures: Iterable[Picture]) -> None:
        """Check pictures as the camera node does, and match them as the world_model node does."""
        for made in pictures:
            view, checks = self.found.views[made.view], self._checks[made.view]
            if self._result is not None:
                self._result.picture(self._inputs.views[made.view], made)
            if made.problem is not None:
                view.dropped[made.problem.cause] += 1
                view.problem = view.problem or str(made.problem)
                continue
            try:
                checks.check_stamp(made.stamp, made.stamp)
            except FrameDropped as error:
                view.dropped[error.cause] += 1
                continue
            frozen = False
            try:
                checks.accept(made.stamp, made.data)
            except FrameDropped:  # shown to the model all the same: an arm at rest in simulation looks like this
                frozen = True
            made.data = None
            self._match(made, frozen)

    def _match(self, made: Picture, frozen: bool) -> None:
        if made.epoch != self._epoch:
            self._epoch = made.epoch
            self._sets.clear()
        camera = self._config.cameras[made.view]
        for views in self._sets.add(camera, made.stamp * 1e-9, (made, frozen)):
            self._batch.append(views)
            if len(self._batch) == BATCH:
                self._encode()

    def _encode(self) -> None:
        batch, self._batch = self._batch, []
        if not batch:
            return
        frames = [np.stack([made.frame for made, _ in views]) for views in batch]
        latents, distances = self._encoder.encode([f[0] if len(f) == 1 else f for f in frames])
        good = np.isfinite(latents.reshape(len(latents), -1)).all(axis=1)
        found = self.found
        found.not_finite += int((~good).sum())
        found.latents.add(latents[good])
        for row in np.flatnonzero(good):
            first, _ = batch[row][0]
            found.frame_stamps.append(first.stamp)
            found.frame_recorded.append(first.recorded)
            found.frame_epochs.append(first.epoch)
            found.frozen.append(any(frozen for _, frozen in batch[row]))
            found.from_training.append(float(distances[row]))
            if self._result is not None:
                self._result.latent(first.stamp, first.recorded, first.frame_id, latents[row])

    # -- everything else -----------------------------------------------------------------------------------------------

    def _hear(self, name: tuple[str, str], message: RawMessage) -> None:
        if self._result is not None:
            self._result.copy(name, message.recorded, message.data)
        handle = self._handlers.get(name)
        read = None if handle is None else self._read(message)
        if read is not None:
            handle(message, read)

    def _on_joint_states(self, message: RawMessage, read: Any) -> None:
        stamp = _stamp(read) or message.recorded
        epoch = self.found.clock.of(stamp, message.recorded)
        if self._reader is None:
            self.found.refused["joint_states: no robot_description came before them"] += 1
        elif epoch is not None:
            try:
                _, state = self._reader.read(read)
            except InputError as error:
                self.found.refused[str(error)] += 1
                return
            self.found.states.add(stamp, epoch, state)
            self.found.joint_recorded.append(message.recorded)

    def _on_executed(self, message: RawMessage, read: Any) -> None:
        problem = executed_problem(self._config, read.action_space, read.period, read.values)
        stamp = _stamp(read) or message.recorded - round(self._config.tick * 1e9)
        epoch = self.found.clock.of(stamp, message.recorded)
        if problem:
            self.found.refused[problem] += 1
        elif epoch is not None:
            self.found.actions.add(stamp, epoch, np.asarray(read.values, float))

    def _on_episode(self, message: RawMessage, read: Any) -> None:
        stamp = _stamp(read) or message.recorded
        epoch = self.found.clock.of(stamp, message.recorded)
        if epoch is not None:
            self.found.episodes.append((stamp, epoch))

    def _on_description(self, message: RawMessage, read: Any) -> None:
        if self.found.urdf is None:
            self.found.urdf = read.data
            self._make_reader()

    def _make_reader(self) -> None:
        proprioception = self._config.proprioception
        if self._reader is None and (proprioception.kind == "joints" or self.found.urdf is not None):
            try:
                self._reader = make_reader(proprioception, self._robot, self.found.urdf or "")
            except InputError as error:
                self.found.refused[f"robot_description: {error}"] += 1


def _stamp(message: Any) -> int:
    """ns; 0 where the header has none."""
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
