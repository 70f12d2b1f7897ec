"""`jepa_ros data build`: from bags of any robot to a dataset of episodes with decoded images.

Each bag becomes one directory (shard), which appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from jepa_ros.bags.reader import COMPRESSED_SUFFIXES, RECORDING_SUFFIXES, Bag, open_bag
from jepa_ros.datasets.mapping import (
    TOOL,
    TWIST_FIELDS,
    BagMapping,
    default_mapping,
    parse_objects,
    read_mapping,
)
from jepa_ros.datasets.matching import (
    Executed,
    Matched,
    PositionSampler,
    Segment,
    action_source,
    match,
    split_into_segments,
)
from jepa_ros.datasets.signals import SignalReader, Signals, decode_images
from jepa_ros.datasets.store import (
    ARRAYS,
    INDEX,
    SHARD,
    SPLITS,
    URDF,
    Dataset,
    EpisodeEntry,
    Index,
    IndexedEpisode,
    Layout,
    ShardInfo,
    choose_split,
    read_shard,
    write_json,
)
from jepa_ros.errors import InputError
from jepa_ros.images import ImageError
from jepa_ros.reporting.output import after_summary, prepare_out
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.result import print_result, print_table
from jepa_ros.reporting.summary import write_summary
from jepa_ros.robot.config import VELOCITY_SPACES, RobotConfig, load_robot
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.velocity_space import VALUES, make_velocity_space
from jepa_ros.text_files import write_atomically

HASHED_BYTES = 1 << 16  # bytes hashed at each end of a file for the fingerprint

Progress = Callable[[str, int, int], None]  # called with the present step, how much of it is done, and the whole
SPLIT_BY_BAG_FROM = 3
"""Number of bags from which on those without a split of their own are split by bag instead of by episode."""


@dataclass(frozen=True)
class BuildOptions:
    """Settings of a build. rate: Hz. size: pixels. thin: thin out idle spans. min_ticks: shortest episode."""

    mapping: BagMapping
    rate: float
    size: int
    thin: bool = False
    min_ticks: int = 1

    @property
    def period(self) -> float:
        """Control period in s."""
        return 1.0 / self.rate


def fingerprint(bag: Path) -> str:
    """Return a hash of the names, sizes and ends of a bag's files. Raises InputError if there is no bag."""
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
        problems = tuple(dict.fromkeys(bag.problems))  # decoding reports the same ones again
        entries, arrays = _episodes(signals, options, _arm(path, robot, signals, options))
        partial = target.with_name(f"{target.name}.partial")
        if entries:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            whole = _write_frames(partial / "frames.npy", bag, signals, options, arrays["pictures"], workers, progress)
            entries = _cut_at_undecodable(entries, whole, options.min_ticks, signals.dropped)
        if not entries:
            reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(signals.dropped.items())) or "nothing dropped"
            wanted, found = f"an episode of {options.min_ticks} ticks", f"{reasons}; topics: {bag.list_topics()}"
            raise InputError(f"bag {path}: expected {wanted}, found none ({found})")
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


def _write_frames(
    file: Path, bag: Bag, signals: Signals, options: BuildOptions, images: np.ndarray, workers: int, progress: Progress
) -> np.ndarray:
    """Decode the images (N, views) into frames.npy; return a mask (N,) of the rows whose images were all decodable."""
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
    """Return the layout, which must be the same in all shards. actions: number of values of an action."""
    m = options.mapping
    space = signals.action_space if m.actions.source == "executed" else m.actions.space
    names = [f"action.{k}" for k in range(actions)]
    if space in VELOCITY_SPACES:
        known = [name for name, _ in VALUES][: 2 if space == "planar_velocity" else len(VALUES)][:actions]
        names = known + names[len(known) :]
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
    executed: Executed | None


def _arm(bag: Path, robot: RobotConfig | None, signals: Signals, options: BuildOptions) -> Arm | None:
    """Return the robot; None where the mapping names none. Raises InputError where the bag lacks its URDF or joints."""
    if robot is None:
        return None
    if signals.urdf is None:
        raise InputError(f"bag {bag}: expected the topic robot_description, found {', '.join(signals.topics)}")
    m = options.mapping
    kinematics = Kinematics(signals.urdf, robot.joints, robot.tool_frame, robot.base_frame)
    columns, executed = _columns(robot, m.joint_states.joints), None
    if m.derived_space:
        space = make_velocity_space(robot, kinematics, options.period)
        if space.name != m.derived_space:
            raise InputError(
                f"mapping: actions: expected the action space {m.derived_space}, found {space.name} on {robot.name}"
            )
        moved = _columns(robot, getattr(m.actions, "joints", ()) or m.joint_states.joints)

        def executed(start: np.ndarray, end: np.ndarray) -> np.ndarray:
            return space.executed(start[moved], end[moved])

    return Arm(PositionSampler(kinematics, robot.base_frame, m.objects), columns, executed)


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
        thin, shortest = options.thin, options.min_ticks
        for matched in match(segment, source, period, joints, signals.dropped, thin=thin, min_ticks=shortest):
            place = {"start": rows, "frames": len(matched.at), "stamp": int(matched.stamps[0])}
            about = {"number": segment.number, "split": segment.split, "task": segment.task}
            entries.append(EpisodeEntry(**place, **about))
            parts.append(_rows(matched, segment, arm))
            rows += len(matched.at)
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


def _cut_at_undecodable(
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


def write_report(out: Path, index: Index, summary: dict) -> None:
    """Write report.html of the dataset in `out`."""
    from jepa_ros.reporting import plots
    from jepa_ros.reporting.report import Report

    data = Dataset(out)
    report = Report("Training data", f"{len(index.bags)} bags at {index.layout.rate:g} Hz, {index.layout.size} px")
    tiles = {name: sum(summary[name].values()) for name in ("episodes", "frames")}
    actions = f"{index.layout.action_space}, {len(index.layout.action_names)} values"
    report.tiles(tiles | {"images in the bags": summary["pictures"], "actions": actions})
    rows = [(b["bag"], b["episodes"], b["frames"], sum(b["dropped"].values())) for b in summary["bags"]]
    report.section("Bags").table(rows, ["bag", "episodes", "frames", "dropped"])
    if summary["dropped"]:
        report.section("Dropped").table([(n, why) for why, n in summary["dropped"].items()], ["number", "why"])
    fig, axes = plots.figure()
    axes.hist([e.frames / index.layout.rate for e in index.episodes], bins=40)
    axes.set(title="Episode length", xlabel="s", ylabel="episodes")
    report.section("Episodes").plot(fig)
    shown = index.episodes[:: max(1, len(index.episodes) // 8)][:8]
    images = [(f"episode {e.number}, {e.split}", list(np.array(data.rows(e, "frames")[0]))) for e in shown]
    report.section("Frames as the model sees them").images(images)
    report.write(out / "report.html")


def build_dataset(
    *,
    bags: Sequence[Path],
    out: Path,
    mapping: Path | None = None,
    robot: str = "openarm",
    camera: Sequence[str] = (),
    objects: Sequence[str] = (),
    rate: float = 10.0,
    size: int = 64,
    thin_still: bool = False,
    min_ticks: int = 1,
    workers: int = 2,
) -> int:
    """Build a dataset and show progress; a second call with the same options continues where the first one ended.

    Writes `out`/dataset.json, shards, summary.json and report.html. Returns 2 where a bag could not be read completely;
    what could be read is in the dataset. Raises InputError where nothing could be.
    """
    started, out = time.time(), Path(out)
    options = _options(mapping, robot, camera, objects, rate, size, thin_still, min_ticks)
    sources = _name_shards([Path(bag) for bag in bags])
    _expect_same_options(out, options)
    shards, problems, decoded, decoding_s = {}, [], 0, 0.0
    with ProgressDisplay() as bar:
        task = bar.add("bags", len(sources))

        def note(step: str, count: int, total: int, bag: Path, done: int) -> None:
            bar.update(task, done, f"{bag.name}: {step} {count} of {total}")

        for done, (bag, name) in enumerate(sources):
            target = out / "shards" / name
            try:
                if not (target / SHARD).is_file():
                    begin = time.time()
                    info = build_shard(bag, target, options, workers, partial(note, bag=bag, done=done))
                    decoded, decoding_s = decoded + info.seen, decoding_s + time.time() - begin
                shards[name] = read_shard(target)
                problems += list(shards[name].problems)
            except InputError as error:
                shutil.rmtree(target.with_name(f"{name}.partial"), ignore_errors=True)
                problems.append(str(error))
            bar.update(task, done + 1)
    if not shards:
        _remove_traces(out)
        raise InputError(problems[0] if len(problems) == 1 else "; ".join(problems))
    index = _index(shards)
    write_json(out / INDEX, index)
    wall = {"wall_s": time.time() - started, "workers": workers}
    wall["frames_per_s"] = decoded / decoding_s if decoded else 0.0
    summary = summarise(index, shards, problems, options) | wall
    write_summary(out / "summary.json", summary)
    with after_summary(out / "summary.json"):
        write_report(out, index, summary)
    _print(out, summary)
    for problem in problems:
        print(f"jepa_ros: {problem}", file=sys.stderr)
    return 2 if problems else 0


def _options(mapping, robot, camera, objects, rate, size, thin_still, min_ticks) -> BuildOptions:
    if rate <= 0 or not np.isfinite(rate):
        raise InputError(f"rate: expected Hz above 0, found {rate:g}")
    if mapping is None:
        known = load_robot(robot)
        chosen = default_mapping((known.joints, known.gripper), camera, parse_objects(objects), known.name)
    elif camera or objects:
        raise InputError("camera, object: not valid with --mapping, whose file names the topics")
    else:
        chosen = read_mapping(Path(mapping))
    return BuildOptions(chosen, rate, size, thin_still, min_ticks)


def _name_shards(bags: Sequence[Path]) -> list[tuple[Path, str]]:
    """Return each bag with the name of its shard: the bag's name and fingerprint."""
    if not bags:
        raise InputError("bags: expected one at least, found none")
    sources: dict[str, Path] = {}
    for bag in bags:
        try:
            mark = fingerprint(bag)
        except InputError:
            mark = "unreadable"  # reported when it is read
        name = re.sub(r"[^\w.-]+", "_", bag.resolve().name) + f"-{mark}"
        if name in sources and mark != "unreadable":
            raise InputError(f"bags: expected different ones, found {sources[name]} and {bag} with the same content")
        sources[name if mark != "unreadable" else f"{name}-{len(sources)}"] = bag
    return [(bag, name) for name, bag in sources.items()]


def _expect_same_options(out: Path, options: BuildOptions) -> None:
    """Note the options in `out`. Raises InputError where it holds a dataset with other options, or something else."""
    wanted = {
        "mapping": options.mapping.model_dump(mode="json"),
        "rate": options.rate,
        "size": options.size,
        "thin_still": options.thin,
        "min_ticks": options.min_ticks,
    }
    path = out / "options.json"
    prepare_out(out)
    if not path.exists():
        if out.is_dir() and any(out.iterdir()):
            raise InputError(f"--out {out}: expected a new or empty directory or an unfinished dataset, found another")
        write_atomically(path, json.dumps(wanted, indent=1) + "\n")
        return
    try:
        found = json.loads(path.read_text())
        differ = sorted(key for key in wanted if wanted[key] != found.get(key))
    except (ValueError, AttributeError):
        raise InputError(f"dataset {path}: expected options in JSON, found something else") from None
    if differ:
        raise InputError(f"--out {out}: expected the options of the dataset that is there, found other {differ}")


def _remove_traces(out: Path) -> None:
    """Remove the files of a build without a result, so that the next one may have other options."""
    (out / "options.json").unlink(missing_ok=True)
    for folder in (out / "shards", out):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _index(shards: dict[str, ShardInfo]) -> Index:
    """Return the index of all shards. Raises InputError where their layouts differ."""
    first = next(iter(shards.values()))
    for info, name in itertools.product(shards.values(), Layout.model_fields):
        wanted, found = getattr(first.layout, name), getattr(info.layout, name)
        same_count = name == "views" and len(wanted) == len(found)  # the same views may be on topics of other names
        if wanted != found and not same_count:
            raise InputError(f"bag {info.bag}: expected the {name} of {first.bag}, {wanted}, found {found}")
    by = "marker"
    if any(not e.split for info in shards.values() for e in info.episodes):
        by = "bag" if len(shards) >= SPLIT_BY_BAG_FROM else "episode"
    count = len(shards) if by == "bag" else sum(len(info.episodes) for info in shards.values())
    episodes, number = [], 0
    for shard, info in enumerate(shards.values()):
        for entry in info.episodes:
            split = entry.split if by == "marker" else choose_split(shard if by == "bag" else number, count)
            episodes.append(IndexedEpisode(**entry.model_dump() | {"shard": shard, "split": entry.split or split}))
            number += 1
    camera = next((info.camera for info in shards.values() if info.camera is not None), None)
    return Index(
        layout=first.layout,
        shards=tuple(f"shards/{name}" for name in shards),
        bags=tuple(info.bag for info in shards.values()),
        split_by=by,
        camera=camera,
        episodes=tuple(episodes),
    )


def summarise(index: Index, shards: dict[str, ShardInfo], problems: Sequence[str], options: BuildOptions) -> dict:
    """Return the numbers of a dataset; `dropped` is by reason, in total and by bag."""
    dropped: Counter = Counter()
    for info in shards.values():
        dropped.update(info.dropped)
    kept = {s: [e for e in index.episodes if e.split == s] for s in SPLITS}
    return {
        "rate": options.rate,
        "size": options.size,
        "views": list(index.layout.views),
        "action_space": index.layout.action_space,
        "split_by": index.split_by,
        "episodes": {split: len(entries) for split, entries in kept.items()},
        "frames": {split: sum(e.frames for e in entries) for split, entries in kept.items()},
        "pictures": sum(info.seen for info in shards.values()),
        "dropped": dict(sorted(dropped.items())),
        "problems": list(problems),
        "bags": [
            {
                "bag": Path(info.bag).name,
                "episodes": len(info.episodes),
                "frames": sum(e.frames for e in info.episodes),
                "pictures": info.seen,
                "dropped": info.dropped,
                "problems": list(info.problems),
            }
            for info in shards.values()
        ],
    }


def _print(out: Path, summary: dict) -> None:
    rows = []
    for bag in summary["bags"]:
        reasons = [*((n, why) for why, n in bag["dropped"].items()), *(("", problem) for problem in bag["problems"])]
        for number, (count, why) in enumerate(reasons or [("", "nothing dropped")]):
            head = (bag["bag"], bag["episodes"], bag["frames"]) if number == 0 else ("", "", "")
            rows.append((*head, count, why))
    print_table(("bag", "episodes", "frames", "dropped", "why"), rows)
    frames = summary["frames"]
    counts = [(f"{split} episodes", f"{n} ({frames[split]} frames)") for split, n in summary["episodes"].items()]
    print_result(f"dataset {out}", counts, [out / INDEX, out / "summary.json", out / "report.html"])
