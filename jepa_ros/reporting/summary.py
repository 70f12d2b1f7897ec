"""``summary.json``: the figures of a long command, for scripts to read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.text_files import write_atomically


def write_summary(path: str | os.PathLike, values: Mapping[str, Any], digits: int = 6) -> Path:
    """Write ``values`` as JSON at ``path`` in one step, so that a reader sees the old file or the whole new one.

    Numbers and arrays of NumPy become plain ones; floats keep ``digits`` significant digits; a ``Path`` is written
    relative to the summary's own folder, so that the folder can be moved.

    Raises:
        InputError: a value is not finite, or of a type that JSON lacks; the message names its key.
    """
    path = Path(path)
    text = json.dumps(_plain(values, "", path.parent, digits), indent=2, allow_nan=False) + "\n"
    return write_atomically(path, text)


def percentiles(samples, wanted=(50, 99), extra: Mapping[str, Any] | None = None) -> dict[str, float | None]:
    """``{"p50": ..., "p99": ...}`` of the finite ``samples`` (N,), in their unit; None for each when there are none.

    ``extra`` adds named reductions, such as ``{"max": np.max}``.
    """
    samples = np.asarray(list(samples), dtype=float).ravel()
    samples = samples[np.isfinite(samples)]
    result: dict[str, float | None] = {
        f"p{p:g}": float(np.percentile(samples, p)) if samples.size else None for p in wanted
    }
    for name, reduce in (extra or {}).items():
        result[name] = float(reduce(samples)) if samples.size else None
    return result


def _plain(value: Any, key: str, folder: Path, digits: int) -> Any:
    """``value`` as JSON's own types; ``key`` is its dotted path, for errors."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{key}.{k}".lstrip("."), folder, digits) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(v, f"{key}[{i}]", folder, digits) for i, v in enumerate(value)]
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        if not math.isfinite(value):
            raise InputError(f"summary: {key}: expected a finite number, found {value}")
        return float(f"{float(value):.{digits}g}")
    if isinstance(value, Path):
        return Path(os.path.relpath(value.resolve(), folder.resolve())).as_posix()
    raise InputError(f"summary: {key}: expected a number, text, list or mapping, found {type(value).__name__}")
