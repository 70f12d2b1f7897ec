"""`jepa_ros data import`: a LeRobot dataset (format v3.0) is validated and converted to a dataset of ours."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from pydantic import BaseModel, ValidationError

from jepa_ros.datasets.lerobot import files
from jepa_ros.datasets.lerobot.files import read_table, read_video
from jepa_ros.datasets.lerobot.validation import Validation
from jepa_ros.datasets.store import (
    INDEX,
    SHARD,
    SPLITS,
    URDF,
    Dataset,
    EpisodeEntry,
    Index,
    Layout,
    ShardInfo,
    choose_split,
    write_json,
)
from jepa_ros.errors import InputError, first_problem
from jepa_ros.images import preprocess
from jepa_ros.reporting.output import prepare_out
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.result import print_result
from jepa_ros.reporting.summary import write_summary
from jepa_ros.text_files import read_json
from jepa_ros.world_model.config import CameraReference

DEFAULT_SIZE = 64  # pixels


class OwnMetadata(BaseModel):
    """meta/jepa_ros.json: with it, a dataset of ours is restored completely."""

    layout: Layout
    bags: tuple[str, ...]
    split_by: str
    camera: CameraReference | None = None
    robot_description: str | None = None


def _read_own_metadata(path: Path) -> OwnMetadata | None:
    if not path.is_file():
        return None
    try:
        return OwnMetadata.model_validate(read_json(path, "lerobot"))
    except ValidationError as error:
        raise InputError(f"lerobot {path}: {first_problem(error)}") from None


def import_dataset(*, source: Path, out: Path, size: int | None = None) -> int:
    """Write the dataset to `out` and show progress. Raises InputError that lists the source's first problems."""
    source, out = Path(source), prepare_out(out)
    if not (source / files.INFO).is_file():
        raise InputError(f"lerobot {source}: expected a directory with {files.INFO}, found none")
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise InputError(f"--out {out}: exists and is not empty; give a new directory")
    found = Validation(source)
    if found.problems:
        raise InputError(f"lerobot {source}: expected a valid dataset, found {'; '.join(found.problems[:5])}")
    ours = _read_own_metadata(source / files.OURS)
    layout = ours.layout if ours else _layout(found, size or DEFAULT_SIZE)
    if size is not None:
        layout = layout.model_copy(update={"size": size})
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shard = partial / "shards" / "lerobot"
    shard.mkdir(parents=True)
    rows = found.info["total_frames"]
    with ProgressDisplay() as bar:
        _frames(found, layout, shard, rows, bar)
    _arrays(found, layout, shard, rows, bool(ours))
    if ours and ours.robot_description:
        (shard / URDF).write_text(ours.robot_description, encoding="utf-8")
    index = _index(found, layout, ours, source, shard)
    entries = tuple(EpisodeEntry(**e.model_dump(exclude={"shard"})) for e in index.episodes)
    info = ShardInfo(bag=str(source), fingerprint="lerobot", rows=rows, seen=rows, episodes=entries, layout=layout)
    write_json(shard / SHARD, info)
    write_json(partial / INDEX, index)
    frames = {s: sum(e.frames for e in index.episodes if e.split == s) for s in SPLITS}
    write_summary(partial / "summary.json", {"source": source.name, "episodes": len(entries), "frames": frames})
    Dataset(partial)
    if out.exists():
        out.rmdir()
    os.replace(partial, out)
    lines = [("episodes", len(entries)), ("frames", f"{rows} at {layout.rate:g} Hz, {layout.size} px")]
    print_result(f"dataset from {source}", lines, [out])
    return 0


def _layout(found: Validation, size: int) -> Layout:
    """Return the layout of a dataset made by others: its state and action as they are."""
    features = found.info["features"]
    if files.ACTION not in features:
        raise InputError(f"lerobot {found.root}: expected the feature action, found {', '.join(features)}")
    views = _view_keys(found)
    if not views:
        raise InputError(f"lerobot {found.root}: expected an image feature, found {', '.join(features)}")
    return Layout(
        rate=found.info["fps"],
        size=size,
        views=tuple(key.removeprefix(f"{files.IMAGES}.") for key in views),
        fields=_names(features.get(files.STATE), "state"),
        action_space="foreign",
        action_source="lerobot",
        action_names=_names(features[files.ACTION], "action"),
    )


def _names(feature: dict | None, what: str) -> tuple[str, ...]:
    if feature is None:
        return ()
    names = feature["names"]
    if isinstance(names, dict) and len(names) == 1:  # {"motors": [...]}, as older writers write it
        names = next(iter(names.values()))
    count = int(np.prod(feature["shape"]))
    if isinstance(names, list) and len(names) == count:
        return tuple(map(str, names))
    return tuple(f"{what}.{k}" for k in range(count))


def _view_keys(found: Validation) -> list[str]:
    features = found.info["features"]
    return [k for k, x in features.items() if x["dtype"] in ("video", "image") and x["shape"][2] == 3]


def _frames(found: Validation, layout: Layout, shard: Path, rows: int, bar: ProgressDisplay) -> None:
    keys = _view_keys(found)
    if len(keys) != len(layout.views):
        raise InputError(f"lerobot {found.root}: expected {len(layout.views)} image features, found {keys}")
    shape = (rows, len(keys), layout.size, layout.size, 3)
    frames = np.lib.format.open_memmap(shard / "frames.npy", mode="w+", dtype=np.uint8, shape=shape)
    task, done = bar.add("frames", rows * len(keys)), 0
    for view, key in enumerate(keys):
        read = _frames_in_tables if found.info["features"][key]["dtype"] == "image" else _frames_in_videos
        filled = np.zeros(rows, bool)
        for row, rgb in read(found, key):
            frames[row, view], filled[row] = preprocess(rgb, layout.size), True
            done += 1
            if done % 64 == 0:
                bar.update(task, done)
        if not filled.all():
            there = f"{int(filled.sum())}; row {int(np.argmin(filled))} is missing"
            raise InputError(f"lerobot {found.root}: {key}: expected {rows} frames, found {there}")
    bar.update(task, done)
    frames.flush()


def _frames_in_videos(found: Validation, key: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yield rows and frames of a video feature."""
    fps = found.info["fps"]
    for numbers, lines in files.lines_by_file(found.episodes, f"videos/{key}"):
        rows: dict[int, int] = {}
        for line in lines:
            begin = round(line[f"videos/{key}/from_timestamp"] * fps)
            rows |= {begin + k: line["dataset_from_index"] + k for k in range(line["length"])}
        for time, rgb in read_video(files.file_of(found.root, found.info["video_path"], *numbers, key)):
            if (row := rows.get(round(time * fps))) is not None:
                yield row, rgb


def _frames_in_tables(found: Validation, key: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yield rows and frames of a feature whose images are in data/."""
    for table in _tables(found, ["index", key]):
        for row, stored in zip(table["index"].to_pylist(), table[key].to_pylist(), strict=True):
            data = stored.get("bytes") if isinstance(stored, dict) else None
            bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
            if bgr is None:
                raise InputError(f"lerobot {found.root}: {key}: expected an image in row {row}, found none")
            yield row, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _tables(found: Validation, columns: list[str]) -> Iterator:
    for numbers, _ in files.lines_by_file(found.episodes, "data"):
        yield read_table(files.file_of(found.root, found.info["data_path"], *numbers), columns)


def _arrays(found: Validation, layout: Layout, shard: Path, rows: int, ours: bool) -> None:
    columns = [files.STATE, files.ACTION, *((files.POSITIONS, files.STAMP, files.PICTURES) if ours else ("timestamp",))]
    there = [key for key in columns if key in found.info["features"]]
    parts: dict[str, list[np.ndarray]] = {key: [] for key in there}
    for table in _tables(found, there):
        for key in there:
            values = table[key].combine_chunks()
            flat = values.flatten() if hasattr(values, "flatten") and "list" in str(values.type) else values
            parts[key].append(flat.to_numpy(zero_copy_only=False).reshape(len(values), -1))
    values = {key: np.concatenate(found) for key, found in parts.items()}
    views, blank = len(layout.views), np.empty((rows, 0))
    stamps = values.get(files.STAMP, np.round(values["timestamp"] * 1e9) if "timestamp" in values else blank)
    # meta/jepa_ros.json and info.json may disagree on the number of values.
    for key, what, names in ((files.STATE, "state", layout.state_names), (files.ACTION, "action", layout.action_names)):
        if (width := values.setdefault(key, blank).shape[1]) != len(names):
            raise InputError(f"lerobot {found.root}: {what}: expected {len(names)} values, found {width}")
    arrays = {
        "states": values[files.STATE].astype(np.float32),
        "actions": values[files.ACTION].astype(np.float32),
        "positions": values.get(files.POSITIONS, blank).astype(np.float64).reshape(rows, len(layout.positions), 3),
        "stamps": stamps.astype(np.int64).reshape(rows),
        "pictures": values.get(files.PICTURES, np.repeat(np.arange(rows)[:, None], views, axis=1)).astype(np.int64),
    }
    for name, array in arrays.items():
        np.save(shard / f"{name}.npy", array)


def _index(found: Validation, layout: Layout, ours: OwnMetadata | None, source: Path, shard: Path) -> Index:
    episodes, count = [], len(found.episodes)
    stamps = np.load(shard / "stamps.npy", mmap_mode="r")
    for number, line in enumerate(found.episodes):
        if line["length"] < 2:
            continue
        episodes.append(
            {
                "start": line["dataset_from_index"],
                "frames": line["length"],
                "number": line.get("jepa_ros/number", number),
                "split": line.get("jepa_ros/split") or choose_split(number, count),
                "task": line.get("jepa_ros/task", line["tasks"][0]),
                "stamp": int(stamps[line["dataset_from_index"]]),
                "shard": 0,
            }
        )
    if not episodes:
        raise InputError(f"lerobot {source}: expected an episode of at least two frames, found none")
    return Index.model_validate(
        {
            "layout": layout,
            "shards": ["shards/lerobot"],
            "bags": ours.bags if ours else [str(source)],
            "split_by": ours.split_by if ours else "episode",
            "camera": ours.camera if ours else None,
            "episodes": episodes,
        }
    )
