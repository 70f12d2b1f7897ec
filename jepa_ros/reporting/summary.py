"""`summary.json`: the results of a command for scripts, and the statistics in it."""

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


def write_summary(path: str | os.PathLike, values: Mapping[str, Any]) -> Path:
    """Write `values` as JSON to `path` atomically and return the path.

    NumPy numbers and arrays become plain ones; floats keep six significant digits; a `Path` is written
    relative to the summary's own folder, so that the folder can be moved.

    Raises:
        InputError: a value is not finite, or of a type that JSON lacks; the message names its key.
    """
    path = Path(path)
    text = json.dumps(_plain(values, "", path.parent), indent=2, allow_nan=False) + "\n"
    return write_atomically(path, text)


def percentiles(samples, wanted=(50, 99), extra: Mapping[str, Any] | None = None) -> dict[str, float | None]:
    """Return `{"p50": ..., "p99": ...}` of the finite `samples` (N,), in their unit; None where there are none.

    `extra` adds named reductions, such as `{"max": np.max}`.
    """
    samples = np.asarray(list(samples), dtype=float).ravel()
    samples = samples[np.isfinite(samples)]
    result: dict[str, float | None] = {
        f"p{p:g}": float(np.percentile(samples, p)) if samples.size else None for p in wanted
    }
    for name, reduce in (extra or {}).items():
        result[name] = float(reduce(samples)) if samples.size else None
    return result


def finite_or_none(value: Any) -> Any:
    """Return None for a float that is not finite, any other value as it is."""
    return None if isinstance(value, (float, np.floating)) and not math.isfinite(value) else value


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a success rate, each end in 0..1 (Wilson 1927)."""
    z, p = 1.959964, successes / trials
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2)) / (1 + z * z / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def _plain(value: Any, key: str, folder: Path) -> Any:
    """Return `value` in types that JSON has; `key` is its dotted path, for errors."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{key}.{k}".lstrip("."), folder) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(v, f"{key}[{i}]", folder) for i, v in enumerate(value)]
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        if not math.isfinite(value):
            raise InputError(f"summary: {key}: {value} is not a finite number")
        return float(f"{float(value):.6g}")
    if isinstance(value, Path):
        return Path(os.path.relpath(value.resolve(), folder.resolve())).as_posix()
    raise InputError(f"summary: {key}: JSON has no type for {type(value).__name__}")
