"""Files of LeRobot's dataset format v3.0: their names, parquet tables (frames, episodes, tasks) and videos."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np

from jepa_ros.datasets.store import Layout
from jepa_ros.errors import InputError

VERSION = "v3.0"
INFO, STATS, TASKS, OURS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet", "meta/jepa_ros.json"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
CHUNK_FILES, DATA_MB, VIDEO_MB = 1000, 100, 200
"""The format's defaults: files per chunk, and sizes above which a new file is started."""
STATE, ACTION, IMAGES = "observation.state", "action", "observation.images"
POSITIONS, STAMP, PICTURES = "jepa_ros.positions", "jepa_ros.stamp", "jepa_ros.pictures"
"""Columns from which a dataset of ours is restored completely; other readers ignore them."""
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
DEFAULT_FEATURES = {
    name: {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1], "names": None}
    for name in ("timestamp", "frame_index", "episode_index", "index", "task_index")
}
INFO_KEYS = {
    "codebase_version": str,
    "robot_type": (str, type(None)),
    "total_episodes": int,
    "total_frames": int,
    "total_tasks": int,
    "chunks_size": int,
    "data_files_size_in_mb": int,
    "video_files_size_in_mb": int,
    "fps": int,
    "splits": dict,
    "data_path": str,
    "video_path": (str, type(None)),
    "features": dict,
}
EPISODES_PER_GROUP = 500  # rows of meta/episodes that are written together
CODEC, PIXELS = "libx264", "yuv420p"
OPTIONS = {"g": "2", "crf": "12", "preset": "medium", "threads": "1"}
"""A key frame every second frame, as in LeRobot's own writer: decoding two frames gives any frame."""


def image_keys(layout: Layout) -> list[str]:
    """Return the feature of each view by its topic: observation.images.wrist_image for /wrist/image."""
    return [f"{IMAGES}.{topic.strip('/').replace('/', '_') or 'image'}" for topic in layout.views]


def features(layout: Layout) -> dict[str, dict]:
    """Return the features of a dataset of ours for info.json, without properties of videos. Raises InputError."""
    if layout.rate != round(layout.rate):
        raise InputError(f"dataset: the format needs a whole number of frames per second, found {layout.rate:g} Hz")
    if layout.size % 2:
        raise InputError(f"dataset: video needs an even image size, found {layout.size} px")
    shape = [layout.size, layout.size, 3]
    found = {
        key: {"dtype": "video", "shape": shape, "names": ["height", "width", "channels"], "info": {}}
        for key in image_keys(layout)
    }
    if layout.state_names:
        found[STATE] = _vector("float32", layout.state_names)
    found[ACTION] = _vector("float32", layout.action_names)
    if layout.positions:
        found[POSITIONS] = _vector("float64", [f"{name}.{axis}" for name in layout.positions for axis in "xyz"])
    found[STAMP] = {"dtype": "int64", "shape": [1], "names": None}
    found[PICTURES] = _vector("int64", list(layout.views))
    return found | DEFAULT_FEATURES


def _vector(dtype: str, names) -> dict:
    return {"dtype": dtype, "shape": [len(names)], "names": list(names)}


def file_of(root: Path, template: str, chunk: int, file: int, key: str = "") -> Path:
    """Return the path of a data, episodes or video file by its numbers. Raises InputError for an invalid template."""
    try:
        name = template.format(chunk_index=chunk, file_index=file, video_key=key)
    except (KeyError, IndexError, ValueError) as error:
        wanted = "a path template of the format"
        raise InputError(f"lerobot {root}: expected {wanted}, found {template!r}: {error}") from None
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise InputError(f"lerobot {root}: expected files inside the dataset, found {name}")
    return path


def lines_by_file(episodes: list[dict], prefix: str) -> list[tuple[tuple[int, int], list[dict]]]:
    """Return (chunk and file number, rows of meta/episodes) for each file. prefix: data, or videos/ and a feature."""
    by_file: dict[tuple[int, int], list[dict]] = {}
    for line in episodes:
        by_file.setdefault((line[f"{prefix}/chunk_index"], line[f"{prefix}/file_index"]), []).append(line)
    return sorted(by_file.items())


def next_file(chunk: int, file: int) -> tuple[int, int]:
    """Return chunk and file number of the file after this one."""
    return (chunk + 1, 0) if file == CHUNK_FILES - 1 else (chunk, file + 1)


class EpisodeTable:
    """Writes data/ and meta/episodes of a dataset, episode by episode; each episode is a row group in data/."""

    def __init__(self, root: Path, features: dict, data_mb: float):
        import pyarrow as pa

        self._pa, self._root, self._limit = pa, root, data_mb * 2**20
        self._schema = pa.schema([(k, arrow_type(x)) for k, x in features.items() if x["dtype"] != "video"])
        self._numbers, self._bytes, self._data = (0, 0), 0, None
        self._lines: list[dict] = []
        self._episodes, self._row, self._count = None, 0, 0

    def add(self, columns: dict[str, np.ndarray], tasks: list[str], line: dict, stats: dict[str, dict]) -> None:
        """Write an episode. columns: (n, ...) by feature. line: further values of its row in meta/episodes."""
        import pyarrow.parquet as pq

        n = len(columns["index"])
        arrays = [self._array(columns[field.name], field.type) for field in self._schema]
        table = self._pa.Table.from_arrays(arrays, schema=self._schema)
        if self._data is not None and self._bytes + table.nbytes > self._limit:
            self._data.close()
            self._data, self._bytes, self._numbers = None, 0, next_file(*self._numbers)
        if self._data is None:
            path = file_of(self._root, DATA, *self._numbers)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._data = pq.ParquetWriter(path, self._schema, compression="snappy")
        self._data.write_table(table)
        self._bytes += table.nbytes
        self._lines.append(
            {
                "episode_index": self._count,
                "tasks": tasks,
                "length": n,
                "data/chunk_index": self._numbers[0],
                "data/file_index": self._numbers[1],
                "dataset_from_index": self._row,
                "dataset_to_index": self._row + n,
                **line,
                **{f"stats/{key}/{name}": v for key, found in stats.items() for name, v in found.items()},
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
        )
        self._row, self._count = self._row + n, self._count + 1
        if len(self._lines) >= EPISODES_PER_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what is buffered and close the files."""
        self._flush()
        for writer in (self._data, self._episodes):
            if writer is not None:
                writer.close()

    def _array(self, values: np.ndarray, kind):
        values = np.ascontiguousarray(values).reshape(len(values), -1)
        flat = self._pa.array(values.ravel())
        if self._pa.types.is_fixed_size_list(kind):
            return self._pa.FixedSizeListArray.from_arrays(flat.cast(kind.value_type), kind.list_size)
        return flat.cast(kind)

    def _flush(self) -> None:
        import pyarrow.parquet as pq

        if not self._lines:
            return
        schema = None if self._episodes is None else self._episodes.schema
        table = self._pa.Table.from_pylist(self._lines, schema=schema)
        if self._episodes is None:
            path = file_of(self._root, EPISODES, 0, 0)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._episodes = pq.ParquetWriter(path, table.schema, compression="snappy")
        self._episodes.write_table(table)
        self._lines = []


def arrow_type(feature: dict):
    """Return the parquet type of a feature that is not a video. Raises InputError."""
    import pyarrow as pa

    try:
        kind = pa.string() if feature["dtype"] == "string" else pa.from_numpy_dtype(np.dtype(feature["dtype"]))
        shape = list(feature["shape"])
    except (TypeError, KeyError, NotImplementedError, pa.ArrowException):
        raise InputError(f"lerobot feature: expected a numeric dtype and a shape, found {feature}") from None
    return kind if shape == [1] else pa.list_(kind, int(np.prod(shape)))


def write_tasks(path: Path, tasks: list[str]) -> None:
    """Write meta/tasks.parquet: the number of each task, with its text as the pandas index."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def column(name: str, kind: str, numpy_type: str) -> dict:
        return {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_type, "metadata": None}

    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    # Readers load this file with pandas, which finds the index by this metadata.
    pandas_metadata = {
        "index_columns": ["task"],
        "column_indexes": [
            {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
        ],
        "columns": [column("task_index", "int64", "int64"), column("task", "unicode", "object")],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas_metadata)}), path)


def read_table(path: Path, columns: list[str] | None = None):
    """Return a parquet file as a table. Raises InputError where it cannot be read."""
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path).read(columns)
    except Exception as error:  # garbage may raise anything in the reader
        raise InputError(f"lerobot {path}: expected a parquet file, found {error}") from None


def read_tasks(path: Path) -> dict[int, str]:
    """Return the texts of the tasks by number. Raises InputError."""
    table = read_table(path)
    text = next((name for name in ("task", "__index_level_0__") if name in table.column_names), None)
    if text is None or "task_index" not in table.column_names:
        raise InputError(f"lerobot {path}: expected the columns task and task_index, found {table.column_names}")
    return dict(zip(table["task_index"].to_pylist(), map(str, table[text].to_pylist()), strict=True))


class VideoWriter:
    """Writes frames (S, S, 3) uint8 rgb to an mp4 file."""

    def __init__(self, path: Path, fps: int, size: int):
        import av

        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.frames, self._fps, self._av = path, 0, fps, av
        self._container = av.open(str(path), "w", options={"movflags": "faststart"})
        self._stream = self._container.add_stream(CODEC, rate=Fraction(fps), options=OPTIONS)
        self._stream.width = self._stream.height = size
        self._stream.pix_fmt = PIXELS
        self._stream.codec_context.thread_count = 1  # more threads would give different bytes

    def add(self, frames: np.ndarray) -> None:
        """Append frames (N, S, S, 3)."""
        for rgb in frames:
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame.pts = self.frames
            frame.time_base = Fraction(1, self._fps)
            self._container.mux(self._stream.encode(frame))
            self.frames += 1

    def close(self) -> None:
        """Write what is buffered, and the index."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


@contextmanager
def _open_video(path: Path) -> Iterator:
    """Open a video with PyAV. Raises InputError where it, or what the block reads of it, is malformed."""
    import av

    try:
        with av.open(str(path)) as container:
            yield container
    except Exception as error:  # garbage may raise anything in the demuxer
        raise InputError(f"video {path}: expected a readable video, found {error}") from None


def describe_video(path: Path) -> dict:
    """Return the properties of a video for info.json. Raises InputError where it cannot be read."""
    with _open_video(path) as container:
        stream = container.streams.video[0]
        return {
            "video.height": stream.height,
            "video.width": stream.width,
            "video.codec": stream.codec_context.codec.canonical_name,
            "video.pix_fmt": stream.pix_fmt,
            "is_depth_map": False,
            "video.fps": round(stream.average_rate or stream.base_rate),
            "video.channels": 3,
            "has_audio": bool(container.streams.audio),
        }


def read_video(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (time in s, frame (H, W, 3) uint8 rgb) in order. Raises InputError where the file cannot be read."""
    with _open_video(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            yield float(frame.pts * stream.time_base), frame.to_ndarray(format="rgb24")


def count_frames(path: Path) -> int:
    """Count the frames in the file, regardless of its header. Raises InputError."""
    with _open_video(path) as container:
        return sum(1 for packet in container.demux(container.streams.video[0]) if packet.size)
