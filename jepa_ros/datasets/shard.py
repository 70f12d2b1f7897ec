"""One bag becomes one shard, a directory that appears whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jepa_ros.bags.source import KINDS, PACKED, Source, open_source
from jepa_ros.datasets.actions import action_source
from jepa_ros.datasets.episodes import Episode
from jepa_ros.datasets.mapping import PLANAR, TWIST_FIELDS, BagMapping
from jepa_ros.datasets.matching import Matched, match
from jepa_ros.datasets.pictures import fill
from jepa_ros.datasets.positions import TOOL, Places
from jepa_ros.datasets.segments import Segment, segments
from jepa_ros.datasets.signals import Collector, Signals
from jepa_ros.datasets.store import ARRAYS, SHARD, URDF, EpisodeEntry, Layout, ShardInfo, write_json
from jepa_ros.errors import InputError
from jepa_ros.robot.config import RobotConfig, load_robot
from jepa_ros.robot.motion.action_space import PlanarVelocity
from jepa_ros.robot.motion.kinematics import Kinematics

HASHED = 1 << 16
"""Bytes at both ends of each file that a bag is known again by, beside names and sizes."""


@dataclass(frozen=True)
class BuildOptions:
    """All that decides what a bag becomes. rate: Hz; size: pixels; least: ticks of an episode."""

    mapping: BagMapping
    rate: float
    size: int
    thin: bool = False
    least: int = 1

    @property
    def period(self) -> float:
        """s of a control tick."""
        return 1.0 / self.rate


def fingerprint(bag: Path) -> str:
    """What a bag is known again by, without reading all of it. Raises InputError where there is none."""
    if not bag.exists():
        raise InputError(f"bag {bag}: expected a rosbag2 directory or file, found nothing there")
    digest = hashlib.sha256()
    for path in sorted(p for p in bag.iterdir() if p.suffix in (*KINDS, *PACKED)) if bag.is_dir() else [bag]:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(HASHED))
            file.seek(max(size - HASHED, 0))
            digest.update(file.read(HASHED))
    return digest.hexdigest()[:16]


def build_shard(
    bag: Path, target: Path, options: BuildOptions, workers: int, progress: Callable[[str, int, int], None]
) -> ShardInfo:
    """Make the directory `target` from a bag. progress: what is being done, how much of it is, and the whole.

    Raises InputError where the bag lacks what is needed, or not one episode is left.
    """
    with open_source(bag) as source:
        return _build(source, target, options, workers, progress)


def _build(
    source: Source, target: Path, options: BuildOptions, workers: int, progress: Callable[[str, int, int], None]
) -> ShardInfo:
    bag, mapping = source.path, options.mapping
    robot = load_robot(mapping.robot) if mapping.robot else None
    collector = Collector(source, mapping, robot.base_frame if robot and mapping.objects else "")
    total = sum(collector.made.topics[topic][1] for topic in collector.handlers)
    signals = collector.read(lambda n: progress("reading", n, total))
    problems = tuple(dict.fromkeys(source.problems))  # the second look at the pictures finds the same
    arm = _arm(bag, robot, signals, options)
    found, arrays = _episodes(signals, options, arm)
    rows = len(arrays["stamps"])
    if not rows:
        raise InputError(f"bag {bag}: expected an episode of {options.least} ticks, found none ({_reasons(signals)})")
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    shape = (rows, len(mapping.views), options.size, options.size, 3)
    frames = np.lib.format.open_memmap(partial / "frames.npy", mode="w+", dtype=np.uint8, shape=shape)
    whole = fill(
        frames,
        source,
        [(topic, signals.topics[topic][0]) for topic in signals.image_topics],
        mapping.views,
        arrays["pictures"],
        workers,
        signals.dropped,
        lambda n: progress("decoding", n, rows),
    )
    frames.flush()
    entries = _without_broken(found, whole, options.least, signals.dropped)
    if not entries:
        raise InputError(f"bag {bag}: expected an episode of {options.least} ticks, found none ({_reasons(signals)})")
    for name, values in arrays.items():
        np.save(partial / f"{name}.npy", np.ascontiguousarray(values, ARRAYS[name]))
    if signals.urdf is not None:
        (partial / URDF).write_text(signals.urdf, encoding="utf-8")
    if source.unreadable:
        signals.dropped["messages that cannot be unpacked"] += source.unreadable
    info = ShardInfo(
        bag=str(bag),
        fingerprint=fingerprint(bag),
        rows=rows,
        seen=sum(len(view.stamps) for view in signals.views),
        topics=signals.topics,
        episodes=tuple(entries),
        dropped=dict(sorted(signals.dropped.items())),
        problems=problems,
        camera=signals.camera,
        layout=layout(signals, options, arrays["actions"].shape[1]),
    )
    write_json(partial / SHARD, info)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
    return info


def layout(signals: Signals, options: BuildOptions, actions: int) -> Layout:
    """What the shard's episodes have in common with those of other bags."""
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
    """The robot of a mapping on the bag's description. columns: its joints among those of the joint states. executed:
    the action of its own space from positions of the joints of actions; None where actions are not in that space."""

    places: Places
    columns: list[int]
    executed: Callable[[np.ndarray, np.ndarray], np.ndarray] | None


def _arm(bag: Path, robot: RobotConfig | None, signals: Signals, options: BuildOptions) -> Arm | None:
    """None where the mapping names no robot. Raises InputError where the bag does not describe it, or lacks joints."""
    m = options.mapping
    if robot is None:
        return None
    if signals.urdf is None:
        raise InputError(f"bag {bag}: expected the topic robot_description, found {', '.join(signals.topics)}")
    kinematics = Kinematics(signals.urdf, robot.joints, robot.tool_frame, robot.base_frame)
    places = Places(kinematics, robot.base_frame, m.objects)
    columns = _columns(robot, m.joint_states.joints)
    if getattr(m.actions, "space", "") != PLANAR or m.actions.source == "velocity":
        return Arm(places, columns, None)
    space = PlanarVelocity(robot, kinematics, options.period)
    moved = _columns(robot, getattr(m.actions, "joints", ()) or m.joint_states.joints)
    return Arm(places, columns, lambda start, end: space.executed(start[moved], end[moved]))


def _columns(robot: RobotConfig, names: tuple[str, ...]) -> list[int]:
    if missing := [joint for joint in robot.joints if joint not in names]:
        raise InputError(f"mapping: expected the joints of the robot {robot.name}, found {missing} missing")
    return [names.index(joint) for joint in robot.joints]


def _episodes(signals: Signals, options: BuildOptions, arm: Arm | None):
    """Entries of the episodes, rows counted on, and the small arrays of all rows."""
    m, period, entries, parts = options.mapping, options.period, [], []
    joints, rows = len(m.joint_states.joints), 0
    for segment in segments(signals, signals.dropped):
        source = action_source(segment, signals, m, period, arm and arm.executed)
        settings = {"thin": options.thin, "least": options.least}
        for made in match(segment, source, period, joints, signals.dropped, **settings):
            entry = {"number": segment.number, "split": segment.split, "task": segment.task}
            part = _rows(made, segment, arm)
            entries.append(EpisodeEntry(start=rows, frames=len(made.at), stamp=int(part["stamps"][0]), **entry))
            parts.append(part)
            rows += len(made.at)
    empty = {name: np.empty((0, 1)) for name in ARRAYS if name != "frames"}
    arrays = {name: np.concatenate([p[name] for p in parts]) for name in empty} if parts else empty
    return entries, arrays


def _rows(made: Matched, segment: Segment, arm: Arm | None) -> dict[str, np.ndarray]:
    first = segment.views[0]
    positions = np.empty((len(made.at), 0, 3))
    if arm is not None:
        blank = Episode(np.empty(0), made.states, made.actions, np.empty(0), segment.split)
        seen = {n: list(zip(t.times, t.values, strict=True)) for n, t in segment.objects.items()}
        placed = arm.places.place(blank, made.at, made.states[:, arm.columns], seen).positions
        positions = np.stack([placed[name] for name in (TOOL, *arm.places.objects)], axis=1)
    numbers = [[view.values[i] for i in made.pictures[:, k]] for k, view in enumerate(segment.views)]
    return {
        "states": made.states,
        "actions": np.vstack([made.actions, made.actions[-1:]]),
        "positions": positions,
        "stamps": first.stamps[made.pictures[:, 0]],
        "pictures": np.array(numbers, np.int64).T,
    }


def _without_broken(entries: list[EpisodeEntry], whole: np.ndarray, least: int, dropped: Counter) -> list[EpisodeEntry]:
    """The episodes cut where a picture could not be decoded."""
    kept = []
    for entry in entries:
        good = whole[entry.start : entry.start + entry.frames].astype(int)
        for low, high in np.flatnonzero(np.diff(np.concatenate([[0], good, [0]]))).reshape(-1, 2):
            if high - low > least:
                kept.append(entry.model_copy(update={"start": entry.start + int(low), "frames": int(high - low)}))
            else:
                dropped["frames of stretches that are too short"] += int(high - low)
    return kept


def _reasons(signals: Signals) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(signals.dropped.items())) or "nothing dropped"
    return f"{reasons}; topics: " + ", ".join(f"{t} ({kind}, {n})" for t, (kind, n) in signals.topics.items())
