"""`jepa_ros evaluate bag`: evaluates a model on bags in process and writes summary, report, frame table, result bag."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jepa_ros.allocator import keep_freed_memory
from jepa_ros.evaluation.bag.evaluate import BagEvaluation, make_spec
from jepa_ros.evaluation.bag.output.frame_table import FrameTable
from jepa_ros.evaluation.bag.output.report import write_report
from jepa_ros.evaluation.bag.output.summary import (
    TIMING_PATHS,
    Threshold,
    gather_thresholds,
    metric_names,
    timing_metrics,
)
from jepa_ros.evaluation.bag.reading.recording import read_urdf
from jepa_ros.evaluation.bag.reading.topics import TopicOptions
from jepa_ros.reporting.output import prepare_out
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.result import print_result
from jepa_ros.reporting.summary import write_summary


def run_bag_evaluation(
    *,
    bags: Sequence[Path],
    model: str,
    seed: int,
    out: Path,
    robot: str | None = None,
    camera: Sequence[str] = (),
    joint_states: str = "",
    executed: str = "",
    description: Path | None = None,
    horizon: int = 5,
    plan_states: int = 50,
    solver: str = "icem",
    policy: str = "policy_first",
    metric: str = "l2",
    workers: int = 2,
    device: str = "cpu",
    result: bool = True,
    fail_if: Sequence[str] = (),
    thresholds_file: Path | None = None,
) -> int:
    """Evaluate a model on bags; write summary.json, report.html, the table of frames and result bags into `out`.

    Return 0; 1 where a threshold is exceeded; 2 where a bag is incomplete or broken: what can be read is evaluated all
    the same. Raises InputError where nothing can be evaluated.
    """
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()  # thousands of images of a megabyte each
    began = time.time()
    spec = make_spec(model, device, robot, horizon, plan_states, seed, solver, policy, metric)
    thresholds = gather_thresholds(fail_if, thresholds_file, metric_names(horizon))
    topics, urdf = TopicOptions(tuple(camera), joint_states, executed), read_urdf(description)
    out = prepare_out(out)
    _remove_partial_files(out)
    with ExitStack() as stack:
        table = stack.enter_context(FrameTable(out))
        target = out if result else None
        evaluation = BagEvaluation(spec, topics, urdf, workers, table, target, keep_images=True, bag_count=len(bags))
        display = stack.enter_context(ProgressDisplay())
        for path in bags:
            evaluation.add_bag(Path(path), display)
        summary = evaluation.summary()
        table.finish()
    summary["files"] = {"frames": table.path, "results": evaluation.result_bags}
    verdicts = _check_thresholds(thresholds, summary["metrics"] | timing_metrics(summary["timing"]))
    summary["thresholds"] = [v for v in verdicts if not v["timing"]]
    summary["timing"] |= {"device": device, "thresholds": [v for v in verdicts if v["timing"]]}
    write_summary(out / "summary.json", summary)  # before the report, so that it cannot be lost
    write_report(out / "report.html", summary, evaluation.results, evaluation.images)
    wall_s = summary["wall_s"] = time.time() - began
    summary["timing"]["times_real_time"] = summary["timing"]["seconds_of_recording"] / max(wall_s, 1e-9)
    write_summary(out / "summary.json", summary)
    _print_summary(summary, evaluation, out)
    broken = [v["line"] for v in verdicts if v["broken"]]
    for line in (*evaluation.problems, *broken):
        print(f"jepa_ros: {line}", file=sys.stderr)
    return 2 if evaluation.problems else 1 if broken else 0


def _remove_partial_files(out: Path) -> None:
    """Remove what a run that was killed left half-written."""
    for pattern in (".frames.*", ".result*.mcap.*"):
        for left in out.glob(pattern):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def _check_thresholds(thresholds: Sequence[Threshold], metrics: dict[str, float | None]) -> list[dict[str, Any]]:
    found = []
    for threshold in thresholds:
        line = threshold.check(metrics)
        timing = threshold.metric in TIMING_PATHS
        found.append({"threshold": str(threshold), "broken": bool(line), "line": line, "timing": timing})
    return found


def _print_summary(summary: dict[str, Any], evaluation: BagEvaluation, out: Path) -> None:
    """Print the main results, each with what it means."""
    metrics, planner, steps = summary["metrics"], summary["together"]["planner"], summary["horizon"]
    count = len(evaluation.results)
    lines = [
        ("score", f"{_shown(summary['score'])} (0 to 1)"),
        ("prediction error / no change", f"{_shown(metrics[f'prediction_ratio@{steps}'])} after {steps} steps"),
        ("prediction error / shuffled", f"{_shown(metrics[f'shuffled_ratio@{steps}'])} after {steps} steps"),
        ("tool probe error, median", f"{_shown(metrics['probe_tool_p50_m'], 1e3)} mm"),
        ("surprise events", metrics["surprise_events"]),
        ("plans", f"{planner['planned']} of {planner['states']}, {planner['limit_violations']} violate limits"),
        ("plan and recording apart, median", f"{_shown(metrics['plan_gap_p50_m'], 1e3)} mm"),
        ("speed", f"{summary['timing']['times_real_time']:.1f} times real time"),
    ]
    if checked := [*summary["thresholds"], *summary["timing"]["thresholds"]]:
        lines.append(("thresholds", f"{sum(t['broken'] for t in checked)} of {len(checked)} exceeded"))
    if evaluation.problems:
        lines.append(("problems", f"{len(evaluation.problems)}, listed below"))
    paths = [out / "summary.json", out / "report.html", summary["files"]["frames"], *evaluation.result_bags]
    frames = f"{metrics['frames']} frames"
    print_result(f"{summary['model']} on {count} recording{'s' * (count != 1)}, {frames}", lines, paths)


def _shown(value: float | None, factor: float = 1.0) -> str:
    return "–" if value is None else f"{value * factor:.3g}"
