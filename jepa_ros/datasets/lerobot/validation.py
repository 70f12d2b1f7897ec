"""Validation of a LeRobot dataset (format v3.0), field by field by the published format, without LeRobot itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jepa_ros.datasets.lerobot import files
from jepa_ros.datasets.lerobot.files import arrow_type, count_frames, describe_video, read_table, read_tasks
from jepa_ros.errors import InputError
from jepa_ros.text_files import read_json

EPISODE_COLUMNS = (
    "episode_index",
    "tasks",
    "length",
    "data/chunk_index",
    "data/file_index",
    "dataset_from_index",
    "dataset_to_index",
    "meta/episodes/chunk_index",
    "meta/episodes/file_index",
)
STATISTICS = ("min", "max", "mean", "std", "count")
TIMESTAMP_TOLERANCE_S = 1e-4  # as in LeRobot's reader


def validate(root: Path) -> list[str]:
    """Return the problems of the dataset at `root`, one line each."""
    return Validation(Path(root)).problems


class Validation:
    """Validates a dataset; a part that depends on a malformed one is skipped. problems: one line each, as found."""

    def __init__(self, root: Path):
        self.root, self.problems = root, []
        self.info: dict = {}
        self.episodes: list[dict] = []
        self.tasks: dict[int, str] = {}
        try:
            self._check()
        except InputError as error:
            self.problems.append(str(error))

    def _check(self) -> None:
        self.info = _read_object(self.root / files.INFO)
        self._info()
        if self.problems:
            return
        self.tasks = read_tasks(self.root / files.TASKS)
        self._tasks()
        self.episodes = read_episode_rows(self.root)
        self._episodes()
        if self.problems:
            return
        self._data()
        self._videos()
        self._stats()

    def _expect(self, good: bool, text: str) -> None:
        if not good:
            self.problems.append(text)

    def _info(self) -> None:
        info = self.info
        for key, kind in files.INFO_KEYS.items():
            if key in info:
                good = isinstance(info[key], kind) and not isinstance(info[key], bool)
                self._expect(good, f"{files.INFO}: {key}: expected another type, found {info[key]!r:.80}")
            elif key not in ("robot_type", "video_path", "splits"):
                self.problems.append(f"{files.INFO}: {key}: expected a value, found none")
        if self.problems:
            return
        version = info["codebase_version"]
        self._expect(
            version == files.VERSION, f"{files.INFO}: codebase_version: expected {files.VERSION}, found {version}"
        )
        for key in ("fps", "chunks_size", "data_files_size_in_mb", "video_files_size_in_mb", "total_episodes"):
            self._expect(info[key] > 0, f"{files.INFO}: {key}: expected a number above 0, found {info[key]}")
        for key, wanted in files.DEFAULT_FEATURES.items():
            found = info["features"].get(key)
            good = isinstance(found, dict) and found.get("dtype") == wanted["dtype"] and found.get("shape") == [1]
            self._expect(good, f"{files.INFO}: features: {key}: expected {wanted}, found {found}")
        for key, feature in info["features"].items():
            self._feature(key, feature)
        if self.video_keys():
            self._expect(bool(info.get("video_path")), f"{files.INFO}: video_path: expected a template, found none")

    def _feature(self, key: str, feature: object) -> None:
        where = f"{files.INFO}: features: {key}"
        self._expect("/" not in key, f"{where}: expected a name without '/', found one")
        shape = feature.get("shape") if isinstance(feature, dict) else None
        sizes = isinstance(shape, list) and bool(shape) and all(type(n) is int and n > 0 for n in shape)
        if not sizes or "dtype" not in feature or "names" not in feature:
            self.problems.append(f"{where}: expected dtype, shape and names, found {feature!r:.120}")
            return
        names = feature["names"]
        if feature["dtype"] in ("video", "image"):
            self._expect(len(shape) == 3, f"{where}: shape: expected height, width and channels, found {shape}")
            self._expect(isinstance(names, list) and len(names) == 3, f"{where}: names: expected three, found {names}")
            return
        if isinstance(names, list) and len(shape) == 1:
            self._expect(len(names) == shape[0], f"{where}: names: expected {shape[0]}, found {len(names)}")
        try:
            arrow_type(feature)
        except InputError:
            wanted = "one of numpy's, string, image or video"
            self.problems.append(f"{where}: dtype: expected {wanted}, found {feature['dtype']}")

    def _tasks(self) -> None:
        numbers, total = sorted(self.tasks), self.info["total_tasks"]
        wanted = f"the numbers 0 to {total - 1}"
        self._expect(numbers == list(range(total)), f"{files.TASKS}: expected {wanted}, found {numbers[:9]}")
        self._expect(len(set(self.tasks.values())) == len(self.tasks), f"{files.TASKS}: expected different tasks")

    def _episodes(self) -> None:
        total, row = self.info["total_episodes"], 0
        self._expect(len(self.episodes) == total, f"meta/episodes: expected {total} lines, found {len(self.episodes)}")
        for number, line in enumerate(self.episodes):
            where = f"meta/episodes: episode {number}"
            wanted = list(EPISODE_COLUMNS)
            for key in self.video_keys():
                wanted += [f"videos/{key}/{n}" for n in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")]
            if missing := [name for name in wanted if line.get(name) is None]:
                self.problems.append(f"{where}: expected the columns {missing}, found none")
                return
            self._expect(line["episode_index"] == number, f"{where}: episode_index: found {line['episode_index']}")
            begin, end, length = line["dataset_from_index"], line["dataset_to_index"], line["length"]
            good = begin == row and end - begin == length > 0
            self._expect(good, f"{where}: expected rows from {row} on for length {length}, found {begin} to {end}")
            tasks = line["tasks"]
            known = isinstance(tasks, list) and bool(tasks) and set(tasks) <= set(self.tasks.values())
            self._expect(known, f"{where}: tasks: expected some of {files.TASKS}, found {tasks}")
            for key in self.video_keys():
                lasts = line[f"videos/{key}/to_timestamp"] - line[f"videos/{key}/from_timestamp"]
                good = abs(lasts - length / self.info["fps"]) < 0.5 / self.info["fps"]
                self._expect(good, f"{where}: {key}: expected {length} frames, found {lasts:g} s")
            row = end
            if len(self.problems) > 20:
                return
        self._expect(row == self.info["total_frames"], f"{files.INFO}: total_frames: expected {row}")

    def _data(self) -> None:
        begin, columns = 0, {k: x for k, x in self.info["features"].items() if x["dtype"] != "video"}
        for numbers, lines in files.lines_by_file(self.episodes, "data"):
            path = files.file_of(self.root, self.info["data_path"], *numbers)
            where = str(path.relative_to(self.root.resolve()))
            table = read_table(path)
            if missing := sorted(set(columns) - set(table.column_names)):
                self.problems.append(f"{where}: expected the columns {missing}, found {table.column_names}")
                return
            for key, feature in columns.items():
                self._column(where, key, feature, table.schema.field(key).type)
            total = sum(line["length"] for line in lines)
            self._expect(table.num_rows == total, f"{where}: expected {total} rows, found {table.num_rows}")
            if not self.problems:
                self._rows(where, table, lines, begin)
            begin += total

    def _column(self, where: str, key: str, feature: dict, found) -> None:
        import pyarrow as pa

        if feature["dtype"] == "image":
            self._expect(pa.types.is_struct(found), f"{where}: {key}: expected images, found {found}")
            return
        wanted = arrow_type(feature)
        # Some writers use a list without a fixed length for the same feature.
        loose = pa.types.is_list(found) and pa.types.is_fixed_size_list(wanted) and len(feature["shape"]) == 1
        alike = loose and found.value_type == wanted.value_type
        nested = len(feature["shape"]) > 1
        self._expect(found == wanted or alike or nested, f"{where}: {key}: expected {wanted}, found {found}")

    def _rows(self, where: str, table, lines: list[dict], begin: int) -> None:
        values = {key: table[key].to_numpy() for key in files.DEFAULT_FEATURES}
        frame = np.concatenate([np.arange(line["length"]) for line in lines])
        episode = np.concatenate([np.full(line["length"], line["episode_index"]) for line in lines])
        wanted = {"index": begin + np.arange(len(frame)), "frame_index": frame, "episode_index": episode}
        for key, column in wanted.items():
            self._expect(np.array_equal(values[key], column), f"{where}: {key}: expected consecutive numbers")
        error = np.abs(values["timestamp"] - frame / self.info["fps"]).max(initial=0.0)
        good = error < TIMESTAMP_TOLERANCE_S
        self._expect(good, f"{where}: timestamp: expected frame_index / fps, found {error:g} s off")
        known = np.isin(values["task_index"], list(self.tasks)).all()
        self._expect(bool(known), f"{where}: task_index: expected task numbers of {files.TASKS}")

    def _videos(self) -> None:
        for key in self.video_keys():
            height, width = self.info["features"][key]["shape"][:2]
            for numbers, lines in files.lines_by_file(self.episodes, f"videos/{key}"):
                path = files.file_of(self.root, self.info["video_path"], *numbers, key)
                where, found = str(path.relative_to(self.root.resolve())), describe_video(path)
                size = (found["video.height"], found["video.width"])
                self._expect(size == (height, width), f"{where}: expected {height} x {width} pixels, found {size}")
                fps, frames = found["video.fps"], count_frames(path)
                self._expect(fps == self.info["fps"], f"{where}: expected {self.info['fps']} fps, found {fps}")
                wanted = round(max(line[f"videos/{key}/to_timestamp"] for line in lines) * self.info["fps"])
                self._expect(frames >= wanted, f"{where}: expected {wanted} frames, found {frames}")

    def _stats(self) -> None:
        stats = _read_object(self.root / files.STATS)
        for key, feature in self.info["features"].items():
            if feature["dtype"] in ("string", "language"):
                continue
            is_image = feature["dtype"] in ("video", "image")
            shape = (feature["shape"][2], 1, 1) if is_image else tuple(feature["shape"])
            for name in STATISTICS:
                value = stats.get(key, {}).get(name) if isinstance(stats.get(key), dict) else None
                if value is None:
                    self.problems.append(f"{files.STATS}: {key}: {name}: expected a value, found none")
                    continue
                found = _shape(value)
                wanted = (1,) if name == "count" else shape
                self._expect(found == wanted, f"{files.STATS}: {key}: {name}: expected shape {wanted}, found {found}")

    def video_keys(self) -> list[str]:
        """Return the features that are videos."""
        return [key for key, x in self.info["features"].items() if isinstance(x, dict) and x.get("dtype") == "video"]


def _shape(value: object) -> tuple[int, ...] | None:
    try:
        return np.array(value, float).shape
    except (ValueError, TypeError):  # lists of different lengths, or not numeric
        return None


def read_episode_rows(root: Path) -> list[dict]:
    """Return the rows of meta/episodes, without their statistics. Raises InputError."""
    paths = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    if not paths:
        raise InputError(f"lerobot {root}: expected meta/episodes/chunk-000/file-000.parquet, found none")
    lines: list[dict] = []
    for path in paths:
        table = read_table(path)
        lines += table.select([name for name in table.column_names if not name.startswith("stats/")]).to_pylist()
    return lines


def _read_object(path: Path) -> dict:
    found = read_json(path, "lerobot")
    if not isinstance(found, dict):
        raise InputError(f"lerobot {path}: expected a JSON object, found {type(found).__name__}")
    return found
