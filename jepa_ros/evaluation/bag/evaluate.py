"""One bag, judged: from what was read to figures, a table, events and plans."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import numpy as np
import torch

from jepa_ros.bags.reader import Bag
from jepa_ros.errors import InputError
from jepa_ros.evaluation.bag.metrics import data_quality as quality
from jepa_ros.evaluation.bag.metrics import latent_health as health
from jepa_ros.evaluation.bag.metrics import prediction, surprise
from jepa_ros.evaluation.bag.metrics import probes as probing
from jepa_ros.evaluation.bag.metrics.bag_results import Judged, Task
from jepa_ros.evaluation.bag.metrics.planner_agreement import Agreement, Planning, spread
from jepa_ros.evaluation.bag.reading.records import Recorded
from jepa_ros.evaluation.bag.reading.result_bag import ResultBag
from jepa_ros.evaluation.bag.reading.situations import Stretch, Windows, states_at, stretches, windows, zero_of
from jepa_ros.evaluation.bag.reading.topics import Inputs
from jepa_ros.planning.guardrails import Guardrails
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.motion.action_space import PlanarVelocity
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.transforms import rotation_matrix
from jepa_ros.world_model.checkpoint import check_planar

NEEDED_NEXT = ("matplotlib.backends.backend_svg", "matplotlib.figure", "PIL.Image")
"""What the report draws with."""
TIMED = 8
"""Plans of a bag that are timed."""


def judge(
    task: Task,
    name: str,
    source: Bag,
    inputs: Inputs,
    recorded: Recorded,
    result: ResultBag | None,
    progress: Callable[[int], None] = lambda plans: None,
) -> Judged:
    """All of a bag that can be judged; what cannot be is a line of `problems`."""
    checkpoint, config = task.checkpoint, task.checkpoint.config
    parts = stretches(recorded, config)
    found = windows(parts, config, task.horizon)
    problems: list[str] = []
    # Plans beside everything else: neither knows of the other. A thread of torch has its own number of threads.
    with ThreadPoolExecutor(1, "plans", torch.set_num_threads, (1,)) as beside:
        stop = Event()
        planned = beside.submit(_plans, task, recorded, parts, found, problems, progress, stop)
        try:
            errors = prediction.predict(checkpoint, recorded, found, task.seed)
            states = _by_frame(recorded, parts, config)
            tool = _tool(task.robot, _kinematics(task.robot, recorded), states, config)
            truths = probing.truths(states[:, : len(config.proprioception.joints)], tool)
            readings = surprise.read(checkpoint, recorded, parts)
            for module in NEEDED_NEXT:  # plans take longer than all of this
                importlib.import_module(module)
            plans, again = planned.result()
        finally:
            stop.set()
    alone = [again(number) for number in range(0, len(plans), max(1, len(plans) // TIMED))]
    times = (np.array(recorded.frame_stamps, np.int64) - zero_of(recorded)) * 1e-9
    judged = Judged(
        name=name,
        recorded=recorded,
        quality=quality.measure(source, inputs, recorded, config),
        times=times,
        errors=errors,
        frames_of_errors=found.frames,
        sample=health.sample(recorded),
        states=(states - np.array(config.proprioception.mean)) / np.array(config.proprioception.std),
        probes=probing.read(checkpoint, recorded, truths),
        truths=truths,
        readings=readings,
        events=surprise.events(readings, times),
        plans=plans,
        plan_ms=[made.plan.step_ms for made in alone if made.plan is not None],
        problems=problems,
    )
    if result is not None:
        _write(result, judged, recorded, task)
    return judged


def _by_frame(recorded: Recorded, parts: list[Stretch], config: Any) -> np.ndarray:
    """(n, P) raw states at all frames, NaN where unknown."""
    states = np.full((len(recorded.frame_stamps), config.proprioception.dimension), np.nan)
    for part in parts:
        states[part.rows] = states_at(part, part.times, config)
    return states


def _kinematics(robot: RobotConfig, recorded: Recorded, problems: list[str] | None = None) -> Kinematics | None:
    """None, and why in `problems`, where there is no description, or another robot's. Each thread needs its own."""
    problems = [] if problems is None else problems
    if recorded.urdf is None:
        if recorded.frame_stamps:
            problems.append(
                f"bag {recorded.path}: expected robot_description, found none: the tool's place is not known, and "
                "nothing is planned (--description FILE gives one)"
            )
        return None
    try:
        return Kinematics(recorded.urdf, robot.joints, robot.tool_frame, robot.base_frame)
    except InputError as error:
        problems.append(f"bag {recorded.path}: {error}")
        return None


def _tool(robot: RobotConfig, kinematics: Kinematics | None, states: np.ndarray, config: Any) -> np.ndarray | None:
    """(n, 3) m of the tool at all frames in the base frame, NaN where joints are unknown; None where it is unknown."""
    if config.proprioception.kind == "tool_pose":
        rotation = robot.camera.rotation_to_base
        return states[:, :3] if rotation is None else states[:, :3] @ rotation_matrix(rotation).T
    if kinematics is None or not config.proprioception.joints:
        return None
    tool = np.full((len(states), 3), np.nan)
    for row in np.flatnonzero(np.isfinite(states).all(axis=1)):
        tool[row] = kinematics.forward(states[row, : len(config.proprioception.joints)])[0]
    return tool


def _plans(
    task: Task,
    recorded: Recorded,
    parts: list[Stretch],
    found: Windows,
    problems: list[str],
    progress: Callable[[int], None],
    stop: Event,
) -> tuple[list[Agreement], Callable[[int], Agreement]]:
    """The plans, and what makes the plan of that number again."""
    rows = spread(found, task.plan_states)
    kinematics = _kinematics(task.robot, recorded, problems)
    made: list[Agreement] = []
    if kinematics is None or not len(rows):
        return made, lambda number: made[number]
    config, robot = task.checkpoint.config, task.robot
    try:
        check_planar(config)
        space = PlanarVelocity(robot, kinematics, config.tick)
        limits = JointLimits.from_robot(robot, recorded.urdf)
        rails = Guardrails.from_robot(robot, recorded.urdf, space, limits)
    except InputError as error:
        problems.append(f"bag {recorded.path}: nothing is planned: {error}")
        return made, lambda number: made[number]
    planning = Planning(task.checkpoint, space, limits, rails, task.planning)
    home = {int(row): part for part in parts for row in part.rows}

    def plan(number: int) -> Agreement:
        row = int(rows[number])
        return planning.at(recorded, home[int(found.frames[row])], found, row)

    for number in range(len(rows)):
        if stop.is_set():
            break
        made.append(plan(number))
        progress(len(made))
    return made, plan


def _write(result: ResultBag, judged: Judged, recorded: Recorded, task: Task) -> None:
    """Surprise and plans into the result bag, at the times at which their frames were recorded."""
    stamps, times = recorded.frame_stamps, recorded.frame_recorded
    frame_id, zero = recorded.views[0].frame_id if recorded.views else "", zero_of(recorded)
    for frame, reading in judged.readings.items():
        result.surprise(stamps[frame], times[frame], frame_id, reading)
    for made in judged.plans:
        if made.plan is not None:
            result.plan(made.plan, zero, times[made.frame], stamps[made.goal_frame], task.robot.base_frame)


def columns(judged: Judged) -> dict[str, Any]:
    """The bag's part of the table, a value a frame."""
    recorded, count = judged.recorded, len(judged.times)
    readings = np.full((2, count), np.nan)
    for frame, reading in judged.readings.items():
        readings[:, frame] = reading.error, reading.quantile
    by_frame = {
        "bag": [judged.name] * count,
        "stamp_ns": np.array(recorded.frame_stamps, np.int64),
        "recorded_ns": np.array(recorded.frame_recorded, np.int64),
        "epoch": np.array(recorded.frame_epochs, np.int64),
        "frozen": np.array(recorded.frozen, bool),
        "training_distance": np.array(recorded.from_training, float),
        "surprise_error": readings[0],
        "surprise_quantile": readings[1],
    }
    for name, unit in ((probing.TOOL, "m"), (probing.JOINTS, "rad")):
        by_frame[f"probe_{name}_{unit}"] = judged.probes.get(name, np.full(count, np.nan)).astype(float)
    for name, title in (("model", "error"), ("still", "persistence"), ("shuffled", "shuffled")):
        values = np.full((count, judged.errors.model.shape[1]), np.nan)
        values[judged.frames_of_errors] = getattr(judged.errors, name)
        by_frame |= {f"{title}@{k + 1}": values[:, k] for k in range(values.shape[1])}
    return by_frame
