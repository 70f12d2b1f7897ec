"""Names of LeRobot's dataset format v3.0: files, columns, features."""

from __future__ import annotations

from pathlib import Path

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
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    "frame_index": {"dtype": "int64", "shape": [1], "names": None},
    "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    "index": {"dtype": "int64", "shape": [1], "names": None},
    "task_index": {"dtype": "int64", "shape": [1], "names": None},
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
        raise InputError(
            f"lerobot {root}: expected a path template of the format, found {template!r}: {error}"
        ) from None
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise InputError(f"lerobot {root}: expected files inside the dataset, found {name}")
    return path


def next_file(chunk: int, file: int) -> tuple[int, int]:
    """Return chunk and file number of the file after this one."""
    return (chunk + 1, 0) if file == CHUNK_FILES - 1 else (chunk, file + 1)
