"""`jepa_ros evaluate bag`: reads bags in process, judges a model on them, writes what was found."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from jepa_ros.allocator import keep_freed_memory
from jepa_ros.bags.reader import Bag, open_bag
from jepa_ros.bags.typestore import typestore
from jepa_ros.errors import InputError
from jepa_ros.evaluation.bag.evaluate import columns, judge
from jepa_ros.evaluation.bag.metrics import timing
from jepa_ros.evaluation.bag.metrics.bag_results import Judged, Task
from jepa_ros.evaluation.bag.output import report, thresholds
from jepa_ros.evaluation.bag.output import summary_metrics as figures
from jepa_ros.evaluation.bag.output.table import FrameTable
from jepa_ros.evaluation.bag.reading import topics as inputs
from jepa_ros.evaluation.bag.reading.pictures import picture, shown
from jepa_ros.evaluation.bag.reading.reader import Intake
from jepa_ros.evaluation.bag.reading.result_bag import ResultBag
from jepa_ros.images import ImageError
from jepa_ros.planning.receding_horizon import PlanningSettings
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.summary import write_summary
from jepa_ros.world_model.checkpoint import check_robot, choose_robot, load_checkpoint, model_on
from jepa_ros.world_model.device import choose_device

SHOWN_EVENTS, SHOWN_PLANS = 12, 6


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
    """Judge a model on bags; writes summary.json, report.html, frames and the result bag into `out`.

    Returns 0; 1 where a threshold is broken; 2 where a bag is not whole: what can be read of it was judged all the
    same. Raises InputError where nothing can be.
    """
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()  # pictures by the thousand, each of a megabyte
    began = time.time()
    checkpoint = model_on(load_checkpoint(model), choose_device(device))
    arm = choose_robot(checkpoint.config, robot)
    check_robot(checkpoint.config, arm)
    wanted = thresholds.gather(fail_if, thresholds_file, figures.names(horizon))
    planning = PlanningSettings(
        budget=math.inf, horizon=horizon, seed=seed, solver=solver, policy=policy, metric=metric
    )
    task = Task(checkpoint, arm, planning, horizon, plan_states, seed)
    options = inputs.Options(tuple(camera), joint_states, executed)
    urdf = _text(description)
    _prepare(out)
    with ExitStack() as stack:
        table = stack.enter_context(FrameTable(out))
        work = _Work(task, options, urdf, workers, out if result else None, table, len(bags))
        bar = stack.enter_context(ProgressDisplay())
        for number, path in enumerate(bags):
            work.bag(bar, number, Path(path))
        if not work.judged:
            raise InputError(work.problems[0])
        table.finish()
        summary = _summary(task, work, table.path, began)
        verdicts = _verdicts(wanted, summary["metrics"] | figures.timed(summary["timing"]))
        summary["thresholds"] = [v for v in verdicts if not v["timing"]]
        summary["timing"]["device"] = device
        summary["timing"]["thresholds"] = [v for v in verdicts if v["timing"]]
        report.write(out / "report.html", summary, work.judged, work.pictures)
        wall_s = summary["wall_s"] = time.time() - began
        summary["timing"]["times_real_time"] = summary["timing"]["seconds_of_recording"] / max(wall_s, 1e-9)
        write_summary(out / "summary.json", summary)
    return _end(work.problems, [v["line"] for v in verdicts if v["broken"]])


def _prepare(out: Path) -> None:
    """Make the directory, without what a run that was killed left half-written in it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out {out}: expected a directory that can be written to, found {error}") from None
    for pattern in (".frames.*", ".result*.mcap.*"):
        for left in out.glob(pattern):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def _summary(task: Task, work: _Work, table: Path, began: float) -> dict[str, Any]:
    """summary.json, but for thresholds and wall_s."""
    together = figures.figures(work.judged, task)
    recorded, plan_ms = [j.recorded for j in work.judged], [ms for j in work.judged for ms in j.plan_ms]
    taken = timing.measure(recorded, plan_ms, work.live, time.time() - began)
    planning = {name: getattr(task.planning, name) for name in ("solver", "policy", "metric")}
    return {
        "model": task.checkpoint.config.name,
        "model_id": task.checkpoint.model_id,
        "robot": task.robot.name,
        "seed": task.seed,
        "horizon": task.horizon,
        "model_step_s": task.checkpoint.config.step,
        "planning": planning | {"states_a_bag": task.plan_states},
        "score": together["score"],
        "metrics": figures.flat(together, work.judged),
        "together": together,
        "bags": work.entries,
        "problems": work.problems,
        "files": {"frames": table, "results": work.results},
        "timing": taken | {"workers": work.workers, "read_and_encode_s": work.read_s, "judge_s": work.judge_s},
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
    }


class _Work:
    """Goes through the bags one by one and keeps what is needed of each."""

    def __init__(
        self,
        task: Task,
        options: inputs.Options,
        urdf: str | None,
        workers: int,
        out: Path | None,
        table: FrameTable,
        count: int,
    ):
        self._task, self._options, self._urdf, self.workers = task, options, urdf, workers
        self._out, self._table, self._count = out, table, count
        self.judged: list[Judged] = []
        self.entries: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.results: list[Path] = []
        self.pictures: report.Pictures = {}
        self.live = timing.Live()
        self.read_s = self.judge_s = 0.0

    def bag(self, bar: ProgressDisplay, number: int, path: Path) -> None:
        """Judge one bag."""
        try:
            source = open_bag(path)
        except InputError as error:
            self.problems.append(str(error))
            return
        with ExitStack() as stack:
            stack.enter_context(source)
            found = inputs.find(source, self._task.checkpoint.config, self._task.robot, self._options)
            result = self._result(stack, number, path, found)
            shown = bar.add(path.stem or path.name, _frames(source, found))
            checkpoint, robot = self._task.checkpoint, self._task.robot
            intake = Intake(source, found, checkpoint, robot, result, self._urdf, self.workers)
            begin = time.perf_counter()
            recorded = intake.run(lambda frames: bar.update(shown, frames))
            self.read_s += time.perf_counter() - begin
            bar.update(shown, len(recorded.frame_stamps), total=len(recorded.frame_stamps))
            plans = bar.add("plans", None)
            name = path.stem or path.name
            begin = time.perf_counter()
            made = judge(self._task, name, source, found, recorded, result, lambda done: bar.update(plans, done))
            self.judge_s += time.perf_counter() - begin
            bar.update(plans, len(made.plans), total=len(made.plans))
            self._table.add(columns(made))
            self._keep(source, found, made)
            self.live.add(source, found.views, self._task.checkpoint)
            if result is not None:
                result.finish()
            recorded.latents.close()
        problems = [*source.problems, *found.problems, *made.problems, *_time_problems(path, made)]
        self.problems += problems
        self.entries.append(_entry(path, made, self._task, problems))

    def _result(self, stack: ExitStack, number: int, path: Path, found: inputs.Inputs) -> ResultBag | None:
        if self._out is None:
            return None
        target = self._out / ("result.mcap" if self._count == 1 else f"result_{number}_{path.stem}.mcap")
        self.results.append(target)
        return stack.enter_context(ResultBag(target, found.wanted, self._task.checkpoint.model_id))

    def _keep(self, source: Bag, found: inputs.Inputs, made: Judged) -> None:
        """The bag's figures, and the pictures that the report shows of it."""
        self.judged.append(made)
        planned = sorted((a for a in made.plans if a.plan is not None), key=lambda a: -a.gap)[:SHOWN_PLANS]
        events = sorted(made.events, key=lambda e: -e.error)[:SHOWN_EVENTS]
        frames = {e.frame for e in events} | {f for a in planned for f in (a.frame, a.goal_frame)}
        for frame in sorted(frames):
            times = made.recorded.frame_recorded[frame]
            rgb = _fetch(source, found.views[0], times, made.recorded.frame_stamps[frame])
            if rgb is not None:
                self.pictures[len(self.judged) - 1, frame] = rgb


def _fetch(source: Bag, name: inputs.Name, recorded: int, stamp: int) -> np.ndarray | None:
    """A picture again, at a size for people."""
    for message in source.messages([name], recorded, recorded + 1):
        read = typestore().deserialize_cdr(message.data, message.msgtype)
        found = read.header.stamp.sec * 10**9 + read.header.stamp.nanosec
        if found in (stamp, 0):
            try:
                return shown(picture(read))
            except ImageError:
                return None
    return None


def _frames(source: Bag, found: inputs.Inputs) -> int | None:
    """How many pictures the first camera's topic has."""
    return next((t.count for t in source.topics if found.views and t[:2] == found.views[0]), None)


def _time_problems(path: Path, made: Judged) -> list[str]:
    """What is wrong with the bag that shows only once it has been read."""
    recorded, lines = made.recorded, []
    if jumps := recorded.clock.jumps:
        back = (jumps[0][0] - jumps[0][1]) * 1e-9
        lines.append(
            f"bag {path}: expected stamps that go on, found {len(jumps)} jumps back, the first by {back:.2f} s: each "
            "begins anew"
        )
    if recorded.unreadable:
        what = ", ".join(f"{topic} {count}" for topic, count in sorted(recorded.unreadable.items()))
        lines.append(f"bag {path}: expected messages of their types, found some that are none: {what}")
    for text, count in recorded.refused.most_common(3):
        lines.append(f"bag {path}: {text} ({count} messages)")
    for camera in made.quality["cameras"]:
        broken = sum(n for cause, n in camera["dropped"].items() if cause in ImageError.CAUSES)
        if broken:
            what = f"{broken} of {camera['messages']} that are not: {camera['first_problem']}"
            lines.append(f"bag {path}: {camera['topic']}: expected whole pictures, found {what}")
    return lines


def _entry(path: Path, made: Judged, task: Task, problems: list[str]) -> dict[str, Any]:
    events = [asdict(e) | {"stamp_ns": made.recorded.frame_stamps[e.frame]} for e in made.events]
    found = figures.figures([made], task)
    found["surprise"] |= {"at": events}
    found["planner"] |= {"at": [_plan(a) for a in made.plans]}
    return {"name": made.name, "path": path, "quality": made.quality} | found | {"problems": problems}


def _plan(made: Any) -> dict[str, Any]:
    values = {k: v for k, v in vars(made).items() if k != "plan"}
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _verdicts(wanted: list[thresholds.Threshold], metrics: dict[str, float | None]) -> list[dict[str, Any]]:
    found = []
    for threshold in wanted:
        line = threshold.broken(metrics)
        of_timing = threshold.metric in figures.TIMING
        found.append({"threshold": str(threshold), "broken": bool(line), "line": line, "timing": of_timing})
    return found


def _text(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"description {path}: expected a URDF file, found {error}") from None


def _end(problems: list[str], broken: list[str]) -> int:
    for line in (*problems, *broken):
        print(f"jepa_ros: {line}", file=sys.stderr)
    return 2 if problems else 1 if broken else 0
