"""Evaluation of bags: read a recording once, compute every metric, keep what summary and report need.

`evaluate_bag` is the function to call from Python; `run.py` is the command. Nothing here prints.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from jepa_ros.bags.reader import Bag, open_bag
from jepa_ros.bags.typestore import typestore
from jepa_ros.errors import InputError
from jepa_ros.evaluation.bag.metrics.table import BagResult, compute_metrics
from jepa_ros.evaluation.bag.output.frame_table import FrameTable, frame_columns
from jepa_ros.evaluation.bag.output.report import FrameImages
from jepa_ros.evaluation.bag.output.summary import summarize
from jepa_ros.evaluation.bag.reading.bag_reader import BagReader
from jepa_ros.evaluation.bag.reading.images import decode_message, to_display_size
from jepa_ros.evaluation.bag.reading.recording import EvaluationSpec
from jepa_ros.evaluation.bag.reading.result_bag import ResultBag
from jepa_ros.evaluation.bag.reading.topics import BagTopics, TopicKey, TopicOptions, find_topics
from jepa_ros.images import ImageError
from jepa_ros.planning.receding_horizon import PlanningSettings
from jepa_ros.reporting.progress import ProgressDisplay
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
    spec = make_spec(model, device, robot, horizon, plan_states, seed, solver, policy, metric)
    evaluation = BagEvaluation(spec, topics or TopicOptions(), urdf, workers)
    evaluation.add_bag(Path(bag), ProgressDisplay(quiet=True))
    return evaluation.summary()


def make_spec(
    model: str | Path | Checkpoint,
    device: str,
    robot: str | None,
    horizon: int,
    plan_states: int,
    seed: int,
    solver: str,
    policy: str,
    metric: str,
) -> EvaluationSpec:
    """Load the model and check that it fits the robot. Search rounds are counted, not timed, so that results do not
    depend on the machine. Raises InputError."""
    loaded = model if isinstance(model, Checkpoint) else load_checkpoint(model)
    checkpoint = model_on(loaded, choose_device(device))
    arm = choose_robot(checkpoint.config, robot)
    check_robot(checkpoint.config, arm)
    planning = PlanningSettings(
        budget=math.inf, horizon=horizon, seed=seed, solver=solver, policy=policy, metric=metric
    )
    return EvaluationSpec(checkpoint, arm, planning, horizon, plan_states, seed)


class BagEvaluation:
    """Evaluates bags one after the other. table: gets a row for each frame. out: directory of the result bags, None for
    none. keep_images: for the report. urdf: robot_description for all bags; default: each bag's own."""

    def __init__(
        self,
        spec: EvaluationSpec,
        topics: TopicOptions,
        urdf: str | None = None,
        workers: int = 2,
        table: FrameTable | None = None,
        out: Path | None = None,
        keep_images: bool = False,
        bag_count: int = 1,
    ):
        self.spec, self._topics, self._urdf, self._workers = spec, topics, urdf, workers
        self._table, self._out, self._keep_images, self._bag_count = table, out, keep_images, bag_count
        self._started, self._read_s, self._evaluate_s, self._number = time.time(), 0.0, 0.0, 0
        self.results: list[BagResult] = []
        self.result_bags: list[Path] = []
        self.images: FrameImages = {}
        self.problems: list[str] = []

    def add_bag(self, path: Path, display: ProgressDisplay) -> None:
        """Evaluate one bag; one that cannot be opened is a line of `problems`."""
        number, self._number = self._number, self._number + 1
        try:
            source = open_bag(path)
        except InputError as error:
            self.problems.append(str(error))
            return
        with ExitStack() as stack:
            stack.enter_context(source)
            topics = find_topics(source, self.spec.config, self.spec.robot, self._topics)
            result_bag = self._open_result_bag(stack, number, path, topics)
            name, begin = path.stem or path.name, time.perf_counter()
            task = display.add(name, next((t.count for t in source.topics if topics.cameras[:1] == [t[:2]]), None))
            reader = BagReader(source, topics, self.spec, result_bag, self._urdf, self._workers)
            recording = reader.read(lambda frames: display.update(task, frames))
            frames, middle = len(recording.frame_stamps), time.perf_counter()
            display.update(task, frames, total=frames)
            task = display.add("plans", None)
            result = compute_metrics(name, recording, self.spec, lambda plans: display.update(task, plans))
            plans = len(result.samples["planner"]["agreements"])
            display.update(task, plans, total=plans)
            self._read_s += middle - begin
            self._evaluate_s += time.perf_counter() - middle
            if self._table is not None:
                self._table.add(frame_columns(result))
            if result_bag is not None:
                _write_results(result_bag, result)
                result_bag.finish()
            if self._keep_images:
                self._read_images(source, topics, result)
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
            "workers": self._workers,
            "read_and_encode_s": self._read_s,
            "judge_s": self._evaluate_s,
        }
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._started))
        return summary | {"wall_s": wall_s, "started": started}

    def _open_result_bag(self, stack: ExitStack, number: int, path: Path, topics: BagTopics) -> ResultBag | None:
        if self._out is None:
            return None
        target = self._out / ("result.mcap" if self._bag_count == 1 else f"result_{number}_{path.stem}.mcap")
        self.result_bags.append(target)
        return stack.enter_context(ResultBag(target, topics.keys, self.spec.checkpoint.model_id))

    def _read_images(self, source: Bag, topics: BagTopics, result: BagResult) -> None:
        """Keep the images that the report shows."""
        planned = [a for a in result.samples["planner"]["agreements"] if a.plan is not None]
        planned = sorted(planned, key=lambda a: -a.gap)[:SHOWN_PLANS]
        events = sorted(result.samples["surprise"]["events"], key=lambda e: -e.error)[:SHOWN_EVENTS]
        frames = {e.frame for e in events} | {f for a in planned for f in (a.frame, a.goal_frame)}
        recording = result.recording
        for frame in sorted(frames):
            recorded, stamp = recording.frame_recorded[frame], recording.frame_stamps[frame]
            if (rgb := _read_image(source, topics.cameras[0], recorded, stamp)) is not None:
                self.images[len(self.results), frame] = rgb


def _read_image(source: Bag, key: TopicKey, recorded: int, stamp: int) -> np.ndarray | None:
    """Return the image with this recording time and stamp in display size; None where there is none."""
    for message in source.messages([key], recorded, recorded + 1):
        read = typestore().deserialize_cdr(message.data, message.msgtype)
        found = read.header.stamp.sec * 10**9 + read.header.stamp.nanosec
        if found in (stamp, 0):
            try:
                return to_display_size(decode_message(read))
            except ImageError:
                return None
    return None


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
