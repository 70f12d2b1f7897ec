"""The demo's page and video."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jepa_ros.demo.graph_svg import graph_svg
from jepa_ros.demo.record import DemoRecord, Frame, GoalRun
from jepa_ros.reporting import plots
from jepa_ros.reporting.report import Report
from jepa_ros.reporting.video import write_video

_VIDEO_WIDTH = 640  # px
_GREEN, _BLUE, _WHITE, _SHADE = (30, 190, 110), (60, 110, 240), (255, 255, 255), (20, 22, 28)


def write_report(record: DemoRecord, summary: Mapping[str, Any], path: str | os.PathLike) -> Path:
    """The page of a demo run; ``summary`` is what ``summarise`` made of the record."""
    begun = f"{summary['reached']} of {summary['begun']}"
    report = Report(
        "jepa_ros demo", f"{record.wanted} goals · seed {record.seed} · model {record.model} · robot {record.robot}"
    )
    if record.ended:
        report.text(f"**The run ended early:** {record.ended}. The figures cover what there is.")
    latency, plan_ms, frames = summary["latency_ms"], summary["plan_ms"], summary["frames"]
    lost = 1 - frames["encoded"] / frames["sent"] if frames["sent"] else None
    report.tiles(
        {
            "goals reached": begun,
            "final distance, p50": _unit(summary["final_distance_m"]["p50"], 100, "cm"),
            "frame to controller, p50": _unit(latency["p50"], 1, "ms"),
            "frame to controller, p99": _unit(latency["p99"], 1, "ms"),
            "gate's own part, p99": _unit(summary["gate_own_ms"].get("p99"), 1, "ms"),
            "search, p50": _unit(plan_ms["p50"], 1, "ms"),
            "plans a second": _unit(summary["replan_hz"], 1, ""),
            "deadline misses": f"{summary['deadline_misses']} of {summary['plans']}",
            "frames lost": _unit(lost, 100, "%"),
        },
        good={"goals reached": summary["reached"] == summary["begun"] > 0},
    )
    report.text(
        "Every goal is one image that the model was not trained on. It counts as reached when the tool stays within "
        f"{100 * record.tolerance_m:g} cm of the goal's place for {record.hold_s:g} s, "
        f"in {record.limit_s:g} s or less. Distances come from the simulator's own transforms, which neither the model "
        "nor the planner ever sees."
    )
    report.section("Goal and final frame").images(_pairs(record.done), width=190)
    _add_curves(report, record)
    if record.topics:
        nodes = [process["name"] for process in record.processes]
        report.section("The graph").svg(graph_svg(record.topics, nodes), "As ROS reported it during the run.")
    report.section("Every goal").table(
        {
            "goal": goal.index + 1,
            "reached": goal.reached,
            "start (cm)": None if goal.start is None else 100 * goal.start,
            "end (cm)": None if goal.final is None else 100 * goal.final,
            "time (s)": goal.times[-1],
            "how it ended": goal.reason,
        }
        for goal in record.done
    )
    report.section("Processes").table(record.processes, ["name", "pid"])
    report.text(f"`{summary['rmw']}` on ROS 2 `{summary['distro']}`, {summary['wall_s']:.0f} s in all.")
    return report.write(path)


def _add_curves(report: Report, record: DemoRecord) -> None:
    series = {str(g.index + 1): (g.times, [100 * d for d in g.distances]) for g in record.done}
    tolerance = (100 * record.tolerance_m, "tolerance")
    figure = plots.lines(series, x="s since the goal was sent", y="cm", level=tolerance, faint=True)
    figure.axes[0].set_ylim(bottom=0)
    report.section("Distance to the goal").plot(figure)
    latency, gate = record.latencies_ms()
    report.section("Latency")
    for samples, x, caption in (
        (latency, "ms", "From a frame's stamp to the first message to the controller whose plan was made from it."),
        (gate, "ms", "The gate's part: from the planner's sending the plan to that message."),
        (list(record.plan_ms.values()), "ms", "The planner's search."),
    ):
        if samples:
            marks = {f"p{p}": float(np.percentile(samples, p)) for p in (50, 99)}
            report.plot(plots.histogram(samples, x=x, marks=marks), caption)


def _pairs(goals: list[GoalRun]) -> Iterator[tuple[str, list[np.ndarray]]]:
    for goal in goals:
        result = "reached" if goal.reached else "**not reached**"
        caption = f"{goal.index + 1}: {result}, {100 * goal.final:.1f} cm after {goal.times[-1]:.1f} s"
        yield caption, [goal.image] + ([decode(goal.final_frame)] if goal.final_frame else [])


def _unit(value: float | None, factor: float, unit: str) -> str | None:
    return None if value is None else f"{factor * value:.3g} {unit}".strip()


def decode(jpeg: bytes) -> np.ndarray:
    """A picture (H, W, 3) uint8 rgb from JPEG data."""
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def write_demo_video(record: DemoRecord, path: str | os.PathLike) -> int:
    """The camera's view while goals were under way, the goal inset; returns the number of frames."""
    goals = {goal.index: goal for goal in record.goals}
    period = record.camera_period()
    frames = [frame for frame in record.frames if frame.goal in goals]
    rate = round(1 / period, 3) if period > 0 else 15.0
    return write_video(path, (draw(frame, goals[frame.goal], record) for frame in frames), rate)


def draw(frame: Frame, goal: GoalRun, record: DemoRecord) -> np.ndarray:
    """One picture of the video, (H, W, 3) uint8 rgb."""
    view = decode(frame.jpeg)
    height = round(_VIDEO_WIDTH * view.shape[0] / view.shape[1] / 2) * 2
    canvas = cv2.resize(view, (_VIDEO_WIDTH, height), interpolation=cv2.INTER_CUBIC)
    inset_width = _VIDEO_WIDTH // 4
    inset_height = round(inset_width * goal.image.shape[0] / goal.image.shape[1])
    inset = cv2.resize(goal.image, (inset_width, inset_height), interpolation=cv2.INTER_AREA)
    x, y = _VIDEO_WIDTH - inset_width - 10, 10
    near = frame.distance <= record.tolerance_m
    border = _GREEN if near else _BLUE
    cv2.rectangle(canvas, (x - 2, y - 2), (x + inset_width + 1, y + inset_height + 1), border, 2)
    canvas[y : y + inset_height, x : x + inset_width] = inset
    _label(canvas, "goal", (x + 6, y + inset_height - 8), 0.45, _WHITE)
    _label(canvas, f"goal {goal.index + 1}/{record.wanted}", (14, 28), 0.6, _WHITE)
    if np.isfinite(frame.distance):
        _label(canvas, f"{100 * frame.distance:.1f} cm", (14, 56), 0.6, _GREEN if near else _WHITE)
    return canvas


def _label(canvas: np.ndarray, text: str, at: tuple[int, int], size: float, colour: tuple[int, int, int]) -> None:
    for tint, thickness in ((_SHADE, 3), (colour, 1)):
        cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, tint, thickness, cv2.LINE_AA)
