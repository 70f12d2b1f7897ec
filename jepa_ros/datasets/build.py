"""`jepa_ros data build`: from bags of any robot to a dataset of episodes with decoded images."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from jepa_ros.datasets.mapping import own_mapping, parse_objects, read_mapping
from jepa_ros.datasets.report import write_report
from jepa_ros.datasets.segments import SPLITS, split_of
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
from jepa_ros.reporting.output import prepare_out
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.result import print_result, print_table
from jepa_ros.reporting.summary import write_summary
from jepa_ros.robot.config import load_robot
from jepa_ros.text_files import write_atomically

SPLIT_BY_BAG_FROM = 3
"""Number of bags from which on those without a split of their own are split by bag instead of by episode."""


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
        chosen = own_mapping((known.joints, known.gripper), camera, parse_objects(objects), known.name)
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
            raise InputError(f"out {out}: expected a new or empty directory or an unfinished dataset, found another")
        write_atomically(path, json.dumps(wanted, indent=1) + "\n")
        return
    try:
        found = json.loads(path.read_text())
        differ = sorted(key for key in wanted if wanted[key] != found.get(key))
    except (ValueError, AttributeError):
        raise InputError(f"dataset {path}: expected options in JSON, found something else") from None
    if differ:
        raise InputError(f"out {out}: expected the options of the dataset that is there, found other {differ}")


def _remove_traces(out: Path) -> None:
    """Remove what a build without a result wrote, so that the next one may have other options."""
    (out / "options.json").unlink(missing_ok=True)
    for folder in (out / "shards", out):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _index(shards: dict[str, ShardInfo]) -> Index:
    """Return the index of all shards. Raises InputError where their layouts differ."""
    first = next(iter(shards.values()))
    for info in shards.values():
        _expect_alike(first, info)
    by = "marker"
    if any(not e.split for info in shards.values() for e in info.episodes):
        by = "bag" if len(shards) >= SPLIT_BY_BAG_FROM else "episode"
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
    counts = [
        (f"{split} episodes", f"{n} ({summary['frames'][split]} frames)") for split, n in summary["episodes"].items()
    ]
    print_result(f"dataset {out}", counts, [out / INDEX, out / "summary.json", out / "report.html"])
