"""One row a frame: Parquet where pyarrow is installed, JSON lines otherwise."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class FrameTable:
    """`frames.parquet` or `frames.jsonl` in a directory, there once `finish` has been called. A context manager.

    Columns are arrays of equal length, the same ones each time; what is not finite is null.
    """

    def __init__(self, directory: Path, parquet: bool | None = None):
        if parquet is None:
            parquet = importlib.util.find_spec("pyarrow") is not None
        self.path = directory / f"frames.{'parquet' if parquet else 'jsonl'}"
        self._partial = directory / f".{self.path.name}.{os.getpid()}"
        self._parquet, self._writer, self._file = parquet, None, None

    def __enter__(self) -> FrameTable:
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        if not self._parquet:
            self._file = self._partial.open("w", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._partial.unlink(missing_ok=True)

    def add(self, columns: Mapping[str, Any]) -> None:
        """Rows of one bag."""
        if self._parquet:
            self._add_parquet(columns)
            return
        lists = {name: np.asarray(values).tolist() for name, values in columns.items()}
        for row in zip(*lists.values(), strict=True):
            self._file.write(json.dumps(dict(zip(lists, map(_plain, row), strict=True))) + "\n")

    def finish(self) -> None:
        """The file is complete."""
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


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
