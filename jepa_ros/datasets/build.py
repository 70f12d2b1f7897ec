"""`jepa_ros data build`: bags of any robot to a cache of episodes that training reads without a decoder."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jepa_ros.datasets.mapping import own_mapping, read_mapping
from jepa_ros.datasets.positions import parse_objects
from jepa_ros.datasets.report import show, write_report
from jepa_ros.datasets.shard import BuildOptions, build_shard, fingerprint
from jepa_ros.datasets.store import (
    INDEX,
    SHARD,
    EpisodeEntry,
    Index,
    IndexedEpisode,
    Layout,
    ShardInfo,
    read_shard,
    write_json,
)
from jepa_ros.errors import InputError
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.summary import write_summary
from jepa_ros.robot.config import load_robot
from jepa_ros.text_files import write_atomically

FEW = 3
"""Bags from which on those without a split of their own are divided by bag, not by episode."""


def run(
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
    """Build, showing progress; a second call with the same options does what is not there yet.

    Writes `out`/dataset.json, shards, summary.json and report.html. Returns 2 where a bag could not be read, or not all
    of it; what could be read of the others is there. Raises InputError where nothing is left.
    """
    started, out = time.time(), Path(out)
    options = _options(mapping, robot, camera, objects, rate, size, thin_still, min_ticks)
    sources = _sources([Path(bag) for bag in bags])
    _expect_same(out, options)
    shards, problems, built, decoding = {}, [], 0, 0.0
    with ProgressDisplay() as bar:
        task = bar.add("bags", len(sources))
        for done, (bag, name) in enumerate(sources):
            target = out / "shards" / name
            try:
                if not (target / SHARD).is_file():
                    begin = time.time()
                    info = _build(bag, target, options, workers, bar, task, done)
                    built, decoding = built + info.seen, decoding + time.time() - begin
                shards[name] = read_shard(target)
                problems += list(shards[name].problems)
            except InputError as error:
                shutil.rmtree(target.with_name(f"{name}.partial"), ignore_errors=True)
                problems.append(str(error))
            bar.update(task, done + 1)
    if not shards:
        _forget(out)
        raise InputError(problems[0] if len(problems) == 1 else "; ".join(problems))
    index = _index(shards)
    write_json(out / INDEX, index)
    wall = {"wall_s": time.time() - started, "frames_per_s": built / decoding if built else 0.0, "workers": workers}
    summary = summarise(index, shards, problems, options) | wall
    write_summary(out / "summary.json", summary)
    write_report(out, index, summary)
    show(summary)
    for problem in problems:
        print(f"jepa_ros: {problem}", file=sys.stderr)
    return 2 if problems else 0


def _options(mapping, robot, camera, objects, rate, size, thin_still, min_ticks) -> BuildOptions:
    if rate <= 0 or not np.isfinite(rate):
        raise InputError(f"rate: expected Hz above 0, found {rate:g}")
    if mapping is None:
        chosen = own_mapping(load_robot(robot), camera, parse_objects(objects))
    elif camera or objects:
        raise InputError("camera, object: expected none of them with --mapping, which names the topics")
    else:
        chosen = read_mapping(Path(mapping))
    return BuildOptions(chosen, rate, size, thin_still, min_ticks)


def _sources(bags: Sequence[Path]) -> list[tuple[Path, str]]:
    """Each bag and the name of its shard: that of the bag and what it is known again by."""
    if not bags:
        raise InputError("bags: expected one at least, found none")
    sources: dict[str, Path] = {}
    for bag in bags:
        try:
            mark = fingerprint(bag)
        except InputError:
            mark = "unreadable"  # said when its turn comes
        name = re.sub(r"[^\w.-]+", "_", bag.resolve().name) + f"-{mark}"
        if name in sources and mark != "unreadable":
            raise InputError(f"bags: expected different ones, found {sources[name]} and {bag} with the same content")
        sources[name if mark != "unreadable" else f"{name}-{len(sources)}"] = bag
    return [(bag, name) for name, bag in sources.items()]


def _expect_same(out: Path, options: BuildOptions) -> None:
    """Note the options in `out`, or raise InputError where it was begun with others."""
    wanted = {
        "mapping": options.mapping.model_dump(mode="json"),
        "rate": options.rate,
        "size": options.size,
        "thin_still": options.thin,
        "min_ticks": options.least,
    }
    path = out / "options.json"
    if not path.exists():
        if out.is_file() or (out.is_dir() and any(out.iterdir())):
            raise InputError(f"out {out}: expected a new or empty directory or a dataset begun before, found another")
        write_atomically(path, json.dumps(wanted, indent=1) + "\n")
        return
    try:
        found = json.loads(path.read_text())
        differ = sorted(key for key in wanted if wanted[key] != found.get(key))
    except (ValueError, AttributeError):
        raise InputError(f"dataset {path}: expected options in JSON, found something else") from None
    if differ:
        raise InputError(f"out {out}: expected to go on with the options it was begun with, found other {differ}")


def _forget(out: Path) -> None:
    """Nothing came of it: what the next try asks for need not be the same."""
    (out / "options.json").unlink(missing_ok=True)
    for folder in (out / "shards", out):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _build(bag: Path, target: Path, options, workers: int, bar: ProgressDisplay, task, done: int) -> ShardInfo:
    def note(what: str, count: int, total: int) -> None:
        bar.update(task, done, f"{bag.name}: {what} {count} of {total}")

    target.parent.mkdir(parents=True, exist_ok=True)
    return build_shard(bag, target, options, workers, note)


def _index(shards: dict[str, ShardInfo]) -> Index:
    """The index over shards. Raises InputError where their episodes have not the same fields."""
    first = next(iter(shards.values()))
    for info in shards.values():
        _expect_alike(first, info)
    by = "marker"
    if any(not e.split for info in shards.values() for e in info.episodes):
        by = "bag" if len(shards) >= FEW else "episode"
    count = len(shards) if by == "bag" else sum(len(info.episodes) for info in shards.values())
    episodes, number = [], 0
    for shard, info in enumerate(shards.values()):
        for entry in info.episodes:
            split = entry.split if by == "marker" else split_of(shard if by == "bag" else number, count)
            episodes.append(_indexed(entry, shard, entry.split or split))
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


def _indexed(entry: EpisodeEntry, shard: int, split: str) -> IndexedEpisode:
    return IndexedEpisode(**entry.model_dump() | {"shard": shard, "split": split})


def _expect_alike(first: ShardInfo, other: ShardInfo) -> None:
    for name in Layout.model_fields:
        wanted, found = getattr(first.layout, name), getattr(other.layout, name)
        if name == "views" and len(wanted) == len(found):
            continue  # the same views may be on topics of other names
        if wanted != found:
            raise InputError(f"bag {other.bag}: expected the {name} of {first.bag}, {wanted}, found {found}")


def split_of(number: int, count: int) -> str:
    """train, val or test of the unit `number` of `count` that bring no split: a twentieth each for the last two, one at
    least where there are three units."""
    if count >= 20:
        return {7: "val", 13: "test"}.get(number % 20, "train")
    return {count - 2: "val", count - 1: "test"}.get(number, "train") if count >= 3 else "train"


def summarise(index: Index, shards: dict[str, ShardInfo], problems: Sequence[str], options: BuildOptions) -> dict:
    """The figures of a dataset; `dropped` is by reason, together and by bag."""
    dropped: Counter = Counter()
    for info in shards.values():
        dropped.update(info.dropped)
    kept = {s: [e for e in index.episodes if e.split == s] for s in ("train", "val", "test")}
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
