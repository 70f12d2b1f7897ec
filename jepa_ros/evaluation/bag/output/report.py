"""report.html of `evaluate bag`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jepa_ros.evaluation.bag.metrics.latents import measure_drift
from jepa_ros.evaluation.bag.metrics.table import BagResult
from jepa_ros.reporting import plots
from jepa_ros.reporting.report import Report, with_unit

MAX_POINTS = 2000
"""Points of a line along a recording; more are averaged."""

FrameImages = dict[tuple[int, int], np.ndarray]
"""(H, W, 3) uint8 by (number of the bag, frame)."""
TIMED_STEPS = (("decode and preprocess an image", "decode"), ("encode it", "encode"), ("plan", "plan"))


def write_report(path: Path, summary: dict[str, Any], results: Sequence[BagResult], images: FrameImages) -> Path:
    """Write the page; return its path."""
    names = ", ".join(result.name for result in results)
    subtitle = f"model {summary['model_id']}, {names}, seed {summary['seed']}"
    report = Report(f"{summary['model']} on recordings", subtitle)
    for problem in summary["problems"]:
        report.text(f"**{problem}**")
    together = summary["together"]
    report.tiles(_tiles(together, summary["timing"]))
    broken = [t for t in (*summary["thresholds"], *summary["timing"]["thresholds"]) if t["broken"]]
    for threshold in broken:
        report.text(f"**{threshold['line']}**")
    _add_prediction(report, together)
    _add_planner(report, together, results, images)
    for number, result in enumerate(results):
        _add_bag(report, result, number, images)
    _add_timing(report, summary["timing"])
    return report.write(path)


def _tiles(found: dict[str, Any], timing: dict[str, Any]) -> dict[str, Any]:
    tool, last = found["probes"]["tool"]["error_p50_m"], found["prediction"]["horizons"][-1]
    rank, gap = found["latents"]["effective_rank"], found["planner"]["gap_p50_m"]
    return {
        "score": found["score"],
        f"error over persistence, {last['steps']} steps": last["prediction_ratio"],
        f"error over shuffled actions, {last['steps']} steps": last["shuffled_ratio"],
        "tool probe error, median": with_unit(tool, "mm", 1e3),
        "distance of plan and recording, median": with_unit(gap, "mm", 1e3),
        "effective rank": None if rank is None else f"{rank:.1f} of {found['latents']['dimensions']}",
        "surprise events": found["surprise"]["events"],
        "times real time": timing["times_real_time"],
    }


def _add_prediction(report: Report, found: dict[str, Any]) -> None:
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
            "Rollouts with the executed actions, compared with predicting no change and with the actions of another "
            "moment.",
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
                "joints, no change (rad)": row["joints_persistence_rms_rad"],
            }
            for row in rows
        ]
    )


def _add_planner(report: Report, found: dict[str, Any], results: Sequence[BagResult], images: FrameImages) -> None:
    planner = found["planner"]
    report.section("Planner agreement").text(
        f"{planner['states']} states, each with the frame at the end of the horizon as goal; "
        f"{planner['planned']} plans, {planner['limit_violations']} of which violate limits."
    )
    made = [(n, a) for n, r in enumerate(results) for a in r.samples["planner"]["agreements"] if a.plan is not None]
    if not made:
        return
    fig, (left, right) = plots.figure(2)
    left.plot([100 * a.moved for _, a in made], [100 * a.gap for _, a in made], ".")
    left.set(
        title="Tool position after the plan", xlabel="motion in the recording (cm)", ylabel="distance at the end (cm)"
    )
    left.set_ylim(bottom=0)
    for name, values in (
        ("planned", [a.cost for _, a in made]),
        ("recorded", [a.recorded_cost for _, a in made]),
        ("random", [a.random_cost for _, a in made]),
    ):
        right.plot(np.sort(values), np.linspace(0, 1, len(values)), label=name)
    right.set(title="Cost of the actions predicted by the model", xlabel="cost", ylabel="share of states", xscale="log")
    right.legend(frameon=False)
    report.plot(fig)
    worst = sorted(made, key=lambda item: -item[1].gap)
    shown = [(n, a) for n, a in worst if (n, a.frame) in images and (n, a.goal_frame) in images]
    if shown:
        report.text("Start and goal of the plans that end farthest from the recording:")
        report.images((f"{100 * a.gap:.1f} cm apart", [images[n, a.frame], images[n, a.goal_frame]]) for n, a in shown)


def _add_bag(report: Report, result: BagResult, number: int, images: FrameImages) -> None:
    quality = result.quality
    report.section(f"Recording {result.name}")
    rates = [f"{c['topic']} {with_unit(c['rate_hz'], 'Hz') or 'missing'}" for c in quality["cameras"]]
    rates += [
        f"{name} {with_unit(quality[name]['rate_hz'], 'Hz') or 'missing'}" for name in ("joint_states", "executed")
    ]
    gaps = [f"{c['gaps']}, longest {with_unit(c['longest_gap_s'], 's') or '–'}" for c in quality["cameras"]]
    wrong = [f"{name}: {count}" for part in ("unreadable", "refused") for name, count in quality[part].items()]
    dropped = [f"{cause} {count}" for c in quality["cameras"] for cause, count in c["dropped"].items()]
    report.table(
        [
            ("length", f"{quality['seconds']:.1f} s, {quality['frames']} frames, {quality['episodes']} episodes"),
            ("rates", ", ".join(rates)),
            ("gaps in the images", ", ".join(gaps)),
            ("dropped images", ", ".join(dropped) or "none"),
            ("frozen frames", str(quality["frozen_frames"])),
            ("jumps back in time", str(quality["time_jumps_back"])),
            ("frame to joint states, 99th percentile", with_unit(quality["camera_to_joint_states_ms"]["p99"], "ms")),
            ("unreadable, refused", "; ".join(wrong) or "none"),
            ("missing", ", ".join(quality["missing"]) or "nothing"),
        ],
        ["what", "found"],
    )
    times = result.recording.frame_times
    if len(times) > 1:
        _add_curves(report, result, times)
    events = sorted(result.samples["surprise"]["events"], key=lambda e: -e.error)
    shown = [(f"{times[e.frame]:.1f} s, error {e.error:.3g}", (number, e.frame)) for e in events]
    shown = [(caption, images[key]) for caption, key in shown if key in images]
    if shown:
        report.text("The most surprising moments:").images(shown)


def _add_curves(report: Report, result: BagResult, times: np.ndarray) -> None:
    """Surprise, probe error and drift along the recording."""
    order = np.arange(len(times)) if result.recording.clock.jumps else np.argsort(times, kind="stable")
    readings = result.samples["surprise"]["readings"]
    if readings:
        errors = np.array([reading.error for reading in readings])
        curve = _thin_out(times[result.samples["surprise"]["frames"]], errors, np.max)
        level = (readings[0].threshold, "surprised above")
        report.plot(plots.lines({"error": curve}, "s", "prediction error", "Surprise", True, level))
    error = result.samples["probes"].get("tool_error", np.zeros(0))
    if np.isfinite(error).any():
        good = order[np.isfinite(error[order])]
        curve = _thin_out(times[good], 1e3 * error[good], np.mean)
        report.plot(plots.lines({"error": curve}, "s", "mm", "Error of the tool probe"))
    drift = measure_drift(result.samples["latents"])
    middle = (np.arange(len(drift["shift"])) + 0.5) / max(len(drift["shift"]), 1) * 100
    series = {"distance of the mean latent from the first part's (over the variance)": (middle, drift["shift"])}
    if drift["distance"]:
        series["distance from the training data (1 on the training data)"] = (middle, drift["distance"])
    report.plot(plots.lines(series, "% of the recording", "", "Drift"))


def _thin_out(x: np.ndarray, y: np.ndarray, reduce: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Return at most MAX_POINTS points of a line (n,): the first x of each group, and y reduced over it."""
    groups = np.array_split(np.arange(len(x)), min(len(x), MAX_POINTS))
    return x[[rows[0] for rows in groups]], np.array([reduce(y[rows]) for rows in groups])


def _add_timing(report: Report, timing: dict[str, Any]) -> None:
    rows = [(name, timing[f"{key}_ms"]["p50"], timing[f"{key}_ms"]["p99"]) for name, key in TIMED_STEPS]
    report.section("Speed on this machine").table(rows, ["step", "median (ms)", "99th percentile (ms)"])
    keeps, misses = timing["keeps_up_with_camera"], timing["deadline_misses"]
    if keeps is not None:
        report.text(f"Live, the model {'keeps' if keeps else 'does not keep'} up with the camera on this machine.")
    if misses is not None:
        report.text(f"{misses} of the timed plans miss the deadline of {timing['deadline_ms']:.0f} ms.")
