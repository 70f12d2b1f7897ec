"""Table with a row for each frame: Parquet where pyarrow is installed, JSON lines otherwise."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jepa_ros.evaluation.bag.metrics.latents import UNITS
from jepa_ros.evaluation.bag.metrics.table import BagResult
from jepa_ros.reporting.summary import finite_or_none
from jepa_ros.text_files import atomic_path


def write_frame_table(directory: Path, bags: Iterable[Mapping[str, Any]], parquet: bool | None = None) -> Path:
    """Write `frames.parquet` or `frames.jsonl` into `directory` and return its path.

    bags: columns of each bag, arrays of equal length, with the same names; non-finite values become null. parquet: for
    tests; default: where pyarrow is installed.
    """
    if parquet is None:
        parquet = importlib.util.find_spec("pyarrow") is not None
    path = directory / f"frames.{'parquet' if parquet else 'jsonl'}"
    with atomic_path(path) as partial:
        (_write_parquet if parquet else _write_json_lines)(partial, bags)
    return path


def _write_parquet(path: Path, bags: Iterable[Mapping[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    tables = [
        pyarrow.table({name: pyarrow.array(values, from_pandas=True) for name, values in columns.items()})
        for columns in bags
    ]
    parquet.write_table(pyarrow.concat_tables(tables), path)


def _write_json_lines(path: Path, bags: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for columns in bags:
            for row in zip(*(np.asarray(values).tolist() for values in columns.values()), strict=True):
                file.write(json.dumps(dict(zip(columns, map(finite_or_none, row), strict=True))) + "\n")


def frame_columns(result: BagResult) -> dict[str, Any]:
    """Return the columns of one bag, a value for each frame."""
    recording, samples = result.recording, result.samples
    count = len(recording.frame_stamps)
    readings = np.full((2, count), np.nan)
    for frame, reading in zip(samples["surprise"]["frames"], samples["surprise"]["readings"], strict=True):
        readings[:, frame] = reading.error, reading.quantile
    columns = {
        "bag": [result.name] * count,
        "stamp_ns": np.array(recording.frame_stamps, np.int64),
        "recorded_ns": np.array(recording.frame_recorded, np.int64),
        "epoch": np.array(recording.frame_epochs, np.int64),
        "frozen": np.array(recording.frozen, bool),
        "training_distance": np.array(recording.training_distance, float),
        "surprise_error": readings[0],
        "surprise_quantile": readings[1],
    }
    for name, unit in UNITS.items():
        columns[f"probe_{name}_{unit}"] = samples["probes"].get(f"{name}_error", np.full(count, np.nan)).astype(float)
    errors = samples["prediction"]
    for name, title in (("model", "error"), ("still", "persistence"), ("shuffled", "shuffled")):
        values = np.full((count, errors[name].shape[1]), np.nan)
        values[errors["frames"]] = errors[name]
        columns |= {f"{title}@{k + 1}": values[:, k] for k in range(values.shape[1])}
    return columns
