"""Results of an evaluation case by case, so that runs over the same cases can be paired.

A case is a frame of a bag (`evaluate bag`) or a goal (`evaluate sim`). A metric is a mean over cases, or a ratio of two
means, such as the model's prediction error over the error of predicting no change.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jepa_ros.errors import InputError


@dataclass(frozen=True)
class CaseMetric:
    """values (n,) of a run's cases, NaN where there is none. over (n,): denominators for a ratio of means; None for a
    plain mean. more_is_better: which of two runs is ahead."""

    values: np.ndarray
    over: np.ndarray | None = None
    more_is_better: bool = False

    @property
    def known(self) -> np.ndarray:
        """(n,) bool: cases that have a value."""
        return np.isfinite(self.values) if self.over is None else np.isfinite(self.values) & np.isfinite(self.over)

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """(n,) each: over any cases the metric is the sum of the first divided by the sum of the second."""
        return self.values, np.ones(len(self.values)) if self.over is None else self.over


@dataclass(frozen=True)
class EvaluationRun:
    """One evaluation. cases: identifies a case in two runs, in the order of the metrics' values. groups (n,): cases of
    one group follow each other in time, so that neighbours are similar."""

    name: str
    kind: str
    summary: dict[str, Any]
    cases: list[tuple]
    groups: np.ndarray
    metrics: dict[str, CaseMetric]


def read_run(path: Path) -> EvaluationRun:
    """Read a directory that `evaluate bag` or `evaluate sim` wrote. Raises InputError for anything else."""
    file = path / "summary.json"
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else f"not JSON: {error}"
        raise InputError(f"run {path}: cannot read summary.json ({why}); give the --out of an evaluation") from None
    if isinstance(summary, dict) and isinstance(summary.get("per_goal"), list):
        return _read_goals(path, summary)
    if isinstance(summary, dict) and "bags" in summary and isinstance(summary.get("files"), dict):
        return _read_frames(path, summary)
    raise InputError(f"run {path}: its summary.json is not of `evaluate bag` or `evaluate sim`")


def _read_goals(path: Path, summary: dict[str, Any]) -> EvaluationRun:
    goals = summary["per_goal"]
    cases = [(summary.get("goal_set_hash"), g["goal"], *g["start_xy"], *g["goal_xy"]) for g in goals]
    metrics = {
        "reached": CaseMetric(np.array([float(g["reached"]) for g in goals]), more_is_better=True),
        "final_distance_m": CaseMetric(np.array([g["final_distance"] for g in goals], float)),
        "seconds": CaseMetric(np.array([g["seconds"] for g in goals], float)),
    }
    return EvaluationRun(path.name, "sim", summary, cases, np.arange(len(goals)), metrics)


def _read_frames(path: Path, summary: dict[str, Any]) -> EvaluationRun:
    table = _read_table(path, summary["files"].get("frames") or "frames.parquet")
    metrics = {}
    for name in table:
        if (found := re.fullmatch(r"error@(\d+)", name)) and f"persistence@{found[1]}" in table:
            metrics[f"prediction_ratio@{found[1]}"] = CaseMetric(
                _numbers(table[name]), _numbers(table[f"persistence@{found[1]}"])
            )
    for name in ("probe_tool_m", "probe_joints_rad", "surprise_error", "training_distance"):
        if name in table and np.isfinite(_numbers(table[name])).any():
            metrics[name] = CaseMetric(_numbers(table[name]))
    bags = list(table["bag"])
    cases = list(zip(bags, map(int, table["stamp_ns"]), map(int, table["recorded_ns"]), strict=True))
    groups = np.unique([f"{bag} {epoch}" for bag, epoch in zip(bags, table["epoch"], strict=True)], return_inverse=True)
    return EvaluationRun(path.name, "bag", summary, cases, groups[1], metrics)


def _read_table(path: Path, name: str) -> dict[str, list]:
    file = path / name
    if not file.is_file():
        raise InputError(f"run {path}: the table of frames {name} is missing")
    if file.suffix == ".parquet":
        try:
            from pyarrow import parquet
        except ImportError:
            raise InputError(f"run {path}: reading {name} needs pyarrow, which is not installed") from None
        return parquet.read_read_table(file).to_pydict()
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {key: [row[key] for row in rows] for key in rows[0]} if rows else {}


def _numbers(values: list) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], float)
