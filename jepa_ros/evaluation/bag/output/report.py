"""report.html: what a person looks at of a model on recordings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jepa_ros.evaluation.bag.metrics import latent_health as health
from jepa_ros.evaluation.bag.metrics.bag_results import Judged
from jepa_ros.reporting import plots
from jepa_ros.reporting.report import Report

POINTS = 2000
"""Of a line along a recording; more are averaged."""

Pictures = dict[tuple[int, int], np.ndarray]
"""(H, W, 3) uint8 by (number of the bag, frame)."""


def write(path: Path, summary: dict[str, Any], judged: Sequence[Judged], pictures: Pictures) -> None:
    """The page."""
    names = ", ".join(j.name for j in judged)
    report = Report(
        f"{summary['model']} on recordings", f"model {summary['model_id']}, {names}, seed {summary['seed']}"
    )
    for problem in summary["problems"]:
        report.text(f"**{problem}**")
    together = summary["together"]
    report.tiles(_tiles(together, summary["timing"]))
    broken = [t for t in (*summary["thresholds"], *summary["timing"]["thresholds"]) if t["broken"]]
    for threshold in broken:
        report.text(f"**threshold {threshold['threshold']} is broken**")
    _prediction(report, together)
    _planner(report, together, judged, pictures)
    for number, bag in enumerate(judged):
        _bag(report, bag, summary["bags"][number], number, pictures)
    _timing(report, summary["timing"])
    report.write(path)


def _tiles(found: dict[str, Any], timing: dict[str, Any]) -> dict[str, Any]:
    tool, last = found["probes"]["tool"]["error_p50_m"], found["prediction"]["horizons"][-1]
    rank, gap = found["latents"]["effective_rank"], found["planner"]["gap_p50_m"]
    return {
        "score": found["score"],
        f"error over persistence, {last['steps']} steps": last["prediction_ratio"],
        f"error over shuffled actions, {last['steps']} steps": last["shuffled_ratio"],
        "probe of the tool, median": _mm(tool),
        "plan to recording, median": _mm(gap),
        "effective rank": None if rank is None else f"{rank:.1f} of {found['latents']['dimensions']}",
        "surprise events": found["surprise"]["events"],
        "times real time": timing["times_real_time"],
    }


def _prediction(report: Report, found: dict[str, Any]) -> None:
    rows = found["prediction"]["horizons"]
    series = {}
    for name, key in (("model", "error"), ("nothing changes", "persistence"), ("shuffled actions", "shuffled")):
        points = [(row["steps"], row[key]) for row in rows if row[key] is not None]
        if points:
            series[name] = tuple(zip(*points, strict=True))
    report.section("Open-loop prediction")
    if series:
        report.plot(
            plots.lines(series, x="model steps ahead", y="mean square over the latent", log_y=True),
            "Predicted with the executed actions, beside a prediction that nothing changes and one with the actions of "
            "another moment.",
        )
    report.table(
        [
            {
                "steps": row["steps"],
                "frames": row["frames"],
                "error": row["error"],
                "over persistence": row["prediction_ratio"],
                "over shuffled actions": row["shuffled_ratio"],
                "joints, rms (rad)": row["joints_rms_rad"],
                "joints stay (rad)": row["joints_persistence_rms_rad"],
            }
            for row in rows
        ]
    )


def _planner(report: Report, found: dict[str, Any], judged: Sequence[Judged], pictures: Pictures) -> None:
    planner = found["planner"]
    report.section("Planner agreement").text(
        f"At {planner['states']} states the goal was the frame at the horizon's end; {planner['planned']} plans, "
        f"{planner['limit_violations']} of them out of limits."
    )
    made = [(number, a) for number, j in enumerate(judged) for a in j.plans if a.plan is not None]
    if not made:
        return
    fig, (left, right) = plots.figure(2)
    left.plot([100 * a.moved for _, a in made], [100 * a.gap for _, a in made], ".")
    left.set(
        title="Where the plan leads the tool", xlabel="moved in the recording (cm)", ylabel="apart at the end (cm)"
    )
    left.set_ylim(bottom=0)
    for name, values in (
        ("planned", [a.cost for _, a in made]),
        ("recorded", [a.recorded_cost for _, a in made]),
        ("random", [a.random_cost for _, a in made]),
    ):
        right.plot(np.sort(values), np.linspace(0, 1, len(values)), label=name)
    right.set(title="Cost of the actions, in the model's eyes", xlabel="cost", ylabel="share of states", xscale="log")
    right.legend(frameon=False)
    report.plot(fig)
    worst = sorted(made, key=lambda item: -item[1].gap)
    shown = [(n, a) for n, a in worst if (n, a.frame) in pictures and (n, a.goal_frame) in pictures]
    if shown:
        report.text("Start and goal of the plans that end furthest from the recording:")
        report.images(
            (f"{100 * a.gap:.1f} cm apart", [pictures[n, a.frame], pictures[n, a.goal_frame]]) for n, a in shown
        )


def _bag(report: Report, bag: Judged, entry: dict[str, Any], number: int, pictures: Pictures) -> None:
    quality = entry["quality"]
    report.section(f"Recording {bag.name}")
    rates = [f"{c['topic']} {_rate(c['rate_hz'])}" for c in quality["cameras"]]
    rates += [f"{name} {_rate(quality[name]['rate_hz'])}" for name in ("joint_states", "executed")]
    dropped = [f"{cause} {count}" for c in quality["cameras"] for cause, count in c["dropped"].items()]
    report.table(
        [
            ("length", f"{quality['seconds']:.1f} s, {quality['frames']} frames, {quality['episodes']} episodes"),
            ("rates", ", ".join(rates)),
            (
                "gaps in the pictures",
                ", ".join(f"{c['gaps']}, longest {_s(c['longest_gap_s'])}" for c in quality["cameras"]),
            ),
            ("dropped pictures", ", ".join(dropped) or "none"),
            ("frozen frames", str(quality["frozen_frames"])),
            ("jumps back in time", str(quality["time_jumps_back"])),
            ("frame to joint states, 99 %", _ms(quality["camera_to_joint_states_ms"]["p99"])),
            ("unreadable, refused", "; ".join(map(_count, _wrong(quality))) or "none"),
            ("missing", ", ".join(quality["missing"]) or "nothing"),
        ],
        ["what", "found"],
    )
    if len(bag.times) > 1:
        _along(report, bag)
    events = [e for e in sorted(bag.events, key=lambda e: -e.error) if (number, e.frame) in pictures]
    if events:
        report.text("The most surprising moments:")
        report.images((f"{bag.times[e.frame]:.1f} s, error {e.error:.3g}", pictures[number, e.frame]) for e in events)


def _along(report: Report, bag: Judged) -> None:
    """Surprise, probe error and drift along the recording."""
    order = np.argsort(bag.times, kind="stable") if not bag.recorded.clock.jumps else np.arange(len(bag.times))
    if bag.readings:
        frames = np.array(list(bag.readings))
        errors = np.array([r.error for r in bag.readings.values()])
        threshold = next(iter(bag.readings.values())).threshold
        curve = thinned(bag.times[frames], errors, np.maximum.reduceat)
        report.plot(
            plots.lines({"error": curve}, "s", "prediction error", "Surprise", True, (threshold, "surprised beyond"))
        )
    if "tool" in bag.probes and np.isfinite(bag.probes["tool"]).any():
        good = order[np.isfinite(bag.probes["tool"][order])]
        curve = thinned(bag.times[good], 1e3 * bag.probes["tool"][good], _mean)
        report.plot(plots.lines({"error": curve}, "s", "mm", "What the probe reads of the tool's place"))
    drift = health.along(bag.sample)
    middle = (np.arange(len(drift["shift"])) + 0.5) / max(len(drift["shift"]), 1) * 100
    series = {"mean latent, from the first part's (over the variance)": (middle, drift["shift"])}
    if drift["distance"]:
        series["distance from the training data (1 there)"] = (middle, drift["distance"])
    report.plot(plots.lines(series, "% of the recording", "", "Drift"))


def thinned(x: np.ndarray, y: np.ndarray, reduce: Any) -> tuple[np.ndarray, np.ndarray]:
    """At most POINTS points of a line (n,): the first x of each group, and y reduced over it."""
    starts = (
        np.unique(np.linspace(0, len(x), POINTS, endpoint=False).astype(int)) if len(x) > POINTS else np.arange(len(x))
    )
    return x[starts], reduce(y, starts)


def _mean(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values)))


def _timing(report: Report, timing: dict[str, Any]) -> None:
    rows = [(name, timing[f"{key}_ms"]["p50"], timing[f"{key}_ms"]["p99"]) for name, key in STEPS]
    report.section("On this machine").table(rows, ["step", "median (ms)", "99 % (ms)"])
    keeps, misses = timing["keeps_up_with_camera"], timing["deadline_misses"]
    if keeps is not None:
        report.text(f"Live, it would {'keep' if keeps else 'not keep'} up with the camera.")
    if misses is not None:
        report.text(f"{misses} plans would have missed the deadline of {timing['deadline_ms']:.0f} ms.")


STEPS = (("decode and preprocess a picture", "decode"), ("encode it", "encode"), ("plan", "plan"))


def _wrong(quality: dict[str, Any]) -> list[tuple[str, int]]:
    return [*quality["unreadable"].items(), *quality["refused"].items()]


def _count(item: tuple[str, int]) -> str:
    return f"{item[0]}: {item[1]}"


def _mm(metres: float | None) -> str | None:
    return None if metres is None else f"{1e3 * metres:.1f} mm"


def _ms(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f} ms"


def _s(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"


def _rate(value: float | None) -> str:
    return "not there" if value is None else f"{value:.1f} Hz"
