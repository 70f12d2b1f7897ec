"""The parquet files: rows of frames, rows of episodes, tasks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from jepa_ros.datasets.lerobot import layout as f
from jepa_ros.errors import InputError

EPISODES_PER_GROUP = 500  # rows of meta/episodes that are written together


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
            self._data, self._bytes, self._numbers = None, 0, f.next_file(*self._numbers)
        if self._data is None:
            path = f.file_of(self._root, f.DATA, *self._numbers)
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
            path = f.file_of(self._root, f.EPISODES, 0, 0)
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
