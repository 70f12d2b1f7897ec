"""`jepa_ros bench plan`: planning speed and quality of our code and of the reference, in turns on one thread."""

from __future__ import annotations

import platform
import time
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from jepa_ros.bench.closed_loop_comparison import ClosedLoopComparison, compare_in_closed_loop
from jepa_ros.bench.matched_models import PUBLISHED_SIZES, MatchedModels, ModelSizes, count_multiplications
from jepa_ros.bench.reference import CemSettings, load_reference
from jepa_ros.bench.same_search import (
    CostComparison,
    SideTimes,
    check_device,
    compare_costs,
    compare_times,
    time_gpu_plans,
    time_same_search,
)
from jepa_ros.reporting import plots
from jepa_ros.reporting.output import after_summary, prepare_file, prepare_out
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.report import Report
from jepa_ros.reporting.result import print_result
from jepa_ros.reporting.summary import percentiles, wilson_interval, write_summary
from jepa_ros.text_files import write_atomically
from jepa_ros.world_model.checkpoint import load_checkpoint
from jepa_ros.world_model.device import BFLOAT16_FLAGS, multiplies_bfloat16, processor_flags, processor_name

REPORTED_CPU_FLAGS = ("avx2", "avx512f", *BFLOAT16_FLAGS)


@dataclass(frozen=True)
class Target:
    """The target of a metric in summary.json: at least `value`, or at most. name: of the metric, for people."""

    name: str
    value: float
    at_least: bool = True

    def is_met(self, metric: float | None) -> bool | None:
        """Return whether the metric meets the target, None where it was not measured."""
        return None if metric is None else (metric >= self.value) == self.at_least or metric == self.value


TARGETS = {
    "ratio_same_work_fp32": Target("same search, float32: reference ÷ ours", 1.3),
    "ratio_same_work": Target("same search, reference float32 ÷ ours bfloat16", 2.0),
    "max_cost_difference": Target("largest relative difference of a cost, float32", 1e-4, at_least=False),
    "bf16_rank_correlation": Target("rank correlation of costs, bfloat16", 0.99),
    "ratio_same_quality": Target("same quality: reference ÷ ours", 20.0),
    "cuda_plan_ms": Target("published search on the GPU, ms a plan", 50.0, at_least=False),
}
BOOTSTRAP_DRAWS = 10_000
TABLE_COLUMNS = ("metric", "median", "min", "max", "target", "met")


def benchmark_planning(
    *,
    against: str,
    out: Path,
    model: str = "openarm_reach",
    starts: int = 100,
    seed: int = 0,
    repeats: int = 5,
    device: str = "cpu",
    table: Path | None = None,
    fail_on_miss: bool = False,
    sizes: ModelSizes = PUBLISHED_SIZES,
    search: CemSettings = CemSettings(),  # noqa: B008
) -> int:
    """Measure both sides; write summary.json and report.html into `out` and, if given, the Markdown file `table`.

    sizes, search: of the comparison on the same search; the closed-loop comparison has three times the rounds, as
    published for the longest task. Return 1 where a target is missed and fail_on_miss is set, else 0.

    Raises:
        InputError: the reference is unknown or not installed, the device is missing, an output path cannot be written,
            or the model does not fit the simulated arm.
    """
    reference = load_reference(against)
    check_device(device)
    checkpoint = load_checkpoint(model)
    out, table = prepare_out(out), None if table is None else prepare_file(table, "--table")
    torch.set_num_threads(1)
    started = time.time()
    with ProgressDisplay() as bar:
        task = bar.add("same search", repeats)
        models = MatchedModels(reference, sizes, seed)
        costs = compare_costs(models, search.horizon, search.samples, seed)
        work = time_same_search(reference, models, search, repeats, seed, lambda count: bar.update(task, count))
        quality = None
        if starts:
            longer = search._replace(iterations=3 * search.iterations)
            task = bar.add("closed loop", starts)
            quality = compare_in_closed_loop(
                reference, checkpoint, starts, seed, longer, lambda count, note: bar.update(task, count, note)
            )
        plans = time_gpu_plans(models, repeats, seed) if device == "cuda" else None
    summary = _summary(costs, work, quality, plans) | {
        "peer": f"{against} {reference.version}",
        "model": checkpoint.config.name,
        "model_id": checkpoint.model_id,
        "seed": seed,
        "starts": starts,
        "repeats": repeats,
        "search": search._asdict(),
        "million_multiplications_per_sample": count_multiplications(sizes, search.horizon),
        "wall_s": time.time() - started,
    }
    write_summary(out / "summary.json", summary)
    with after_summary(out / "summary.json"):
        write_report(out / "report.html", summary, costs, work, quality)
        if table is not None:
            write_table(table, summary)
    missed = [name for name, met in summary["targets_met"].items() if met is False]
    rows = [(name, value, target, met) for name, value, _, _, target, met in _rows(summary)]
    paths = [out / "summary.json", out / "report.html", *([] if table is None else [table])]
    title = f"planning of {summary['model']} compared with {summary['peer']}"
    print_result(title, (), paths, (("metric", "result", "target", "target met"), rows))
    return int(bool(missed) and fail_on_miss)


def _summary(
    costs: CostComparison, work: dict[str, SideTimes], quality: ClosedLoopComparison | None, plans: list[float] | None
) -> dict:
    spread = {
        "ratio_same_work_fp32": _spread(work["reference"], work["float32"]),
        "ratio_same_work": _spread(work["reference"], work["bfloat16"]),
    }
    if quality is not None and quality.ours.times.wall:
        spread["ratio_same_quality"] = _spread(quality.theirs.times, quality.ours.times)
        spread["ratio_same_quality_bare"] = _spread(quality.bare_times, quality.ours.times)
    figures = {name: spread[name]["median"] if name in spread else None for name in TARGETS}
    figures |= {
        "max_cost_difference": costs.max_difference,
        "bf16_rank_correlation": costs.rank_correlation,
        "cuda_plan_ms": None if plans is None else float(np.median(plans)),
    }
    met = {name: target.is_met(figures[name]) for name, target in TARGETS.items()}
    has_bfloat16 = multiplies_bfloat16(torch.device("cpu"))
    if not has_bfloat16:  # the target applies to processors with bfloat16 units
        met["ratio_same_work"] = None
    found = None if quality is None else quality_figures(quality)
    if found is not None and not found["not_worse"]:
        met["ratio_same_quality"] = False
    return figures | {
        "machine": processor_name(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "flags": sorted(processor_flags() & set(REPORTED_CPU_FLAGS)),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "bfloat16_units": has_bfloat16,
        "targets": {name: target.value for name, target in TARGETS.items()},
        "targets_met": met,
        "spread": spread,
        "plan_s": {name: {"p50": float(np.median(t.wall)), "all": t.wall} for name, t in work.items()},
        "quality": found,
    }


def _spread(theirs: SideTimes, ours: SideTimes) -> dict:
    ratio, processor = compare_times(theirs.wall, ours.wall), compare_times(theirs.processor, ours.processor)
    return asdict(ratio) | {"processor_time": asdict(processor)}


def quality_figures(quality: ClosedLoopComparison) -> dict:
    """Return the metrics of both sides' trials and plans. not_worse: ours reached at least as many goals, and its final
    distance is not significantly larger (the 95 % interval of the mean difference does not lie above 0)."""
    found, finals = {}, []
    for name, side in (("ours", quality.ours), ("reference", quality.theirs)):
        reached = sum(t.reached for t in side.trials)
        finals.append(np.array([t.final_distance for t in side.trials]))
        found[name] = {
            "reached": reached,
            "trials": len(side.trials),
            "interval_95": wilson_interval(reached, len(side.trials)),
            "final_distance_m": percentiles(finals[-1], (50, 90), {"mean": np.mean}),
            "seconds_p50": float(np.median([t.seconds for t in side.trials])),
            "plan_ms": percentiles(1e3 * np.array(side.times.wall), (50, 90)),
            "predicted_cost": percentiles(side.costs, (50, 90)),
        }
    apart = finals[0] - finals[1]
    low, high = bootstrap_mean(apart)
    arrived = found["ours"]["reached"] >= found["reference"]["reached"]
    return found | {
        "final_distance_ours_less_reference_m": {"mean": float(apart.mean()), "interval_95": [low, high]},
        "not_worse": bool(arrived and low <= 0.0),
    }


def bootstrap_mean(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean of `values` (N,) (Efron 1979), with a fixed seed."""
    chosen = np.random.default_rng(0).integers(0, len(values), (BOOTSTRAP_DRAWS, len(values)))
    low, high = np.percentile(values[chosen].mean(1), (2.5, 97.5))
    return float(low), float(high)


def write_report(
    path: Path, summary: dict, costs: CostComparison, work: dict[str, SideTimes], quality: ClosedLoopComparison | None
) -> None:
    """Write report.html."""
    place = f"{summary['machine']}, torch {summary['torch']}, one thread, seed {summary['seed']}"
    report = Report("Planning speed", f"compared with {summary['peer']} on {place}")
    shown = {target.name: summary[key] for key, target in TARGETS.items() if summary[key] is not None}
    met = {TARGETS[key].name: value for key, value in summary["targets_met"].items() if value is not None}
    report.tiles(shown, met).table(_rows(summary), TABLE_COLUMNS)
    for note in notes(summary):
        report.text(note)
    report.section("Same search").plot(_work_figure(work))
    report.section("Same costs").plot(_costs_figure(costs))
    if quality is not None:
        report.section("Same quality").table(_quality_rows(summary["quality"]))
        report.plot(_quality_figure(quality))
    report.write(path)


def write_table(path: Path, summary: dict) -> None:
    """Write the Markdown table."""
    lines = [
        "# Planning speed",
        "",
        f"Compared with {summary['peer']}: {summary['machine']} ({', '.join(summary['flags']) or 'flags unknown'}), "
        f"torch {summary['torch']}, one thread, seed {summary['seed']}. Written by `jepa_ros bench plan`.",
        "",
        *_markdown_table(_rows(summary), TABLE_COLUMNS),
    ]
    if summary["quality"] is not None:
        rows = _quality_rows(summary["quality"])
        lines += ["", *_markdown_table([row.values() for row in rows], rows[0])]
    lines += [""] + [f"- {note}" for note in notes(summary)]
    write_atomically(path, "\n".join(lines) + "\n")


def notes(summary: dict) -> list[str]:
    """Return sentences on the meaning and the limits of the metrics."""
    search, count = summary["search"], summary["million_multiplications_per_sample"]
    found = [
        f"Same search: a LeWM of the published sizes with the same random weights on both sides; a cross-entropy "
        f"search of {search['samples']} samples, {search['iterations']} rounds, {search['horizon']} steps; whole plans "
        "in turns, one thread. Neither side encodes an image: the reference takes the latents of frame and goal from "
        "its cache.",
        f"The rollout of a sample takes {count['reference']:.0f} million multiplications in the reference and "
        f"{count['ours']:.0f} million in ours ({count['reference'] / count['ours']:.2f} times less).",
    ]
    if not summary["bfloat16_units"]:
        found.append(
            "This processor has neither avx512_bf16 nor AMX: values are rounded to bfloat16 but multiplied by float32 "
            "units. So the bfloat16 ratio says nothing about processors that have them, and its target does not apply."
        )
    quality = summary["quality"]
    if quality is not None:
        bare = f"{summary['spread']['ratio_same_quality_bare']['median']:.1f}"
        valid = "valid" if quality["not_worse"] else "NOT valid, as ours is worse"
        low, high = (1e3 * x for x in quality["final_distance_ours_less_reference_m"]["interval_95"])
        found.append(
            f"Same quality: {summary['model']}; the ratio is {valid}. Our plans are as shipped; the reference's solver "
            f"plans with our model ({search['samples']} samples, {3 * search['iterations']} rounds), and its plans are "
            f"made feasible as ours are; for its solver and rollouts alone the ratio is {bare}. Success is measured in "
            "the simulator. As published, a whole plan of the reference is executed before it replans. Both have the "
            "same simulated delays, although the reference's plans take longer than these. Final distance, ours minus "
            f"the reference's: 95 % confidence interval of the mean {low:.1f} to {high:.1f} mm."
        )
    return found


def _rows(summary: dict) -> list[list]:
    rows = []
    for key, target in TARGETS.items():
        if summary[key] is None:
            continue
        spread = summary["spread"].get(key, {})
        limits = [f"{spread[k]:.4g}" if spread else "" for k in ("min", "max")]
        met = {True: "yes", False: "no", None: "does not apply"}[summary["targets_met"][key]]
        sign = "≥" if target.at_least else "≤"
        rows.append([target.name, f"{summary[key]:.4g}", *limits, f"{sign} {summary['targets'][key]:g}", met])
    return rows


def _quality_rows(quality: dict) -> list[dict[str, str]]:
    rows = []
    for name in ("ours", "reference"):
        side = quality[name]
        low, high = side["interval_95"]
        rows.append(
            {
                "side": name,
                "reached": f"{side['reached']} of {side['trials']}",
                "95 % confidence interval": f"{100 * low:.0f} to {100 * high:.0f} %",
                "final distance, median": f"{1e3 * side['final_distance_m']['p50']:.1f} mm",
                "90th percentile": f"{1e3 * side['final_distance_m']['p90']:.1f} mm",
                "time to arrive, median": f"{side['seconds_p50']:.1f} s",
                "plan time, median": "" if side["plan_ms"]["p50"] is None else f"{side['plan_ms']['p50']:.0f} ms",
            }
        )
    return rows


def _markdown_table(rows: Iterable[Iterable[str]], columns: Collection[str]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _work_figure(work: dict[str, SideTimes]):
    fig, (left, right) = plots.figure(2)
    left.bar(list(work), [np.median(times.wall) for times in work.values()], color=plots.COLOURS[: len(work)])
    for name, times in work.items():
        left.plot([name] * len(times.wall), times.wall, ".", color=plots.COLOURS[-1], ms=5)
    left.set(title="Time of a plan (bar: median)", ylabel="s")
    for name in ("float32", "bfloat16"):
        ratios = np.array(work["reference"].wall) / np.array(work[name].wall)
        right.plot(np.arange(1, len(ratios) + 1), ratios, "o-", label=name)
    right.set(title="Reference ÷ ours, pair by pair", xlabel="pair", ylim=(0, None))
    right.legend()
    return fig


def _costs_figure(costs: CostComparison):
    fig, axes = plots.figure(2)
    for ax, name in zip(axes, ("float32", "bfloat16"), strict=True):
        ax.plot(costs.costs["reference"], costs.costs[name], ".", ms=4)
        ax.set(title=name, xlabel="the reference's cost", ylabel="ours")
    return fig


def _quality_figure(quality: ClosedLoopComparison):
    fig, (left, right) = plots.figure(2)
    for name, side in (("ours", quality.ours), ("reference", quality.theirs)):
        finals = np.sort([100 * t.final_distance for t in side.trials])
        left.step(finals, np.arange(1, len(finals) + 1) / len(finals), where="post", label=name)
        right.plot([name] * len(side.times.wall), 1e3 * np.array(side.times.wall), ".", ms=5)
    left.axvline(3, lw=1, ls="--")
    left.set(title="Final distance, share of starts", xlabel="cm", ylim=(0, 1.02))
    left.legend()
    right.set(title="Time of a plan", ylabel="ms", yscale="log", xlim=(-0.5, 1.5))
    return fig
