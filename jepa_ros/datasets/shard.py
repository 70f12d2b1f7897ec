"""Building one shard: the directory that one bag becomes, which appears whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jepa_ros.bags.reader import COMPRESSED_SUFFIXES, RECORDING_SUFFIXES, Bag, open_bag
from jepa_ros.datasets.actions import action_source
from jepa_ros.datasets.image_decoding import decode_images
from jepa_ros.datasets.mapping import PLANAR, TOOL, TWIST_FIELDS, BagMapping
from jepa_ros.datasets.matching import Matched, match
from jepa_ros.datasets.positions import PositionSampler
from jepa_ros.datasets.segments import Segment, split_into_segments
from jepa_ros.datasets.signals import SignalReader, Signals
from jepa_ros.datasets.store import ARRAYS, SHARD, URDF, EpisodeEntry, Layout, ShardInfo, write_json
from jepa_ros.errors import InputError
from jepa_ros.images import ImageError
from jepa_ros.robot.config import RobotConfig, load_robot
from jepa_ros.robot.motion.action_space import PlanarVelocity
from jepa_ros.robot.motion.kinematics import Kinematics

HASHED_BYTES = 1 << 16  # bytes at both ends of each file that go into a bag's fingerprint, beside names and sizes

Progress = Callable[[str, int, int], None]
"""Called with the present step, how much of it is done, and the whole."""


@dataclass(frozen=True)
class BuildOptions:
    """All settings that decide what a bag becomes. rate: Hz. size: pixels. thin: thin idle spans out. min_ticks: of an
    episode."""

    mapping: BagMapping
    rate: float
    size: int
    thin: bool = False
    min_ticks: int = 1

    @property
    def period(self) -> float:
        """s of a control tick."""
        return 1.0 / self.rate


def fingerprint(bag: Path) -> str:
    """Return a hash that identifies a bag without reading all of it. Raises InputError where there is none."""
    if not bag.exists():
        raise InputError(f"bag {bag}: expected a rosbag2 directory or file, found nothing there")
    digest, suffixes = hashlib.sha256(), (*RECORDING_SUFFIXES, *COMPRESSED_SUFFIXES)
    for path in sorted(p for p in bag.iterdir() if p.suffix in suffixes) if bag.is_dir() else [bag]:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(HASHED_BYTES))
            file.seek(max(size - HASHED_BYTES, 0))
            digest.update(file.read(HASHED_BYTES))
    return digest.hexdigest()[:16]


def build_shard(path: Path, target: Path, options: BuildOptions, workers: int, progress: Progress) -> ShardInfo:
    """Make the directory `target` from the bag at `path`.

    Raises InputError where the bag lacks a topic that is needed, or no episode is left.
    """
    with open_bag(path) as bag:
        robot = load_robot(options.mapping.robot) if options.mapping.robot else None
        reader = SignalReader(bag, options.mapping, robot.base_frame if robot and options.mapping.objects else "")
        signals = reader.read(lambda n: progress("reading", n, reader.count))
        problems = tuple(dict.fromkeys(bag.problems))  # decoding meets the same ones again
        found, arrays = _episodes(signals, options, _arm(path, robot, signals, options))
        if not found:
            raise _no_episode(bag, signals, options)
        partial = target.with_name(f"{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        whole = _write_frames(partial / "frames.npy", bag, signals, options, arrays["pictures"], workers, progress)
        entries = _without_undecodable(found, whole, options.min_ticks, signals.dropped)
        if not entries:
            raise _no_episode(bag, signals, options)
        for name, values in arrays.items():
            np.save(partial / f"{name}.npy", np.ascontiguousarray(values, ARRAYS[name]))
        if signals.urdf is not None:
            (partial / URDF).write_text(signals.urdf, encoding="utf-8")
        if bag.undecompressed:
            signals.dropped["messages that cannot be decompressed"] += bag.undecompressed
        info = ShardInfo(
            bag=str(path),
            fingerprint=fingerprint(path),
            rows=len(whole),
            seen=sum(len(view.stamps) for view in signals.views),
            topics=signals.topics,
            episodes=tuple(entries),
            dropped=dict(sorted(signals.dropped.items())),
            problems=problems,
            camera=signals.camera,
            layout=_layout(signals, options, arrays["actions"].shape[1]),
        )
        write_json(partial / SHARD, info)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)
        return info


def _no_episode(bag: Bag, signals: Signals, options: BuildOptions) -> InputError:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(signals.dropped.items())) or "nothing dropped"
    wanted = f"an episode of {options.min_ticks} ticks"
    return InputError(f"bag {bag.path}: expected {wanted}, found none ({reasons}; topics: {bag.list_topics()})")


def _write_frames(
    file: Path, bag: Bag, signals: Signals, options: BuildOptions, images: np.ndarray, workers: int, progress: Progress
) -> np.ndarray:
    """Decode the images (N, views) into frames.npy and return which rows (N,) are whole."""
    rows, views = images.shape
    shape = (rows, views, options.size, options.size, 3)
    frames = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    topics = [(topic, signals.topics[topic][0]) for topic in signals.image_topics]
    whole, done = np.ones(rows, bool), 0
    for own, view, topic, image in decode_images(bag, topics, options.mapping.views, images, options.size, workers):
        if isinstance(image, ImageError):
            signals.dropped[f"{topic}: undecodable images ({image.cause})"] += 1
            whole[own] = False
        else:
            frames[own, view] = image
        done += len(own)
        progress("decoding", done // views, rows)
    frames.flush()
    return whole


def _layout(signals: Signals, options: BuildOptions, actions: int) -> Layout:
    """Return what the episodes of all shards of a dataset must have in common. actions: values of an action."""
    m = options.mapping
    space = signals.action_space if m.actions.source == "executed" else m.actions.space
    names = [f"action.{k}" for k in range(actions)]
    if space == PLANAR:
        names = ["vx", "vy"][:actions] + names[2:]
    elif m.actions.source == "velocity":
        names = [f if f in TWIST_FIELDS else f"command.{f}" for f in m.actions.fields]
    elif m.actions.source in ("trajectory", "joint_velocity", "states"):
        names = [f"{j}.vel" for j in (getattr(m.actions, "joints", ()) or m.joint_states.joints)]
    return Layout(
        rate=options.rate,
        size=options.size,
        views=tuple(topic.removesuffix("/compressed") for topic in signals.image_topics),
        joints=m.joint_states.joints,
        gripper=m.joint_states.gripper,
        action_space=space,
        action_source=m.actions.source,
        action_names=tuple(names),
        action_scale=getattr(m.actions, "scale", 1.0),
        positions=() if m.robot is None else (TOOL, *m.objects),
        robot=m.robot,
    )


@dataclass(frozen=True)
class Arm:
    """The robot of a mapping with the bag's description.

    columns: its joints among those of the joint states. executed: returns the action of the robot's space from joint
    positions at a tick's start and end; None where the actions are not in that space.
    """

    positions: PositionSampler
    columns: list[int]
    executed: Callable[[np.ndarray, np.ndarray], np.ndarray] | None


def _arm(bag: Path, robot: RobotConfig | None, signals: Signals, options: BuildOptions) -> Arm | None:
    """Return the robot; None where the mapping names none. Raises InputError where the bag lacks its URDF or joints."""
    m = options.mapping
    if robot is None:
        return None
    if signals.urdf is None:
        raise InputError(f"bag {bag}: expected the topic robot_description, found {', '.join(signals.topics)}")
    kinematics = Kinematics(signals.urdf, robot.joints, robot.tool_frame, robot.base_frame)
    positions = PositionSampler(kinematics, robot.base_frame, m.objects)
    columns = _columns(robot, m.joint_states.joints)
    if getattr(m.actions, "space", "") != PLANAR or m.actions.source == "velocity":
        return Arm(positions, columns, None)
    space = PlanarVelocity(robot, kinematics, options.period)
    moved = _columns(robot, getattr(m.actions, "joints", ()) or m.joint_states.joints)
    return Arm(positions, columns, lambda start, end: space.executed(start[moved], end[moved]))


def _columns(robot: RobotConfig, names: tuple[str, ...]) -> list[int]:
    if missing := [joint for joint in robot.joints if joint not in names]:
        raise InputError(f"mapping: expected the joints of the robot {robot.name}, found {missing} missing")
    return [names.index(joint) for joint in robot.joints]


def _episodes(
    signals: Signals, options: BuildOptions, arm: Arm | None
) -> tuple[list[EpisodeEntry], dict[str, np.ndarray]]:
    """Return the entries of the episodes, and the arrays of all rows except the frames."""
    mapping, period, entries, parts = options.mapping, options.period, [], []
    joints, rows = len(mapping.joint_states.joints), 0
    for segment in split_into_segments(signals, signals.dropped):
        source = action_source(segment, signals, mapping, period, arm and arm.executed)
        settings = {"thin": options.thin, "min_ticks": options.min_ticks}
        for matched in match(segment, source, period, joints, signals.dropped, **settings):
            frames, stamp = len(matched.at), int(matched.stamps[0])
            about = {"number": segment.number, "split": segment.split, "task": segment.task}
            entries.append(EpisodeEntry(start=rows, frames=frames, stamp=stamp, **about))
            parts.append(_rows(matched, segment, arm))
            rows += frames
    return entries, {name: np.concatenate([p[name] for p in parts]) for name in parts[0]} if parts else {}


def _rows(matched: Matched, segment: Segment, arm: Arm | None) -> dict[str, np.ndarray]:
    positions = np.empty((len(matched.at), 0, 3))
    if arm is not None:
        named = arm.positions.sample(matched.at, matched.states[:, arm.columns], segment.objects)
        positions = np.stack([named[name] for name in (TOOL, *arm.positions.objects)], axis=1)
    return {
        "states": matched.states,
        "actions": np.vstack([matched.actions, matched.actions[-1:]]),
        "positions": positions,
        "stamps": matched.stamps,
        "pictures": matched.images,
    }


def _without_undecodable(
    entries: list[EpisodeEntry], whole: np.ndarray, min_ticks: int, dropped: Counter
) -> list[EpisodeEntry]:
    """Return the episodes, cut where an image could not be decoded."""
    kept = []
    for entry in entries:
        good = whole[entry.start : entry.start + entry.frames].astype(int)
        for low, high in np.flatnonzero(np.diff(np.concatenate([[0], good, [0]]))).reshape(-1, 2):
            if high - low > min_ticks:
                kept.append(entry.model_copy(update={"start": entry.start + int(low), "frames": int(high - low)}))
            else:
                dropped["frames of runs that are too short"] += int(high - low)
    return kept
