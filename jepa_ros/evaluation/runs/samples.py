"""What an evaluation measured, case by case, so that two of the same cases can be paired.

A case is a frame of a bag (`evaluate bag`) or a goal (`evaluate sim`). A figure is a mean over cases, or a ratio of two
means, such as the model's prediction error over that of a world that stands still.
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
class Figure:
    """values (n,) of a run's cases, NaN where there is none. over (n,): what they are a share of, as a ratio of means;
    None for a plain mean. more_is_better: of two runs, which one is ahead."""

    values: np.ndarray
    over: np.ndarray | None = None
    more_is_better: bool = False

    @property
    def known(self) -> np.ndarray:
        """(n,) bool: the cases that have a value."""
        return np.isfinite(self.values) if self.over is None else np.isfinite(self.values) & np.isfinite(self.over)

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """(n,) each: over any cases the figure is the sum of the first divided by the sum of the second."""
        return self.values, np.ones(len(self.values)) if self.over is None else self.over


@dataclass(frozen=True)
class Run:
    """One evaluation. cases: what makes a case the same one in two runs, in the order of the figures' values. groups
    (n,): cases of one group follow each other in time, so that neighbours resemble each other."""

    name: str
    kind: str
    summary: dict[str, Any]
    cases: list[tuple]
    groups: np.ndarray
    figures: dict[str, Figure]


def read_run(path: Path) -> Run:
    """A directory that `evaluate bag` or `evaluate sim` wrote. Raises InputError for anything else."""
    file = path / "summary.json"
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else f"no JSON ({error})"
        raise InputError(f"run {path}: expected summary.json of an evaluation, found {why}") from None
    if isinstance(summary, dict) and isinstance(summary.get("per_goal"), list):
        return _of_goals(path, summary)
    if isinstance(summary, dict) and "bags" in summary and isinstance(summary.get("files"), dict):
        return _of_frames(path, summary)
    raise InputError(f"run {path}: expected what `evaluate bag` or `evaluate sim` wrote, found another summary.json")


def _of_goals(path: Path, summary: dict[str, Any]) -> Run:
    goals = summary["per_goal"]
    cases = [(summary.get("goal_set_hash"), g["goal"], *g["start_xy"], *g["goal_xy"]) for g in goals]
    figures = {
        "reached": Figure(np.array([float(g["reached"]) for g in goals]), more_is_better=True),
        "final_distance_m": Figure(np.array([g["final_distance"] for g in goals], float)),
        "seconds": Figure(np.array([g["seconds"] for g in goals], float)),
    }
    return Run(path.name, "sim", summary, cases, np.arange(len(goals)), figures)


def _of_frames(path: Path, summary: dict[str, Any]) -> Run:
    table = _table(path, summary["files"].get("frames") or "frames.parquet")
    figures = {}
    for name in table:
        if (found := re.fullmatch(r"error@(\d+)", name)) and f"persistence@{found[1]}" in table:
            figures[f"prediction_ratio@{found[1]}"] = Figure(
                _numbers(table[name]), _numbers(table[f"persistence@{found[1]}"])
            )
    for name in ("probe_tool_m", "probe_joints_rad", "surprise_error", "training_distance"):
        if name in table and np.isfinite(_numbers(table[name])).any():
            figures[name] = Figure(_numbers(table[name]))
    bags = list(table["bag"])
    cases = list(zip(bags, map(int, table["stamp_ns"]), map(int, table["recorded_ns"]), strict=True))
    groups = np.unique([f"{bag} {epoch}" for bag, epoch in zip(bags, table["epoch"], strict=True)], return_inverse=True)
    return Run(path.name, "bag", summary, cases, groups[1], figures)


def _table(path: Path, name: str) -> dict[str, list]:
    file = path / name
    if not file.is_file():
        raise InputError(f"run {path}: expected the table of frames {name}, found none")
    if file.suffix == ".parquet":
        try:
            from pyarrow import parquet
        except ImportError:
            raise InputError(f"run {path}: expected pyarrow to read {name}, found it not installed") from None
        return parquet.read_table(file).to_pydict()
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {key: [row[key] for row in rows] for key in rows[0]} if rows else {}


def _numbers(values: list) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], float)
