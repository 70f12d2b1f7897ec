"""A bag that has been read for a model: numbers, latents, and counts of what was wrong."""

from __future__ import annotations

import math
import tempfile
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from jepa_ros.bags.reader import Bag
from jepa_ros.errors import InputError
from jepa_ros.evaluation.bag.reading.topics import BagTopics
from jepa_ros.planning.receding_horizon import PlanningSettings
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.config import ModelConfig

MAX_STAMP_LAG_NS = 500_000_000
"""How far a stamp may lie behind the newest one; further back, time has jumped. The live camera node's `max_age`."""
STRAGGLER_NS = 1_000_000_000
"""Recording time after a jump within which messages from before the jump may still arrive."""
MAX_MEMORY_BYTES = 64 * 2**20
"""Bytes of latents kept in memory; more go to a temporary file."""


@dataclass(frozen=True)
class EvaluationSpec:
    """What is evaluated and how. planning: settings of the planner. horizon: model steps that are predicted and
    planned. plan_states: states of each bag that are planned from."""

    checkpoint: Checkpoint
    robot: RobotConfig
    planning: PlanningSettings | None = None
    horizon: int = 1
    plan_states: int = 0
    seed: int = 0

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return self.checkpoint.config


@dataclass
class Series:
    """Rows in the order of arrival, possibly millions: stamps in ns, epochs, and the values (V,) of all rows."""

    stamps: array = field(default_factory=lambda: array("q"))
    epochs: array = field(default_factory=lambda: array("i"))
    values: array = field(default_factory=lambda: array("d"))

    def add(self, stamp: int, epoch: int, values: np.ndarray) -> None:
        """Append a row."""
        self.stamps.append(stamp)
        self.epochs.append(epoch)
        self.values.extend(values.tolist())


@dataclass
class CameraMessages:
    """Messages of one camera. stamps: ns of every message. dropped: images by cause. without_stamp: number of
    headers with stamp 0. problem: error of the first undecodable image."""

    stamps: list[int] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    frame_id: str = ""
    without_stamp: int = 0
    problem: str = ""


class EpochClock:
    """Assigns stamps to epochs: a new one starts with each jump back in time. jumps: (stamp before, stamp after) in ns.
    stragglers: number of messages from before a jump that arrived after it; they belong to no epoch."""

    def __init__(self) -> None:
        self.epoch = 0
        self.jumps: list[tuple[int, int]] = []
        self.stragglers = 0
        self._newest: int | None = None
        self._jumped_at = 0

    def assign(self, stamp: int, recorded: int) -> int | None:
        """Return the epoch of the next message's stamp, None for a straggler. stamp, recorded: ns."""
        if self._newest is None:
            self._newest = stamp
        just_jumped = self.jumps and recorded - self._jumped_at < STRAGGLER_NS
        if just_jumped and stamp >= self.jumps[-1][0] - MAX_STAMP_LAG_NS > self._newest:
            self.stragglers += 1
            return None
        if stamp < self._newest - MAX_STAMP_LAG_NS:
            self.jumps.append((self._newest, stamp))
            self.epoch, self._jumped_at, self._newest = self.epoch + 1, recorded, stamp
        self._newest = max(self._newest, stamp)
        return self.epoch


class LatentStore:
    """Latents (n, *L) float32 by row."""

    def __init__(self, shape: tuple[int, ...], max_bytes: int = MAX_MEMORY_BYTES):
        self._shape, self._width, self._limit = shape, math.prod(shape), max_bytes
        self._parts: list[np.ndarray] = []
        self._file = None
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def add(self, latents: np.ndarray) -> None:
        """Append (b, *L)."""
        self._parts.append(np.array(latents, np.float32).reshape(len(latents), self._width))
        self._rows += len(latents)
        if self._file is None and 4 * self._rows * self._width > self._limit:
            self._file = tempfile.TemporaryFile()
        if self._file is not None:
            for part in self._parts:
                part.tofile(self._file)
            self._parts = []

    def rows(self, index: np.ndarray) -> torch.Tensor:
        """Return the latents (*index, *L) of rows `index`, integers of any shape."""
        index = np.asarray(index)
        if self._file is not None and self._rows:
            self._file.flush()
            whole = np.memmap(self._file, np.float32, "r", shape=(self._rows, self._width))
        else:
            self._parts = [np.concatenate(self._parts)] if self._parts else [np.zeros((0, self._width), np.float32)]
            [whole] = self._parts
        return torch.from_numpy(np.array(whole[index.ravel()])).reshape(*index.shape, *self._shape)

    def close(self) -> None:
        """Free memory and disk."""
        if self._file is not None:
            self._file.close()
        self._parts = []


@dataclass
class Recording:
    """A bag as read for a model; n frames, those of the first camera that have a counterpart in every other camera.

    frame_stamps, frame_recorded: ns. training_distance (n,): see BatchEncoder. episodes: (stamp ns, epoch) of each
    start. unreadable: undecodable messages by topic. refused: joint states and actions that do not fit the model, by
    reason. turned_deg: angle by which actions were turned into the model's axes (see action_axes). unmatched: frames
    of the first camera without a counterpart in another. begin, end: ns of recording time.
    source, topics: the open bag, while it is evaluated.
    """

    path: Path
    latents: LatentStore
    urdf: str | None = None
    source: Bag | None = None
    topics: BagTopics = field(default_factory=BagTopics)
    frame_stamps: list[int] = field(default_factory=list)
    frame_recorded: list[int] = field(default_factory=list)
    frame_epochs: list[int] = field(default_factory=list)
    frozen: list[bool] = field(default_factory=list)
    training_distance: list[float] = field(default_factory=list)
    states: Series = field(default_factory=Series)
    joint_recorded: array = field(default_factory=lambda: array("q"))
    actions: Series = field(default_factory=Series)
    episodes: list[tuple[int, int]] = field(default_factory=list)
    cameras: list[CameraMessages] = field(default_factory=list)
    clock: EpochClock = field(default_factory=EpochClock)
    unreadable: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    turned_deg: float = 0.0
    unmatched: int = 0
    not_finite: int = 0
    begin: int | None = None
    end: int = 0

    @property
    def seconds(self) -> float:
        """Time from the first message to the last."""
        return 0.0 if self.begin is None else (self.end - self.begin) * 1e-9

    @property
    def first_stamp(self) -> int:
        """First stamp of a frame, state or action in ns; times in s count from it."""
        stamps = (self.frame_stamps, self.states.stamps, self.actions.stamps)
        return min((min(s) for s in stamps if s), default=0)

    @property
    def frame_times(self) -> np.ndarray:
        """(n,) s since the first stamp."""
        return (np.array(self.frame_stamps, np.int64) - self.first_stamp) * 1e-9

    def make_kinematics(self, robot: RobotConfig) -> Kinematics:
        """Return the kinematics of the recorded arm; each thread needs its own.

        Raises InputError where the recording has no robot_description, or that of another robot.
        """
        if self.urdf is None:
            raise InputError(
                f"bag {self.path}: no robot_description, so tool positions are unknown and nothing is planned; give a "
                "URDF with --description FILE"
            )
        try:
            return Kinematics(self.urdf, robot.joints, robot.tool_frame, robot.base_frame)
        except InputError as error:
            raise InputError(f"bag {self.path}: {error}") from None
