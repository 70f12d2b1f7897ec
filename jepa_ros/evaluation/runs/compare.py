"""`jepa_ros compare runs RUN...`: evaluations of the same bags or goals, each compared with the first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.reporting import plots
from jepa_ros.reporting.output import prepare_out
from jepa_ros.reporting.report import Report
from jepa_ros.reporting.result import print_result
from jepa_ros.evaluation.runs.bootstrap import BOOTSTRAP_DRAWS, Difference, compare_paired
from jepa_ros.evaluation.runs.samples import CaseMetric, EvaluationRun, read_run
from jepa_ros.reporting.summary import write_summary


def compare_runs(*, runs: Sequence[Path], seed: int, out: Path) -> int:
    """Compare runs with the first one; write summary.json and report.html into `out`, print a table. Return 0.

    runs: directories that `evaluate sim` or `evaluate bag` wrote. Raises InputError for runs that cannot be compared.
    """
    if len(runs) < 2:
        raise InputError("compare runs: give at least two runs")
    found = _name_apart([read_run(Path(path)) for path in runs])
    base, others = found[0], found[1:]
    compared = {other.name: _compare_with_base(base, other, seed) for other in others}
    out = prepare_out(out)
    values = {
        "base": base.name,
        "kind": base.kind,
        "seed": seed,
        "draws": BOOTSTRAP_DRAWS,
        "runs": {r.name: {"model": r.summary.get("model"), "model_id": r.summary.get("model_id")} for r in found},
        "against_base": {
            name: {metric: _finite_only(asdict(d)) | {"sure": d.sure} for metric, d in differences.items()}
            for name, differences in compared.items()
        },
    }
    written: list[Path] = []
    try:
        written.append(write_summary(out / "summary.json", values))
        written.append(_write_report(out / "report.html", base, compared))
    finally:  # results are printed even where they cannot be written
        table = COLUMNS, _rows_of_table(compared)
        print_result(f"{', '.join(compared)} compared with {base.name}", (), written, table)
    return 0


def _name_apart(runs: list[EvaluationRun]) -> list[EvaluationRun]:
    """Return the runs with different names: a number is added where directories have the same name."""
    kinds = {r.kind for r in runs}
    if len(kinds) > 1:
        raise InputError(f"compare runs: runs of `evaluate {'` and `evaluate '.join(sorted(kinds))}` cannot be compared")
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


def _finite_only(values: dict) -> dict:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _cells(name: str, metric: str, d: Difference) -> list[str]:
    both = (f"{d.first:.4g}", f"{d.second:.4g}")
    return [metric, name, *both, f"{d.difference:+.4g}", f"{d.low:+.4g} to {d.high:+.4g}", f"{100 * d.ahead:.0f} %"]


COLUMNS = ("metric", "run", "base", "run", "difference", "95 % interval", "better")


def _rows_of_table(compared: dict[str, dict[str, Difference]]) -> list[list[str]]:
    return [_cells(name, metric, d) for name, found in compared.items() for metric, d in found.items() if d.cases]


def _write_report(path: Path, base: EvaluationRun, compared: dict[str, dict[str, Difference]]) -> Path:
    cases = {name: max((d.cases for d in found.values()), default=0) for name, found in compared.items()}
    report = Report("Comparison of evaluations", f"Compared with {base.name}")
    report.text(
        f"Differences are over the cases that both runs have, from {BOOTSTRAP_DRAWS} paired bootstrap draws. A 95 % "
        "confidence interval that does not contain 0 is a significant difference."
    )
    report.tiles({f"common cases with {name}": count for name, count in cases.items()})
    report.table(_rows_of_table(compared), COLUMNS)
    names = list(dict.fromkeys(metric for found in compared.values() for metric, d in found.items() if d.cases))
    fig, axes = plots.figure(1)
    for k, (name, found) in enumerate(compared.items()):
        at = [(names.index(f), d) for f, d in found.items() if d.cases and d.first]
        y = [i + 0.15 * k for i, _ in at]
        scale = [abs(d.first) for _, d in at]
        middle = [100 * d.difference / s for (_, d), s in zip(at, scale, strict=True)]
        left = [100 * (d.difference - d.low) / s for (_, d), s in zip(at, scale, strict=True)]
        right = [100 * (d.high - d.difference) / s for (_, d), s in zip(at, scale, strict=True)]
        axes.errorbar(middle, y, xerr=[left, right], fmt="o", label=name, capsize=3)
    axes.axvline(0.0, lw=1)
    axes.set(title="Difference in % of the base", yticks=range(len(names)), yticklabels=names)
    axes.legend()
    report.plot(fig)
    return report.write(path)
