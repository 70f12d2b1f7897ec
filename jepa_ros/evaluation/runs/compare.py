"""`jepa_ros compare runs RUN...`: evaluations of the same bags or goals side by side, each against the first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.reporting import plots
from jepa_ros.reporting.report import Report
from jepa_ros.evaluation.runs.bootstrap import DRAWS, Difference, paired
from jepa_ros.evaluation.runs.samples import Figure, Run, read_run
from jepa_ros.reporting.summary import write_summary


def compare_runs(*, runs: Sequence[Path], seed: int, out: Path) -> int:
    """Prints a table, and writes summary.json and report.html into `out`. Raises InputError for runs that cannot be set
    side by side."""
    if len(runs) < 2:
        raise InputError(f"compare: expected at least two runs, found {len(runs)}")
    found = _named([read_run(Path(path)) for path in runs])
    base, others = found[0], found[1:]
    compared = {other.name: _against(base, other, seed) for other in others}
    _print(base, compared)
    values = {
        "base": base.name,
        "kind": base.kind,
        "seed": seed,
        "draws": DRAWS,
        "runs": {r.name: {"model": r.summary.get("model"), "model_id": r.summary.get("model_id")} for r in found},
        "against_base": {
            name: {figure: _known(asdict(d)) | {"sure": d.sure} for figure, d in differences.items()}
            for name, differences in compared.items()
        },
    }
    write_summary(out / "summary.json", values)
    _report(out / "report.html", base, compared)
    return 0


def _named(runs: list[Run]) -> list[Run]:
    """With names that differ: a number is added where directories have the same one."""
    kinds = {r.kind for r in runs}
    if len(kinds) > 1:
        raise InputError(f"compare: expected runs of one kind, found {' and '.join(sorted(kinds))}")
    names = [r.name if [o.name for o in runs].count(r.name) == 1 else f"{r.name} ({k + 1})" for k, r in enumerate(runs)]
    return [Run(name, r.kind, r.summary, r.cases, r.groups, r.figures) for name, r in zip(names, runs, strict=True)]


def _against(base: Run, other: Run, seed: int) -> dict[str, Difference]:
    """Figures that both have, over the cases that both have."""
    place = {case: k for k, case in enumerate(other.cases)}
    mine = np.array([k for k, case in enumerate(base.cases) if case in place], int)
    if not len(mine):
        what = "frames of the same bags" if base.kind == "bag" else "the same goals (--goals, --seed)"
        raise InputError(f"compare: expected {what} in {base.name} and {other.name}, found none in both")
    theirs = np.array([place[base.cases[k]] for k in mine], int)
    rng = np.random.default_rng(seed)
    return {
        name: paired(_rows(figure, mine), _rows(other.figures[name], theirs), base.groups[mine], rng)
        for name, figure in base.figures.items()
        if name in other.figures
    }


def _rows(figure: Figure, rows: np.ndarray) -> Figure:
    return Figure(figure.values[rows], None if figure.over is None else figure.over[rows], figure.more_is_better)


def _known(values: dict) -> dict:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _cells(name: str, figure: str, d: Difference) -> list:
    both = (f"{d.first:.4g}", f"{d.second:.4g}")
    return [figure, name, *both, f"{d.difference:+.4g}", f"{d.low:+.4g} to {d.high:+.4g}", f"{100 * d.ahead:.0f} %"]


HEADINGS = ("figure", "run", "base", "run's", "difference", "95 % interval", "run ahead")


def _table(compared: dict[str, dict[str, Difference]]) -> list[list]:
    return [_cells(name, figure, d) for name, found in compared.items() for figure, d in found.items() if d.cases]


def _print(base: Run, compared: dict[str, dict[str, Difference]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"against {base.name}")
    for heading in HEADINGS:
        table.add_column(heading, no_wrap=heading == HEADINGS[0])
    for cells in _table(compared):
        table.add_row(*map(str, cells))
    Console().print(table)


def _report(path: Path, base: Run, compared: dict[str, dict[str, Difference]]) -> None:
    cases = {name: max((d.cases for d in found.values()), default=0) for name, found in compared.items()}
    report = Report("Evaluations side by side", f"Against {base.name}")
    report.text(
        f"Differences are over the cases that both runs have, {DRAWS} paired draws. An interval that leaves out 0 is a "
        "difference that these cases are enough to be sure of."
    )
    report.tiles({f"cases with {name}": count for name, count in cases.items()})
    report.table(_table(compared), HEADINGS)
    names = list(dict.fromkeys(figure for found in compared.values() for figure, d in found.items() if d.cases))
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
    axes.set(title="Difference, % of the base's figure", yticks=range(len(names)), yticklabels=names)
    axes.legend()
    report.plot(fig)
    report.write(path)
