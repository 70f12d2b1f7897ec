"""The page and the table of `jepa_ros bench plan`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jepa_ros.bench.same_quality import SameQuality
from jepa_ros.bench.same_work import SameCosts, SameWork
from jepa_ros.reporting import plots
from jepa_ros.reporting.report import Report
from jepa_ros.text_files import write_atomically

NAMES = {
    "ratio_same_work_fp32": "same work, float32: reference ÷ ours",
    "ratio_same_work": "same work, reference float32 ÷ ours bfloat16",
    "max_cost_difference": "largest relative difference of a cost, float32",
    "bf16_rank_correlation": "rank correlation of costs, bfloat16",
    "ratio_same_quality": "same quality: reference ÷ ours",
    "cuda_plan_ms": "published search on the GPU, ms a plan",
}
AT_MOST = ("max_cost_difference", "cuda_plan_ms")


def write_report(path: Path, summary: dict, costs: SameCosts, work: SameWork, quality: SameQuality | None) -> None:
    """report.html."""
    place = f"{summary['machine']}, torch {summary['torch']}, one thread, seed {summary['seed']}"
    report = Report("Planning speed", f"beside {summary['peer']} on {place}")
    shown = {NAMES[key]: summary[key] for key in NAMES if summary[key] is not None}
    met = {NAMES[key]: value for key, value in summary["targets_met"].items() if value is not None}
    report.tiles(shown, met).table(_rows(summary), ["figure", "median", "least", "largest", "target", "met"])
    for note in notes(summary):
        report.text(note)
    report.section("The same work").plot(_work_figure(summary, work))
    report.section("The same costs").plot(_costs_figure(costs))
    if quality is not None:
        report.section("The same quality").table(_quality_rows(summary["quality"]))
        report.plot(_quality_figure(quality))
    report.write(path)


def write_table(path: Path, summary: dict) -> None:
    """The Markdown table, in one step."""
    lines = [
        "# Planning speed",
        "",
        f"Beside {summary['peer']}: {summary['machine']} ({', '.join(summary['flags']) or 'flags unknown'}), torch "
        f"{summary['torch']}, one thread, seed {summary['seed']}. Written by `jepa_ros bench plan`.",
        "",
        *_markdown(_rows(summary), ["figure", "median", "least", "largest", "target", "met"]),
    ]
    if summary["quality"] is not None:
        rows = _quality_rows(summary["quality"])
        lines += ["", *_markdown([list(row.values()) for row in rows], list(rows[0]))]
    lines += [""] + [f"- {note}" for note in notes(summary)]
    write_atomically(path, "\n".join(lines) + "\n")


def notes(summary: dict) -> list[str]:
    """What the figures mean and what they do not."""
    search, count = summary["search"], summary["million_multiplications_per_sample"]
    found = [
        f"The same work: a LeWM of the published sizes with the same random weights on both sides; a cross-entropy "
        f"search of {search['samples']} samples, {search['iterations']} rounds, {search['horizon']} steps; whole plans "
        "in turns, one thread. No image is encoded on either side: the reference takes the latents of frame and goal "
        "from its cache.",
        f"A sample's roll-out is {count['reference']:.0f} million multiplications for the reference and "
        f"{count['ours']:.0f} million for ours ({count['reference'] / count['ours']:.2f} times less).",
    ]
    if not summary["bfloat16_units"]:
        found.append(
            "This processor has neither avx512_bf16 nor AMX: values are rounded to bfloat16 but multiplied by float32 "
            "units, so the bfloat16 ratio is no measure of what it is where they exist, and its target does not apply."
        )
    quality = summary["quality"]
    if quality is not None:
        bare = f"{summary['spread']['ratio_same_quality_bare']['median']:.1f}"
        valid = "valid" if quality["not_worse"] else "NOT valid, as ours is worse"
        low, high = (1e3 * x for x in quality["final_distance_ours_less_reference_m"]["interval_95"])
        found.append(
            f"The same quality: {summary['model']}; the ratio is {valid}. Ours is a plan as shipped; the other is "
            f"by the reference's solver on our model ({search['samples']} samples, {3 * search['iterations']} rounds), "
            f"made feasible as ours; of its solver and the roll-outs alone, without that, the ratio is {bare}. Success "
            "is of execution in the simulator. A whole plan of the reference is executed before the next one, as "
            "published. The same delays are simulated for both, though the reference's plans take longer than these "
            "allow. "
            f"Final distance, ours less the reference's: 95 % interval of the mean {low:.1f} to {high:.1f} mm."
        )
    return found


def _rows(summary: dict) -> list[list]:
    rows = []
    for key, name in NAMES.items():
        if summary[key] is None:
            continue
        spread = summary["spread"].get(key, {})
        sign = "≤" if key in AT_MOST else "≥"
        met = {True: "yes", False: "no", None: "does not apply"}[summary["targets_met"][key]]
        value = f"{summary[key]:.4g}"
        least, largest = (f"{spread[k]:.4g}" if spread else "" for k in ("min", "max"))
        rows.append([name, value, least, largest, f"{sign} {summary['targets'][key]:g}", met])
    return rows


def _quality_rows(quality: dict) -> list[dict]:
    rows = []
    for name in ("ours", "reference"):
        side = quality[name]
        low, high = side["interval_95"]
        rows.append(
            {
                "side": name,
                "reached": f"{side['reached']} of {side['trials']}",
                "95 % interval": f"{100 * low:.0f} to {100 * high:.0f} %",
                "final distance, median": f"{1e3 * side['final_distance_m']['p50']:.1f} mm",
                "90th percentile": f"{1e3 * side['final_distance_m']['p90']:.1f} mm",
                "time to arrive, median": f"{side['seconds_p50']:.1f} s",
                "plan, median": "" if side["plan_ms"]["p50"] is None else f"{side['plan_ms']['p50']:.0f} ms",
            }
        )
    return rows


def _markdown(rows: list[list], columns: list[str]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]


def _work_figure(summary: dict, work: SameWork):
    fig, (left, right) = plots.figure(2)
    names = list(work.times)
    left.bar(names, [summary["plan_s"][n]["p50"] for n in names], color=plots.COLOURS[: len(names)])
    for place, name in enumerate(names):
        left.plot([place] * len(work.times[name].wall), work.times[name].wall, ".", color=plots.COLOURS[-1], ms=5)
    left.set(title="A plan (bar: median)", ylabel="s")
    for name in ("float32", "bfloat16"):
        quotients = np.array(work.times["reference"].wall) / np.array(work.times[name].wall)
        right.plot(np.arange(1, len(quotients) + 1), quotients, "o-", label=name)
    right.set(title="Reference ÷ ours, pair by pair", xlabel="pair", ylim=(0, None))
    right.legend()
    return fig


def _costs_figure(costs: SameCosts):
    fig, axes = plots.figure(2)
    for ax, name in zip(axes, ("float32", "bfloat16"), strict=True):
        ax.plot(costs.costs["reference"], costs.costs[name], ".", ms=4)
        ax.set(title=name, xlabel="the reference's cost", ylabel="ours")
    return fig


def _quality_figure(quality: SameQuality):
    fig, (left, right) = plots.figure(2)
    for trials, name in ((quality.ours, "ours"), (quality.theirs, "reference")):
        finals = np.sort([100 * t.final_distance for t in trials])
        left.step(finals, np.arange(1, len(finals) + 1) / len(finals), where="post", label=name)
    left.axvline(3, lw=1, ls="--")
    left.set(title="Final distance, share of starts", xlabel="cm", ylim=(0, 1.02))
    left.legend()
    sides = {"ours": quality.our_times.wall, "reference": quality.their_times.wall}
    for place, (name, times) in enumerate(sides.items()):
        right.plot(np.full(len(times), place), [1e3 * t for t in times], ".", ms=5, label=name)
    right.set(title="A plan", ylabel="ms", yscale="log", xticks=[0, 1], xlim=(-0.5, 1.5))
    right.set_xticklabels(list(sides))
    return fig
