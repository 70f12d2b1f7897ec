"""`jepa_ros compare runs RUN...`: evaluations of the same bags or goals, each compared with the first.

A case is a frame of a bag (`evaluate bag`) or a goal (`evaluate sim`). A metric is a mean over cases, or a ratio of two
means, such as the model's prediction error over the error of predicting no change.

Differences are tested by a paired bootstrap: both runs are evaluated on the same cases, drawn with replacement, so that
a hard case is hard for both (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 8). Frames are drawn
in blocks of neighbours, since these are similar (Carlstein, Annals of Statistics 14, 1986).
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.reporting import plots
from jepa_ros.reporting.output import after_summary, prepare_out
from jepa_ros.reporting.report import Report
from jepa_ros.reporting.result import print_result
from jepa_ros.reporting.summary import finite_or_none, write_summary

BOOTSTRAP_DRAWS = 2000
BLOCK_FRAMES = 50  # some seconds of a camera
CONFIDENCE = 0.95
COLUMNS = ("metric", "run", "base", "run", "difference", "95 % interval", "better")


@dataclass(frozen=True)
class CaseMetric:
    """values (n,) of a run's cases, NaN where there is none. over (n,): denominators for a ratio of means; None for a
    plain mean. more_is_better: which of two runs is ahead."""

    values: np.ndarray
    over: np.ndarray | None = None
    more_is_better: bool = False

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


@dataclass(frozen=True)
class Difference:
    """One metric of two runs: first, second, second minus first with its confidence interval, and the share of draws in
    which the second is better. cases: how many both have."""

    first: float
    second: float
    difference: float
    low: float
    high: float
    ahead: float
    cases: int

    @property
    def sure(self) -> bool:
        """The confidence interval does not contain 0."""
        return self.low > 0.0 or self.high < 0.0


def compare_runs(*, runs: Sequence[Path], seed: int, out: Path) -> int:
    """Compare runs with the first one; write summary.json and report.html into `out`, print a table. Return 0.

    runs: directories that `evaluate sim` or `evaluate bag` wrote. Raises InputError for runs that cannot be compared.
    """
    if len(runs) < 2:
        raise InputError("compare runs: give at least two runs")
    found = _give_unique_names([read_run(Path(path)) for path in runs])
    base, *others = found
    compared = {other.name: _compare_with_base(base, other, seed) for other in others}
    out = prepare_out(out)
    values = {
        "base": base.name,
        "kind": base.kind,
        "seed": seed,
        "draws": BOOTSTRAP_DRAWS,
        "runs": {r.name: {"model": r.summary.get("model"), "model_id": r.summary.get("model_id")} for r in found},
        "against_base": {
            name: {
                metric: {key: finite_or_none(value) for key, value in asdict(d).items()} | {"sure": d.sure}
                for metric, d in differences.items()
            }
            for name, differences in compared.items()
        },
    }
    written: list[Path] = []
    try:
        written.append(write_summary(out / "summary.json", values))
        with after_summary(written[0]):
            written.append(_write_report(out / "report.html", base, compared))
    finally:  # results are printed even where they cannot be written
        table = COLUMNS, _table_rows(compared)
        print_result(f"{', '.join(compared)} compared with {base.name}", (), written, table)
    return 0


def _give_unique_names(runs: list[EvaluationRun]) -> list[EvaluationRun]:
    """Return the runs, with a number in the name where directories have the same name. Raises InputError for runs of
    different kinds."""
    kinds = {r.kind for r in runs}
    if len(kinds) > 1:
        raise InputError(
            f"compare runs: runs of `evaluate {'` and `evaluate '.join(sorted(kinds))}` cannot be compared"
        )
    names = [r.name if [o.name for o in runs].count(r.name) == 1 else f"{r.name} ({k + 1})" for k, r in enumerate(runs)]
    return [replace(run, name=name) for name, run in zip(names, runs, strict=True)]


def _compare_with_base(base: EvaluationRun, other: EvaluationRun, seed: int) -> dict[str, Difference]:
    """Compare the metrics that both have, over the cases that both have."""
    place = {case: k for k, case in enumerate(other.cases)}
    mine = np.array([k for k, case in enumerate(base.cases) if case in place], int)
    if not len(mine):
        what = "frame of the same bag" if base.kind == "bag" else "goal (use the same --goals and --seed)"
        raise InputError(f"compare runs: {base.name} and {other.name} have no common {what}")
    theirs = np.array([place[base.cases[k]] for k in mine], int)
    rng = np.random.default_rng(seed)
    return {
        name: compare_paired(_select(metric, mine), _select(other.metrics[name], theirs), base.groups[mine], rng)
        for name, metric in base.metrics.items()
        if name in other.metrics
    }


def _select(metric: CaseMetric, rows: np.ndarray) -> CaseMetric:
    return replace(metric, values=metric.values[rows], over=None if metric.over is None else metric.over[rows])


def _table_rows(compared: dict[str, dict[str, Difference]]) -> list[list[Any]]:
    return [
        [
            metric,
            name,
            d.first,
            d.second,
            f"{d.difference:+.4g}",
            f"{d.low:+.4g} to {d.high:+.4g}",
            f"{100 * d.ahead:.0f} %",
        ]
        for name, found in compared.items()
        for metric, d in found.items()
        if d.cases
    ]


def _write_report(path: Path, base: EvaluationRun, compared: dict[str, dict[str, Difference]]) -> Path:
    cases = {name: max((d.cases for d in found.values()), default=0) for name, found in compared.items()}
    report = Report("Comparison of evaluations", f"Compared with {base.name}")
    report.text(
        f"Differences are over the cases that both runs have, from {BOOTSTRAP_DRAWS} paired bootstrap draws. A 95 % "
        "confidence interval that does not contain 0 is a significant difference."
    )
    report.tiles({f"common cases with {name}": count for name, count in cases.items()})
    report.table(_table_rows(compared), COLUMNS)
    names = list(dict.fromkeys(metric for found in compared.values() for metric, d in found.items() if d.cases))
    fig, axes = plots.figure(1)
    for k, (name, found) in enumerate(compared.items()):
        at = [(names.index(f), d) for f, d in found.items() if d.cases and d.first]
        y = [i + 0.15 * k for i, _ in at]
        percent = [np.array([d.low, d.difference, d.high]) * 100 / abs(d.first) for _, d in at]
        low, middle, high = np.array(percent).reshape(-1, 3).T
        axes.errorbar(middle, y, xerr=[middle - low, high - middle], fmt="o", label=name, capsize=3)
    axes.axvline(0.0, lw=1)
    axes.set(title="Difference in % of the base", yticks=range(len(names)), yticklabels=names)
    axes.legend()
    report.plot(fig)
    return report.write(path)


def compare_paired(first: CaseMetric, second: CaseMetric, groups: np.ndarray, rng: np.random.Generator) -> Difference:
    """Compare a metric of two runs over the same cases, case by case; groups (n,) as in EvaluationRun."""
    rows = np.flatnonzero(np.isfinite([*first.parts, *second.parts]).all(axis=0))
    if not len(rows):
        return Difference(*[float("nan")] * 6, 0)
    begins = _block_starts(groups[rows])
    # How often each block is drawn; the metric of a draw is then a ratio of two sums over blocks.
    times = rng.multinomial(len(begins), np.full(len(begins), 1.0 / len(begins)), BOOTSTRAP_DRAWS)
    drawn, whole = [], []
    for metric in (first, second):
        above, below = (np.add.reduceat(part[rows], begins) for part in metric.parts)
        drawn.append((times @ above) / (times @ below))
        whole.append(float(above.sum() / below.sum()))
    difference = drawn[1] - drawn[0]
    low, high = np.percentile(difference, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    ahead = float(np.mean(difference > 0 if first.more_is_better else difference < 0))
    return Difference(*whole, whole[1] - whole[0], float(low), float(high), ahead, len(rows))


def _block_starts(groups: np.ndarray) -> np.ndarray:
    """Return where blocks start: BLOCK_FRAMES neighbours of one group at a time, and the rest of it."""
    cuts = [0, *(np.flatnonzero(np.diff(groups)) + 1), len(groups)]
    return np.concatenate([np.arange(a, b, BLOCK_FRAMES) for a, b in itertools.pairwise(cuts)])


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
    cases = [
        (summary.get("goal_set_hash"), g["goal"], *g.get("start", g["start_xy"]), *g.get("target", g["goal_xy"]))
        for g in goals
    ]
    metrics = {
        "reached": CaseMetric(np.array([float(g["reached"]) for g in goals]), more_is_better=True),
        "final_distance_m": CaseMetric(np.array([g["final_distance"] for g in goals], float)),
        "seconds": CaseMetric(np.array([g["seconds"] for g in goals], float)),
    }
    return EvaluationRun(path.name, "sim", summary, cases, np.arange(len(goals)), metrics)


def _read_frames(path: Path, summary: dict[str, Any]) -> EvaluationRun:
    table = _read_table(path, summary["files"].get("frames") or "frames.parquet")
    bags, epochs = table.pop("bag", []), table.pop("epoch", [])
    cases = list(zip(bags, table.get("stamp_ns", []), table.get("recorded_ns", []), strict=True))
    groups = np.unique([f"{bag} {epoch}" for bag, epoch in zip(bags, epochs, strict=True)], return_inverse=True)[1]
    values = {name: np.array([np.nan if v is None else v for v in column], float) for name, column in table.items()}
    metrics = {
        f"prediction_ratio@{found[1]}": CaseMetric(values[name], values[f"persistence@{found[1]}"])
        for name in values
        if (found := re.fullmatch(r"error@(\d+)", name)) and f"persistence@{found[1]}" in values
    }
    for name in ("probe_tool_m", "probe_joints_rad", "surprise_error", "training_distance"):
        if name in values and np.isfinite(values[name]).any():
            metrics[name] = CaseMetric(values[name])
    return EvaluationRun(path.name, "bag", summary, cases, groups, metrics)


def _read_table(path: Path, name: str) -> dict[str, list]:
    file = path / name
    if not file.is_file():
        raise InputError(f"run {path}: the table of frames {name} is missing")
    if file.suffix == ".parquet":
        try:
            from pyarrow import parquet
        except ImportError:
            raise InputError(f"run {path}: reading {name} needs pyarrow, which is not installed") from None
        return parquet.read_table(file).to_pydict()
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {key: [row[key] for row in rows] for key in rows[0]} if rows else {}
