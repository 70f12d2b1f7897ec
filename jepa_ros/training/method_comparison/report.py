"""Summary and report of `jepa_ros compare methods`: mean and standard deviation over seeds for each method."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jepa_ros.reporting import plots
from jepa_ros.reporting.report import Report
from jepa_ros.reporting.summary import wilson_interval

LEADING_METRICS = {
    "reached": "goals reached",
    "final": "median final distance (cm)",
    "probe_r2": "probe R² of the tool",
    "imagined_cm@4": "tool error in rollouts, 4 steps ahead (cm)",
    "effective_rank": "effective rank",
    "dead_dimensions": "dead dimensions",
    "action_sensitivity": "action sensitivity",
}
CURVE_METRICS = ("update", "probe_r2", "effective_rank")
CLOSED_LOOP_METRICS = ("reached", "final")
TITLES = {
    "sigreg": "SIGReg",
    "vicreg": "VICReg",
    "ema": "EMA teacher",
    "reconstruction": "reconstruction",
    "none": "none",
}
GOAL_DISTANCE_EDGES_M = (0.10, 0.16, 0.22, 0.28, 0.34, 0.50)
SHORT_TITLES = {"ema": "EMA", "reconstruction": "pixels"}
NOTE = """Read the columns from the left. **Goals reached** is the purpose of a world model; here the planner searches
without the policy that guides it in the shipped model. **Probe R²** tells whether the latent contains the tool
position, and **tool error in rollouts** whether it can still be read from predicted latents: with a least-squares
probe, fitted on training episodes, in centimetres in every latent space.

**Error ÷ persistence** is comparable only within one latent space: a latent with little content is easy to predict, one
with every detail is hard, so a low ratio alone is no merit. Effective rank (RankMe) and dead dimensions (std below a
tenth of the median's) show a collapse; action sensitivity (one-step error with shuffled actions ÷ with the true ones)
shows whether the prediction depends on the actions. None of them alone shows that a model is good.

Where the spreads over seeds overlap, the difference may be chance."""


def summarise(
    runs: Sequence[Mapping], trials: Sequence[Mapping], values: Mapping[str, float], options: Mapping, criterion: str
) -> dict:
    """Return mean, sample standard deviation and the value of every seed of each metric, by method, and the tuning."""
    methods = {}
    for method, value in values.items():
        own = [run for run in runs if run["method"] == method]
        names = dict.fromkeys(name for run in own for name in run.get("test", {}))
        found = {
            "value": value,
            "seeds": [run["seed"] for run in own],
            "failed": {str(run["seed"]): run["failed"] for run in own if run["failed"]},
            "frames_per_s": mean_and_std([run["frames_per_s"] for run in own]),
            "test": {name: mean_and_std([run.get("test", {}).get(name) for run in own]) for name in names},
            "curves": {
                str(run["seed"]): [{key: health[key] for key in CURVE_METRICS} for health in run["validation"]]
                for run in own
            },
        }
        if options["goals"]:
            found["closed_loop"] = _closed_loop(own)
        methods[method] = found
    tuning: dict[str, list[dict]] = {method: [] for method in values}
    for t in sorted(trials, key=lambda t: t["value"]):
        figures = {"value": t["value"], criterion: t.get("val", {}).get(criterion), "failed": t["failed"]}
        tuning[t["method"]].append(figures)
    return {"options": dict(options), "criterion": criterion, "tuning": tuning, "methods": methods}


def mean_and_std(values: Sequence[float | None]) -> dict:
    """Return mean and sample standard deviation of the values that are not None (None: too few), and all values."""
    known = np.array([v for v in values if v is not None], float)
    return {
        "mean": float(known.mean()) if known.size else None,
        "std": float(known.std(ddof=1)) if known.size > 1 else None,
        "values": list(values),
    }


def _closed_loop(runs: Sequence[Mapping]) -> dict:
    """Return the goals reached by all seeds together (95 % confidence interval: trials as independent) and by each."""
    tried = [run["closed_loop"] for run in runs if "closed_loop" in run]
    reached, goals = sum(t["reached"] for t in tried), sum(t["goals"] for t in tried)
    return {
        "reached": reached,
        "goals": goals,
        "interval_95": wilson_interval(reached, goals) if goals else None,
        "rate": mean_and_std([t["reached"] / t["goals"] for t in tried]),
        "by_distance": by_distance(
            [pair for t in tried for pair in zip(t.get("start_distance_m", ()), t["per_goal"], strict=False)]
        ),
        "goal_set_hash": sorted({t["goal_set_hash"] for t in tried}),
        "final_cm": mean_and_std([100 * t["final_distance_m"]["p50"] for t in tried]),
    }


def by_distance(
    trials: Sequence[tuple[float, bool]], edges: Sequence[float] = GOAL_DISTANCE_EDGES_M
) -> list[float | None]:
    """Return the share of reached trials (start distance m, reached) between edges; None without trials."""
    groups = [[ok for d, ok in trials if low <= d < high] for low, high in itertools.pairwise(edges)]
    return [sum(group) / len(group) if group else None for group in groups]


def write_report(path: Path, summary: Mapping) -> Path:
    """Write report.html; return its path."""
    options, methods = summary["options"], summary["methods"]
    report = Report(
        "Methods against collapse",
        f"{Path(options['data']).name}, {summary['updates']} updates, {summary['seeds']} seeds from {options['seed']}",
    )
    if options["goals"]:
        loops = {TITLES[m]: found["closed_loop"] for m, found in methods.items()}
        report.tiles({title: f"{loop['reached']} of {loop['goals']}" for title, loop in loops.items()})
    report.text(NOTE)
    columns, rows = leading_table(summary)
    report.section("On test episodes").table(rows, columns)
    report.plot(_strips(methods, bool(options["goals"])), "A dot for each seed, a line at their mean.")
    if options["goals"]:
        report.section("By distance to the goal").plot(
            _distances(methods),
            "All seeds together. If near goals are reached and far ones are not, the latent distance is flat far from "
            "the goal and gives the search no direction; in the shipped model a policy guides it there.",
        )
    report.section("By horizon").plot(
        _horizons(methods), "Mean over seeds. Left: comparable between methods. Right: only within a method."
    )
    rows = [
        [TITLES[m], *(format_mean_std(found["test"].get(f"error_ratio@{k}")) for k in range(1, 5))]
        for m, found in methods.items()
    ]
    report.table(rows, ["method", *(f"{k} steps" for k in range(1, 5))])
    report.section("During training").plot(_curves(methods), "On validation episodes; a line for each seed.")
    if failed := [(TITLES[m], seed, why) for m, f in methods.items() for seed, why in f["failed"].items()]:
        report.section("Runs that stopped early").table(failed, ["method", "seed", "reason"])
    _add_tuning(report, summary)
    return report.write(path)


def _add_tuning(report: Report, summary: Mapping) -> None:
    options = summary["options"]
    tuned = (
        "All methods share encoder, predictor, schedule, data, batch and updates, and are evaluated with their last "
        f"weights. For each, {options['tune']} values of one parameter were tried, with {options['tune_updates']} "
        "updates and one seed: the weight of the regulariser or, for the EMA teacher, 1 - its first momentum. The grid "
        f"is the published value and factors of √10 around it; the value with the least `{summary['criterion']}` on "
        "validation episodes was chosen (the tool position is a label). Nothing else was tuned."
    )
    untuned = "Each method uses its published value; nothing was tuned."
    report.section("Tuning").text(tuned if options["tune"] else untuned)
    rows, criterion = [], summary["criterion"]
    for m, tried in summary["tuning"].items():
        chosen = summary["methods"][m]["value"]
        for t in tried:
            note = _describe_choice(t["value"], chosen, tried)
            rows.append((TITLES[m], f"{t['value']:g}", t[criterion], note))
    if rows:
        report.table(rows, ["method", "value", criterion, ""])


def _describe_choice(value: float, chosen: float, tried: Sequence[Mapping]) -> str:
    """Tell whether a value was chosen; beyond the edge of the grid there may be a better one."""
    if value != chosen:
        return ""
    at_edge = len(tried) > 1 and value in (tried[0]["value"], tried[-1]["value"])
    return "chosen, at the edge of the grid" if at_edge else "chosen"


def format_mean_std(figure: Mapping | None, digits: int = 3) -> str:
    """Return mean ± standard deviation as text."""
    if figure is None or figure["mean"] is None:
        return "–"
    deviation = "" if figure["std"] is None else f" ± {figure['std']:.2g}"
    return f"{figure['mean']:.{digits}g}{deviation}"


def leading_table(summary: Mapping) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of the leading metrics, a row for each method."""
    has_goals = bool(summary["options"]["goals"])
    columns = ["method", *(v for k, v in LEADING_METRICS.items() if k not in CLOSED_LOOP_METRICS or has_goals)]
    return columns, [_row(method, found, columns) for method, found in summary["methods"].items()]


def _row(method: str, found: Mapping, columns: Sequence[str]) -> list[str]:
    cells = {
        LEADING_METRICS[name]: format_mean_std(found["test"].get(name), 4)
        for name in LEADING_METRICS
        if name not in CLOSED_LOOP_METRICS
    }
    if (loop := found.get("closed_loop")) and loop["goals"]:
        low, high = loop["interval_95"]
        cells[LEADING_METRICS["reached"]] = f"{100 * loop['rate']['mean']:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
        cells[LEADING_METRICS["final"]] = format_mean_std(loop["final_cm"])
    return [TITLES[method], *(cells.get(column, "–") for column in columns[1:])]


def _strips(methods: Mapping[str, Mapping], goals: bool):
    """Return a figure with a panel for each leading metric and a column of dots for each method."""
    shown = [name for name in LEADING_METRICS if name != "final" and (name != "reached" or goals)]
    rows = -(-len(shown) // 3)
    fig, axes = plots.figure(3, rows, size=(9.0, 2.8 * rows))
    for ax in np.ravel(axes)[len(shown) :]:
        ax.set_visible(False)
    for ax, name in zip(np.ravel(axes), shown, strict=False):
        for x, (_, found) in enumerate(methods.items()):
            figure = found.get("closed_loop", {}).get("rate") if name == "reached" else found["test"].get(name)
            there = [v for v in (figure or {"values": []})["values"] if v is not None]
            ax.plot([x] * len(there), there, "o", ms=5, alpha=0.7, color=plots.COLOURS[x])
            if there:
                ax.plot([x - 0.25, x + 0.25], [np.mean(there)] * 2, color=plots.COLOURS[x])
        ax.set_xticks(range(len(methods)), [SHORT_TITLES.get(m, TITLES[m]) for m in methods], fontsize=8)
        ax.set_title(LEADING_METRICS[name], loc="left", fontsize=9)
    return fig


def _distances(methods: Mapping[str, Mapping]):
    fig, ax = plots.figure()
    middles = [50 * (low + high) for low, high in itertools.pairwise(GOAL_DISTANCE_EDGES_M)]
    for x, (method, found) in enumerate(methods.items()):
        points = [(m, s) for m, s in zip(middles, found["closed_loop"]["by_distance"], strict=True) if s is not None]
        if points:
            ax.plot(*zip(*points, strict=True), "o-", ms=4, color=plots.COLOURS[x], label=TITLES[method])
    ax.set(title="Share of goals reached", xlabel="distance at the start (cm)", ylim=(-0.05, 1.05))
    _legend(ax)
    return fig


def _horizons(methods: Mapping[str, Mapping]):
    fig, (left, right) = plots.figure(2)
    steps = range(1, 5)
    for x, (method, found) in enumerate(methods.items()):
        for ax, name in ((left, "imagined_cm"), (right, "error_ratio")):
            figures = [found["test"].get(f"{name}@{k}", {}).get("mean") for k in steps]
            if None not in figures:
                ax.plot(steps, figures, "o-", ms=4, color=plots.COLOURS[x], label=TITLES[method])
    still = [next(iter(methods.values()))["test"].get(f"still_cm@{k}", {}).get("mean") for k in steps]
    if None not in still:
        left.plot(steps, still, "--", color=plots.COLOURS[-1], label="persistence")
    left.set(title="Tool error in rollouts (cm)", xlabel="model steps", yscale="log", xticks=steps)
    right.set(title="Latent error ÷ persistence", xlabel="model steps", yscale="log", xticks=steps)
    _legend(right)
    return fig


def _curves(methods: Mapping[str, Mapping]):
    fig, (left, right) = plots.figure(2)
    for x, (method, found) in enumerate(methods.items()):
        for number, curve in enumerate(found["curves"].values()):
            label = TITLES[method] if number == 0 else None
            for ax, name in ((left, "probe_r2"), (right, "effective_rank")):
                points = [(c["update"], c[name]) for c in curve if c[name] is not None]
                if not points:
                    continue
                updates, values = zip(*points, strict=True)
                shown = 1.0 - np.array(values) if name == "probe_r2" else values
                ax.plot(updates, shown, lw=1, color=plots.COLOURS[x], label=label)
    left.set(title="Probe error (1 - R²)", xlabel="update", yscale="log")
    right.set(title="Effective rank", xlabel="update")
    _legend(right)
    return fig


def _legend(ax) -> None:
    if ax.get_legend_handles_labels()[0]:  # there are none if every run failed
        ax.legend(fontsize=8)
