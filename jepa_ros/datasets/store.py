"""Datasets on disk: one directory (shard) per bag with arrays for random access, and an index of all episodes.

    D/dataset.json                the layout that all episodes share, and the list of episodes
    D/shards/<bag>-<hash>/        frames.npy (N, views, size, size, 3) uint8, states.npy (N, P) and actions.npy (N, A)
                                  float32, positions.npy (N, K, 3) float64 m, stamps.npy (N,) ns, pictures.npy
                                  (N, views) int64: numbers of the images in the bag, shard.json, robot.urdf

An episode of T ticks has T + 1 rows; its last action is repeated, so that frames and actions have the same rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from jepa_ros.datasets.mapping import StrictModel
from jepa_ros.errors import InputError, first_problem
from jepa_ros.text_files import write_atomically
from jepa_ros.world_model.config import CameraReference

SPLITS = ("train", "val", "test")
INDEX, SHARD, URDF = "dataset.json", "shard.json", "robot.urdf"
SCHEMA_VERSION = 1
LARGEST_INDEX_BYTES = 500_000_000  # room for millions of episodes
ARRAYS = {
    "frames": np.uint8,
    "states": np.float32,
    "actions": np.float32,
    "positions": np.float64,
    "stamps": np.int64,
    "pictures": np.int64,
}


class Layout(StrictModel):
    """The properties that all episodes of a dataset share.

    rate: control ticks per second. views: image topics. joints, gripper: a state holds the positions and velocities of
    `joints` and the positions of `gripper`; other states have names in `fields`. action_names: names of the values of
    an action, which are mean velocities over a tick, divided by action_scale. action_space: of a
    robot file, which models need, or what a mapping names.
    positions: names of the objects whose positions are recorded.
    """

    rate: float = Field(gt=0)
    size: int = Field(ge=8, le=1024)
    views: tuple[str, ...] = Field(min_length=1)
    joints: tuple[str, ...] = ()
    gripper: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    action_space: str
    action_source: str
    action_names: tuple[str, ...] = Field(min_length=1)
    action_scale: float = Field(1.0, gt=0)
    positions: tuple[str, ...] = ()
    robot: str | None = None

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the P values of a state."""
        if self.fields:
            return self.fields
        return (
            *(f"{j}.pos" for j in self.joints),
            *(f"{j}.vel" for j in self.joints),
            *(f"{g}.pos" for g in self.gripper),
        )


class EpisodeEntry(StrictModel):
    """Rows `start` to `start + frames` of a shard. stamp: ns of the first frame. number: of the episode in its bag."""

    start: int = Field(ge=0)
    frames: int = Field(ge=2)
    number: int = 0
    split: str = ""
    task: str = ""
    stamp: int = 0


class ShardInfo(StrictModel):
    """shard.json: one bag. dropped: by reason. problems: defects of the bag."""

    schema_version: Literal[1] = SCHEMA_VERSION
    bag: str
    fingerprint: str
    rows: int = Field(ge=0)
    seen: int = Field(0, ge=0, description="images in the bag")
    topics: dict[str, tuple[str, int]] = {}
    episodes: tuple[EpisodeEntry, ...]
    dropped: dict[str, int] = {}
    problems: tuple[str, ...] = ()
    camera: CameraReference | None = None
    layout: Layout | None = None


class IndexedEpisode(EpisodeEntry):
    """An episode in the index. shard: its position in the list of shards."""

    shard: int = Field(ge=0)
    split: Literal["train", "val", "test"]


class Index(StrictModel):
    """dataset.json. shards: relative directories. split_by: marker, bag or episode."""

    schema_version: Literal[1] = SCHEMA_VERSION
    layout: Layout
    shards: tuple[str, ...] = Field(min_length=1)
    bags: tuple[str, ...]
    split_by: str
    camera: CameraReference | None = None
    episodes: Annotated[tuple[IndexedEpisode, ...], Field(min_length=1)]


def write_json(path: Path, value: BaseModel) -> None:
    """Write a model as JSON atomically; equal models give equal bytes."""
    write_atomically(path, json.dumps(value.model_dump(mode="json"), indent=1, allow_nan=False) + "\n")


def is_dataset(path: Path) -> bool:
    """Check whether a path given as data is a built dataset and not a bag."""
    return (Path(path) / INDEX).is_file()


class Dataset:
    """A built dataset. Its arrays are memory-mapped, so that memory does not grow with them."""

    def __init__(self, path: Path):
        """Raises InputError that names the malformed file."""
        self.path = Path(path)
        self.index: Index = _read(self.path / INDEX, Index)
        self.layout = self.index.layout
        self._shards: dict[int, dict[str, np.ndarray]] = {}
        for entry in self.index.episodes:
            if entry.shard >= len(self.index.shards):
                wanted = f"shard numbers below {len(self.index.shards)}"
                raise InputError(f"dataset {self.path / INDEX}: episodes: expected {wanted}, found {entry.shard}")
            if entry.start + entry.frames > (rows := len(self.arrays(entry.shard)["frames"])):
                shard = self.path / self.index.shards[entry.shard]
                raise InputError(f"dataset {shard}: expected {entry.start + entry.frames} rows, found {rows}")

    def arrays(self, shard: int) -> dict[str, np.ndarray]:
        """Return the arrays of a shard by name, memory-mapped. Raises InputError where one is missing or malformed."""
        if shard not in self._shards:
            self._shards[shard] = self._load(self.path / self.index.shards[shard])
        return self._shards[shard]

    def _load(self, folder: Path) -> dict[str, np.ndarray]:
        x = self.layout
        shapes = {
            "frames": (len(x.views), x.size, x.size, 3),
            "states": (len(x.state_names),),
            "actions": (len(x.action_names),),
            "positions": (len(x.positions), 3),
            "stamps": (),
            "pictures": (len(x.views),),
        }
        arrays: dict[str, np.ndarray] = {}
        for name, kind in ARRAYS.items():
            file = folder / f"{name}.npy"
            try:
                array = np.load(file, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise InputError(f"dataset {file}: expected an array, found {error}") from None
            rows = len(arrays["frames"]) if arrays else len(array) if array.ndim else 0
            if array.shape != (shape := (rows, *shapes[name])) or array.dtype != kind:
                found = f"{array.shape} {array.dtype}"
                raise InputError(f"dataset {file}: expected {shape} {np.dtype(kind)}, found {found}")
            arrays[name] = array
        return arrays

    def urdf(self) -> str | None:
        """Return the URDF of the first bag that has one."""
        paths = (self.path / shard / URDF for shard in self.index.shards)
        return next((path.read_text(encoding="utf-8") for path in paths if path.is_file()), None)

    def rows(self, entry: IndexedEpisode, name: str) -> np.ndarray:
        """Return the rows of an episode in an array, memory-mapped."""
        return self.arrays(entry.shard)[name][entry.start : entry.start + entry.frames]


def _read(path: Path, kind):
    try:
        if (size := path.stat().st_size) > LARGEST_INDEX_BYTES:
            raise InputError(f"dataset {path}: expected at most {LARGEST_INDEX_BYTES} bytes, found {size}")
        return kind.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except InputError:
        raise
    except ValidationError as error:
        raise InputError(f"dataset {path}: {first_problem(error)}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"dataset {path}: expected an index, found {error}") from None


def read_shard(folder: Path) -> ShardInfo:
    """Return shard.json of a shard. Raises InputError."""
    return _read(folder / SHARD, ShardInfo)


def choose_split(number: int, count: int = 20) -> str:
    """Return the split of episode (or bag) `number` of `count`, if it has none of its own.

    One in twenty is val and one in twenty test; at least one each from three episodes on.
    """
    if count >= 20:
        return {7: "val", 13: "test"}.get(number % 20, "train")
    return {count - 2: "val", count - 1: "test"}.get(number, "train") if count >= 3 else "train"
