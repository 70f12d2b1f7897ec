"""`jepa_ros data export --format lerobot`: a dataset in LeRobot's format v3.0, validated before it appears."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jepa_ros.datasets.lerobot import files
from jepa_ros.datasets.lerobot.files import QUANTILES, EpisodeTable, VideoWriter, describe_video, write_tasks
from jepa_ros.datasets.lerobot.validation import validate
from jepa_ros.datasets.store import Dataset, IndexedEpisode
from jepa_ros.errors import InputError
from jepa_ros.reporting.output import prepare_out
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.result import print_result

MAX_IMAGES = 100  # images of an episode, evenly spread, that its colour statistics are computed from
UNNAMED = "unnamed"  # the task of episodes without one: the format needs a task


def vector_statistics(values: np.ndarray) -> dict[str, list]:
    """Return each statistic (D,) of rows (N, D) or (N,), and count [N]."""
    columns = [column[np.isfinite(column)] for column in np.asarray(values, float).reshape(len(values), -1).T]
    # Positions of an object that was not seen are NaN and do not count.
    columns = [column if len(column) else np.zeros(1) for column in columns]
    found = {"min": np.min, "max": np.max, "mean": np.mean, "std": np.std}
    statistics = {name: [float(reduce(column)) for column in columns] for name, reduce in found.items()}
    statistics |= {name: [float(np.quantile(column, q)) for column in columns] for name, q in QUANTILES.items()}
    return statistics | {"count": [len(values)]}


def histogram(frames: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the histogram (3, 256) of the colours of frames (N, S, S, 3) uint8, and the number of frames that it is
    from."""
    some = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), MAX_IMAGES)).round().astype(int))
    chosen = np.asarray(frames[some])
    return np.stack([np.bincount(chosen[..., c].ravel(), minlength=256) for c in range(3)]), len(chosen)


def colour_statistics(counts: np.ndarray, images: int) -> dict[str, list]:
    """Return each statistic (3, 1, 1) of values 0 to 1, from a histogram (3, 256) of so many images."""
    values, total = np.arange(256) / 255.0, counts.sum(1)
    mean = counts @ values / total
    there = counts > 0
    found = {
        "min": values[there.argmax(1)],
        "max": values[255 - there[:, ::-1].argmax(1)],
        "mean": mean,
        "std": np.sqrt(np.maximum(counts @ values**2 / total - mean**2, 0.0)),
    }
    below = np.cumsum(counts, axis=1) / total[:, None]
    found |= {name: values[(below >= q - 1e-12).argmax(1)] for name, q in QUANTILES.items()}
    return {name: value.reshape(3, 1, 1).tolist() for name, value in found.items()} | {"count": [images]}


@dataclass(frozen=True)
class FileSizes:
    """Sizes in MB above which a new data or video file is started."""

    data: float = files.DATA_MB
    video: float = files.VIDEO_MB


def export_dataset(*, dataset: Path, out: Path, format: str = "lerobot", sizes: FileSizes = FileSizes()) -> int:
    """Write the dataset to `out` and show progress.

    Raises InputError where `out` exists, or the format cannot hold the dataset, or the written files are invalid.
    """
    if format != "lerobot":
        raise InputError(f"format: expected lerobot, found {format!r}")
    out, data = prepare_out(out), Dataset(Path(dataset))
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise InputError(f"--out {out}: exists and is not empty; give a new directory")
    features = files.features(data.layout)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with ProgressDisplay() as bar:
        task = bar.add("episodes", len(data.index.episodes))
        export = _Export(data, partial, features, sizes)
        try:
            for number, entry in enumerate(data.index.episodes):
                export.add(number, entry)
                bar.update(task, number + 1)
        finally:
            export.close()
    export.finish()
    problems = validate(partial)
    if problems:
        raise InputError(f"lerobot {partial}: expected a valid dataset, found {'; '.join(problems[:5])}")
    if out.exists():
        out.rmdir()
    os.replace(partial, out)
    lines = [("episodes", len(data.index.episodes)), ("frames", export.row), ("validated", "no problems found")]
    print_result(f"LeRobot dataset {files.VERSION}", lines, [out])
    return 0


class _Export:
    def __init__(self, data: Dataset, root: Path, features: dict, sizes: FileSizes):
        self.data, self.root, self.features, self.sizes = data, root, features, sizes
        self.fps, self.row = int(data.layout.rate), 0
        self.keys = files.image_keys(data.layout)
        self.tasks: dict[str, int] = {}
        self.colours = {key: [np.zeros((3, 256), np.int64), 0] for key in self.keys}
        self.table = EpisodeTable(root, features, sizes.data)
        self.videos: dict[str, VideoWriter] = {}
        self.video_files = dict.fromkeys(self.keys, (0, 0))
        self.columns: dict[str, list[np.ndarray]] = {}

    def add(self, number: int, entry: IndexedEpisode) -> None:
        """Write an episode: its rows, its videos, its row in meta/episodes."""
        task = self.tasks.setdefault(entry.task or UNNAMED, len(self.tasks))
        columns = self._columns(number, entry, task)
        stats = {key: vector_statistics(values) for key, values in columns.items()}
        line: dict = {}
        frames = self.data.rows(entry, "frames")
        for view, key in enumerate(self.keys):
            counts, images = histogram(frames[:, view])
            stats[key] = colour_statistics(counts, images)
            self.colours[key][0] += counts
            self.colours[key][1] += images
            line |= self._video(key, frames[:, view])
        line |= {"jepa_ros/split": entry.split, "jepa_ros/number": entry.number, "jepa_ros/task": entry.task}
        self.table.add(columns, [entry.task or UNNAMED], line, stats)
        for key, values in columns.items():
            self.columns.setdefault(key, []).append(values)
        self.row += entry.frames

    def _columns(self, number: int, entry: IndexedEpisode, task: int) -> dict[str, np.ndarray]:
        n, frame = entry.frames, np.arange(entry.frames)
        found = {
            files.STATE: np.asarray(self.data.rows(entry, "states")),
            files.ACTION: np.asarray(self.data.rows(entry, "actions")),
            files.POSITIONS: np.asarray(self.data.rows(entry, "positions")).reshape(n, -1),
            files.STAMP: np.asarray(self.data.rows(entry, "stamps")),
            files.PICTURES: np.asarray(self.data.rows(entry, "pictures")),
            "timestamp": (frame / self.fps).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(n, number),
            "index": self.row + frame,
            "task_index": np.full(n, task),
        }
        return {key: values for key, values in found.items() if key in self.features}

    def _video(self, key: str, frames: np.ndarray) -> dict:
        writer = self.videos.get(key)
        if writer is not None and writer.path.stat().st_size >= self.sizes.video * 2**20:
            writer.close()
            self.video_files[key] = files.next_file(*self.video_files[key])
            writer = None
        chunk, file = self.video_files[key]
        if writer is None:
            path = files.file_of(self.root, files.VIDEO, chunk, file, key)
            writer = self.videos[key] = VideoWriter(path, self.fps, self.data.layout.size)
        begin = writer.frames
        writer.add(frames)
        return {
            f"videos/{key}/chunk_index": chunk,
            f"videos/{key}/file_index": file,
            f"videos/{key}/from_timestamp": begin / self.fps,
            f"videos/{key}/to_timestamp": writer.frames / self.fps,
        }

    def close(self) -> None:
        """Close all files."""
        for writer in self.videos.values():
            writer.close()
        self.table.close()

    def finish(self) -> None:
        """Write what is known at the end: info.json, stats.json, the tasks, and our own jepa_ros.json."""
        for key in self.keys:
            self.features[key]["info"] = describe_video(files.file_of(self.root, files.VIDEO, 0, 0, key))
        stats = {key: vector_statistics(np.concatenate(parts)) for key, parts in self.columns.items()}
        stats |= {key: colour_statistics(*found) for key, found in self.colours.items()}
        _json(self.root / files.STATS, stats)
        write_tasks(self.root / files.TASKS, list(self.tasks))
        index = self.data.index
        info = {
            "codebase_version": files.VERSION,
            "robot_type": index.layout.robot,
            "total_episodes": len(index.episodes),
            "total_frames": self.row,
            "total_tasks": len(self.tasks),
            "chunks_size": files.CHUNK_FILES,
            "data_files_size_in_mb": files.DATA_MB,
            "video_files_size_in_mb": files.VIDEO_MB,
            "fps": self.fps,
            "splits": {"train": f"0:{len(index.episodes)}"},
            "data_path": files.DATA,
            "video_path": files.VIDEO,
            "features": self.features,
        }
        _json(self.root / files.INFO, info)
        ours = index.model_dump(mode="json", include={"layout", "bags", "split_by", "camera"})
        _json(self.root / files.OURS, ours | {"robot_description": self.data.urdf()})


def _json(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=4, allow_nan=False) + "\n", encoding="utf-8")
