"""Table with a row for each frame: Parquet where pyarrow is installed, JSON lines otherwise."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jepa_ros.evaluation.bag.metrics.latents import UNITS
from jepa_ros.evaluation.bag.metrics.table import BagResult
from jepa_ros.reporting.summary import finite_or_none


class FrameTable:
    """Writes `frames.parquet` or `frames.jsonl`, which appears in `directory` when `finish` is called.

    A context manager. Columns are arrays of equal length, with the same names each time; non-finite values become null.
    """

    def __init__(self, directory: Path, parquet: bool | None = None):
        if parquet is None:
            parquet = importlib.util.find_spec("pyarrow") is not None
        self.path = directory / f"frames.{'parquet' if parquet else 'jsonl'}"
        self._partial = directory / f".{self.path.name}.{os.getpid()}"
        self._parquet, self._writer, self._file = parquet, None, None

    def __enter__(self) -> FrameTable:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._partial.unlink(missing_ok=True)

    def add(self, columns: Mapping[str, Any]) -> None:
        """Append the rows of one bag."""
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        if self._parquet:
            self._add_parquet(columns)
            return
        if self._file is None:
            self._file = self._partial.open("w", encoding="utf-8")
        lists = {name: np.asarray(values).tolist() for name, values in columns.items()}
        for row in zip(*lists.values(), strict=True):
            self._file.write(json.dumps(dict(zip(lists, map(finite_or_none, row), strict=True))) + "\n")

    def finish(self) -> None:
        """Close the file and move it to `path`."""
        self._close()
        if self._partial.exists():
            os.replace(self._partial, self.path)

    def _add_parquet(self, columns: Mapping[str, Any]) -> None:
        import pyarrow
        from pyarrow import parquet

        table = pyarrow.table({name: pyarrow.array(values, from_pandas=True) for name, values in columns.items()})
        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._partial, table.schema)
        self._writer.write_table(table)

    def _close(self) -> None:
        for name in ("_writer", "_file"):
            if (handle := getattr(self, name)) is not None:
                handle.close()
                setattr(self, name, None)


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
