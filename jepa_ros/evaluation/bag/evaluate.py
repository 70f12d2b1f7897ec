"""Evaluation of bags: `evaluate_bag` is the Python function, `run_bag_evaluation` the command `jepa_ros evaluate bag`.

Each bag is read once; then every metric is computed, and results are kept for summary, report and result bag.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from jepa_ros.allocator import keep_freed_memory
from jepa_ros.bags.cameras import decode_image
from jepa_ros.bags.reader import Bag, open_bag
from jepa_ros.bags.typestore import header_stamp
from jepa_ros.errors import InputError
from jepa_ros.evaluation.bag.metrics.table import BagResult, compute_metrics
from jepa_ros.evaluation.bag.output.frame_table import frame_columns, write_frame_table
from jepa_ros.evaluation.bag.output.report import FrameImages, write_report
from jepa_ros.evaluation.bag.output.summary import (
    TIMING_PATHS,
    gather_thresholds,
    metric_names,
    summarize,
    timing_metrics,
)
from jepa_ros.evaluation.bag.reading.bag_reader import BagReader
from jepa_ros.evaluation.bag.reading.images import to_display_size
from jepa_ros.evaluation.bag.reading.recording import EvaluationSpec, TopicKey, TopicOptions, expect_topics, find_topics
from jepa_ros.evaluation.bag.reading.result_bag import ResultBag
from jepa_ros.images import ImageError
from jepa_ros.planning.receding_horizon import PlanningSettings
from jepa_ros.reporting.output import after_summary, prepare_out
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.report import format_value, with_unit
from jepa_ros.reporting.result import print_result
from jepa_ros.reporting.summary import write_summary
from jepa_ros.robot.files.draft import read_urdf
from jepa_ros.world_model.checkpoint import Checkpoint, check_robot, choose_robot, load_checkpoint, model_on
from jepa_ros.world_model.device import choose_device

SHOWN_EVENTS, SHOWN_PLANS = 12, 6
"""Surprise events and plans of each bag whose images the report shows."""


def evaluate_bag(
    bag: str | Path,
    model: str | Path | Checkpoint,
    *,
    robot: str | None = None,
    topics: TopicOptions | None = None,
    urdf: str | None = None,
    horizon: int = 5,
    plan_states: int = 50,
    seed: int = 0,
    solver: str = "icem",
    policy: str = "policy_first",
    metric: str = "l2",
    workers: int = 2,
    device: str = "cpu",
) -> dict[str, Any]:
    """Evaluate a model on one recording and return the contents of summary.json; nothing is written or printed.

    bag: rosbag2 directory, or a single .mcap or .db3 file. model: name, directory or loaded checkpoint. topics: where
    they cannot be found by their types. urdf: for a bag without robot_description. What is wrong with the bag is listed
    under `problems`; what can be read is evaluated all the same. Raises InputError where nothing can be.

        summary = evaluate_bag("my_bag", "openarm_reach", plan_states=0)
        print(summary["score"], summary["metrics"]["prediction_ratio@5"])
    """
    options = {"solver": solver, "policy": policy, "metric": metric, "device": device}
    spec = make_spec(model, robot=robot, horizon=horizon, plan_states=plan_states, seed=seed, **options)
    evaluation = BagEvaluation(spec, topics or TopicOptions(), urdf, workers)
    evaluation.add_bag(Path(bag), ProgressDisplay(quiet=True))
    return evaluation.summary()


def make_spec(
    model: str | Path | Checkpoint,
    *,
    device: str = "cpu",
    robot: str | None = None,
    horizon: int = 5,
    plan_states: int = 50,
    seed: int = 0,
    **planning: str,
) -> EvaluationSpec:
    """Load the model and check that it fits the robot. planning: solver, policy and metric, see PlanningSettings.

    Search rounds are counted, not timed, so that results do not depend on the machine. Raises InputError.
    """
    loaded = model if isinstance(model, Checkpoint) else load_checkpoint(model)
    checkpoint = model_on(loaded, choose_device(device))
    arm = choose_robot(checkpoint.config, robot)
    check_robot(checkpoint.config, arm)
    settings = PlanningSettings(budget=math.inf, horizon=horizon, seed=seed, **planning)
    return EvaluationSpec(checkpoint, arm, settings, horizon, plan_states, seed)


@dataclass
class BagEvaluation:
    """Evaluates bags one after the other. urdf: robot_description for all bags; default: each bag's own. keep_images:
    for the report."""

    spec: EvaluationSpec
    topics: TopicOptions
    urdf: str | None = None
    workers: int = 2
    keep_images: bool = False
    results: list[BagResult] = field(default_factory=list)
    images: FrameImages = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    result_bags: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._started, self._read_s, self._evaluate_s = time.time(), 0.0, 0.0

    def add_bag(self, path: Path, display: ProgressDisplay, result_path: Path | None = None) -> None:
        """Evaluate one bag, and write a result bag where `result_path` is given; a bag that cannot be opened is a line
        of `problems`."""
        try:
            source = open_bag(path)
        except InputError as error:
            self.problems.append(str(error))
            return
        with ExitStack() as stack:
            stack.enter_context(source)
            topics, result_bag = find_topics(source, self.spec.config, self.spec.robot, self.topics), None
            if result_path is not None:
                result_bag = stack.enter_context(ResultBag(result_path, topics.keys, self.spec.checkpoint.model_id))
                self.result_bags.append(result_path)
            name, begin = path.stem or path.name, time.perf_counter()
            task = display.add(name, next((t.count for t in source.topics if topics.cameras[:1] == [t[:2]]), None))
            reader = BagReader(source, topics, self.spec, result_bag, self.urdf, self.workers)
            recording = reader.read(lambda frames: display.update(task, frames))
            frames, middle = len(recording.frame_stamps), time.perf_counter()
            display.update(task, frames, total=frames)
            task = display.add("plans", None)
            result = compute_metrics(name, recording, self.spec, lambda plans: display.update(task, plans))
            plans = len(result.samples["planner"]["agreements"])
            display.update(task, plans, total=plans)
            self._read_s += middle - begin
            self._evaluate_s += time.perf_counter() - middle
            if result_bag is not None:
                _write_results(result_bag, result)
                result_bag.finish()
            if self.keep_images:
                self._read_images(source, topics.cameras[:1], result)
            recording.latents.close()
        result.problems[:0] = [*source.problems, *topics.problems]
        result.problems += _recording_problems(path, result)
        self.problems += result.problems
        self.results.append(result)

    def summary(self) -> dict[str, Any]:
        """Return the contents of summary.json. Raises InputError where no bag could be evaluated."""
        if not self.results:
            raise InputError(self.problems[0])
        summary = summarize(self.results, self.spec) | {"problems": self.problems}
        wall_s = time.time() - self._started
        summary["timing"] |= {
            "times_real_time": summary["timing"]["seconds_of_recording"] / max(wall_s, 1e-9),
            "workers": self.workers,
            "read_and_encode_s": self._read_s,
            "judge_s": self._evaluate_s,
        }
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._started))
        return summary | {"wall_s": wall_s, "started": started}

    def _read_images(self, source: Bag, camera: Sequence[TopicKey], result: BagResult) -> None:
        """Keep the images that the report shows, in display size."""
        planned = [a for a in result.samples["planner"]["agreements"] if a.plan is not None]
        planned = sorted(planned, key=lambda a: -a.gap)[:SHOWN_PLANS]
        events = sorted(result.samples["surprise"]["events"], key=lambda e: -e.error)[:SHOWN_EVENTS]
        recording = result.recording
        for frame in sorted({e.frame for e in events} | {f for a in planned for f in (a.frame, a.goal_frame)}):
            recorded, stamp = recording.frame_recorded[frame], recording.frame_stamps[frame]
            for raw in source.messages(camera, recorded, recorded + 1):
                message = raw.deserialise()
                if header_stamp(message) in (stamp, 0):
                    with suppress(ImageError):
                        self.images[len(self.results), frame] = to_display_size(decode_image(message))
                    break


def _write_results(bag: ResultBag, result: BagResult) -> None:
    """Write surprise and plans to the result bag at the recording times of their frames."""
    recording, surprise = result.recording, result.samples["surprise"]
    stamps, times = recording.frame_stamps, recording.frame_recorded
    frame_id, zero = recording.cameras[0].frame_id if recording.cameras else "", recording.first_stamp
    for frame, reading in zip(surprise["frames"], surprise["readings"], strict=True):
        bag.write_surprise(stamps[frame], times[frame], frame_id, reading)
    base_frame = result.situations.spec.robot.base_frame
    for made in result.samples["planner"]["agreements"]:
        if made.plan is not None:
            bag.write_plan(made.plan, zero, times[made.frame], stamps[made.goal_frame], base_frame)


def _recording_problems(path: Path, result: BagResult) -> Sequence[str]:
    """Return what is wrong with a bag and shows only when it has been read."""
    recording, lines = result.recording, []
    if jumps := recording.clock.jumps:
        back = (jumps[0][0] - jumps[0][1]) * 1e-9
        times = "once" if len(jumps) == 1 else f"{len(jumps)} times"
        lines.append(f"timestamps jump backwards {times}, first by {back:.2f} s; each jump starts a new segment")
    if recording.unreadable:
        what = ", ".join(f"{topic} {count}" for topic, count in sorted(recording.unreadable.items()))
        lines.append(f"undecodable messages: {what}")
    lines += [f"{text} ({count} messages)" for text, count in recording.refused.most_common(3)]
    for camera in result.quality["cameras"]:
        broken = sum(n for cause, n in camera["dropped"].items() if cause in ImageError.CAUSES)
        if broken:
            first = camera["first_problem"]
            lines.append(f"{camera['topic']}: {broken} of {camera['messages']} images are broken, the first: {first}")
    return [f"bag {path}: {line}" for line in lines]


def run_bag_evaluation(
    *,
    bags: Sequence[Path],
    out: Path,
    camera: Sequence[str] = (),
    joint_states: str = "",
    executed: str = "",
    description: Path | None = None,
    workers: int = 2,
    device: str = "cpu",
    result: bool = True,
    fail_if: Sequence[str] = (),
    thresholds_file: Path | None = None,
    **spec_options: Any,
) -> int:
    """Evaluate a model on bags; write summary.json, report.html, the table of frames and result bags into `out`.

    spec_options: see make_spec. Return 0; 1 where a threshold is exceeded; 2 where a bag is incomplete or broken: what
    can be read is evaluated all the same. Raises InputError where nothing can be evaluated.
    """
    torch.set_num_threads(1)
    keep_freed_memory()  # thousands of images of a megabyte each
    began = time.time()
    spec = make_spec(device=device, **spec_options)
    thresholds = gather_thresholds(fail_if, thresholds_file, metric_names(spec.horizon))
    topics = TopicOptions(tuple(camera), joint_states, executed)
    expect_topics(bags, topics)
    urdf = read_urdf(description) if description else None
    out = prepare_out(out)
    for pattern in (".*frames.*", ".result*.mcap.*"):  # half-written by a run that was killed
        for left in out.glob(pattern):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    evaluation = BagEvaluation(spec, topics, urdf, workers, keep_images=True)
    with ProgressDisplay() as display:
        for number, path in enumerate(map(Path, bags)):
            name = "result.mcap" if len(bags) == 1 else f"result_{number}_{path.stem}.mcap"
            evaluation.add_bag(path, display, out / name if result else None)
    summary = evaluation.summary()
    metrics = summary["metrics"] | timing_metrics(summary["timing"])
    verdicts = [
        {"threshold": str(t), "broken": bool(line), "line": line, "timing": t.metric in TIMING_PATHS}
        for t in thresholds
        for line in [t.check(metrics)]
    ]
    summary["thresholds"] = [v for v in verdicts if not v["timing"]]
    summary["timing"] |= {"device": device, "thresholds": [v for v in verdicts if v["timing"]]}
    paths = [write_summary(out / "summary.json", summary)]  # before the report, so that it cannot be lost
    with after_summary(paths[0]):
        table = write_frame_table(out, map(frame_columns, evaluation.results))
        summary["files"] = {"frames": table, "results": evaluation.result_bags}
        paths.append(write_report(out / "report.html", summary, evaluation.results, evaluation.images))
    wall_s = summary["wall_s"] = time.time() - began
    summary["timing"]["times_real_time"] = summary["timing"]["seconds_of_recording"] / max(wall_s, 1e-9)
    write_summary(out / "summary.json", summary)
    _print_summary(summary, verdicts, [*paths, table, *evaluation.result_bags])
    broken = [v["line"] for v in verdicts if v["broken"]]
    for line in (*evaluation.problems, *broken):
        print(f"jepa_ros: {line}", file=sys.stderr)
    return 2 if evaluation.problems else 1 if broken else 0


def _print_summary(summary: dict[str, Any], verdicts: Sequence[dict[str, Any]], paths: Sequence[Path]) -> None:
    """Print the main results, each with its meaning."""
    metrics, planner, steps = summary["metrics"], summary["together"]["planner"], summary["horizon"]
    lines = [
        ("score", f"{format_value(summary['score'])} (0 to 1)"),
        ("prediction error / no change", f"{format_value(metrics[f'prediction_ratio@{steps}'])} after {steps} steps"),
        ("prediction error / shuffled", f"{format_value(metrics[f'shuffled_ratio@{steps}'])} after {steps} steps"),
        ("tool probe error, median", with_unit(metrics["probe_tool_p50_m"], "mm", 1e3)),
        ("surprise events", metrics["surprise_events"]),
        ("plans", f"{planner['planned']} of {planner['states']}, {planner['limit_violations']} violate limits"),
        ("plan and recording apart, median", with_unit(metrics["plan_gap_p50_m"], "mm", 1e3)),
        ("speed", f"{summary['timing']['times_real_time']:.1f} times real time"),
    ]
    if verdicts:
        lines.append(("thresholds", f"{sum(v['broken'] for v in verdicts)} of {len(verdicts)} exceeded"))
    if summary["problems"]:
        lines.append(("problems", f"{len(summary['problems'])}, listed below"))
    count = len(summary["bags"])
    recordings = f"{count} recording{'s' * (count != 1)}, {metrics['frames']} frames"
    print_result(f"{summary['model']} on {recordings}", lines, paths)
