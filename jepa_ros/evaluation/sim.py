"""`jepa_ros evaluate sim`: goals in simulation, in process, compared with random actions and a privileged oracle."""

from __future__ import annotations

import math
import multiprocessing
import queue
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import ConvexHull

from jepa_ros.evaluation.closed_loop import (
    ModelActor,
    OracleActor,
    RandomActor,
    Timing,
    Trial,
    expect_one_camera,
    run_trial,
)
from jepa_ros.planning.guardrails import Guardrails
from jepa_ros.planning.receding_horizon import PlanningSettings, RecedingHorizonController
from jepa_ros.reporting import plots
from jepa_ros.reporting.output import after_summary, prepare_out
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.report import Report
from jepa_ros.reporting.result import print_result
from jepa_ros.reporting.summary import percentiles, wilson_interval, write_summary
from jepa_ros.robot.config import load_robot, require_velocity_space
from jepa_ros.sim.cell import ArmCell
from jepa_ros.sim.scene import Scene
from jepa_ros.sim.task import goal_set_hash
from jepa_ros.sim.tasks import make_task
from jepa_ros.world_model.checkpoint import check_robot, load_checkpoint

ACTORS = {"model": "model", "random": "random actions", "oracle": "oracle"}


def run_sim_evaluation(
    *,
    model: str,
    task: str,
    goals: int,
    seed: int,
    out: Path,
    robot: str | None = None,
    solver: str = "icem",
    policy: str = "policy_first",
    metric: str = "l2",
    timeout: float = 15.0,
    baselines: bool = True,
    workers: int = 2,
) -> int:
    """Try goals in simulation; write summary.json and report.html into `out` and print the result. Return 0.

    solver, policy, metric: of the planner, see planning.receding_horizon.PlanningSettings. timeout: s for a goal,
    including the one in which it is held. baselines: also try random actions and the oracle. workers: processes.
    robot: default: the first that the model was trained for. Raises InputError where an option cannot be used.
    """
    checkpoint = load_checkpoint(model)
    robot = robot or next(iter(checkpoint.config.robots), "openarm")
    arm = load_robot(robot)
    check_robot(checkpoint.config, arm)
    require_velocity_space(arm)
    simulated_task = make_task(task, arm)
    expect_one_camera(checkpoint.config)
    out = prepare_out(out)
    planning = {"solver": solver, "policy": policy, "metric": metric}
    started = time.time()
    actors = [*ACTORS] if baselines else ["model"]
    trials: dict[str, dict[int, Trial]] = {actor: {} for actor in actors}
    workers = min(workers, goals)
    plan_ms: list[float] = []
    context = multiprocessing.get_context("spawn")
    results = context.Manager().Queue()
    options = (str(checkpoint.directory), robot, task, goals, seed, planning, timeout, actors, workers, results)
    ignore_ctrl_c = signal.SIGINT, signal.SIG_IGN  # the parent process ends the workers
    with ProgressDisplay() as display, context.Pool(workers, signal.signal, ignore_ctrl_c) as pool:
        task_id = display.add("goals", goals)
        shares = pool.starmap_async(_try_share, [(share, *options) for share in range(workers)])
        while not (shares.ready() and results.empty()):
            try:
                index, found, times = results.get(timeout=0.2)
            except queue.Empty:
                continue
            plan_ms += times
            for actor, trial in found.items():
                trials[actor][index] = trial
            reached = sum(t.reached for t in trials["model"].values())
            display.update(task_id, len(trials["model"]), f"{reached} reached")
        info = shares.get()  # raises what a worker raised
    trials = {actor: dict(sorted(found.items())) for actor, found in trials.items()}
    summary = _summary(trials, info[0], checkpoint, seed, simulated_task.tolerance_m, Timing(timeout=timeout))
    summary |= {"planning": planning, "plan_ms": percentiles(plan_ms, (50, 99)), "wall_s": time.time() - started}
    written: list[Path] = []
    try:
        written.append(write_summary(out / "summary.json", summary))
        with after_summary(written[0]):
            report = _make_report(task, simulated_task.hold_s, summary, trials["model"].values())
            written.append(report.write(out / "report.html"))
    finally:  # results are printed even where they cannot be written
        _print_summary(summary, written)
    return 0


def _try_share(
    share: int,
    directory: str,
    robot_name: str,
    task_name: str,
    count: int,
    seed: int,
    planning: dict[str, str],
    timeout: float,
    actors: Sequence[str],
    workers: int,
    results: Any,
) -> dict[str, Any]:
    """Try every `workers`-th of `count` goals with each actor, from goal `share` on; put each goal's outcome into the
    queue `results`."""
    torch.set_num_threads(1)
    robot = load_robot(robot_name)
    task = make_task(task_name, robot)
    cell = ArmCell(Scene(add_objects=task.add_objects), robot)
    checkpoint = load_checkpoint(directory)
    timing = Timing(timeout=timeout)
    # Search rounds are counted, not timed: equal goals give equal results on any machine.
    settings = PlanningSettings(budget=math.inf, seed=seed, **planning)
    rails = Guardrails.from_robot(robot, cell.scene.urdf, cell.space, cell.limits)
    controller = RecedingHorizonController(checkpoint, cell.space, settings, rails)
    goals = task.sample_goals(cell, count, seed)
    actor = ModelActor(cell, checkpoint, controller, timing)
    others = {"random": RandomActor(cell, seed), "oracle": OracleActor(cell, task)}
    for index in range(share, count, workers):
        goal, found = goals[index], {}
        actor.start(goal)
        found["model"] = run_trial(cell, task, goal, actor, timing, executed=actor.add_executed)
        found["model"].plans = len(actor.plans)
        for name, other in others.items():
            if name in actors:
                other.start(goal)
                found[name] = run_trial(cell, task, goal, other, timing)
        results.put((index, found, [step.step_ms for step in actor.plans]))
    return {"goal_set_hash": goal_set_hash(goals), "places": [(g.start.tolist(), g.target.tolist()) for g in goals]}


def _summary(
    trials: dict[str, dict[int, Trial]],
    info: dict[str, Any],
    checkpoint: Any,
    seed: int,
    tolerance_m: float,
    timing: Timing,
) -> dict[str, Any]:
    n = len(trials["model"])
    starts, targets = (np.array(found) for found in zip(*info["places"], strict=True))
    results = {}
    for actor, found in trials.items():
        reached = sum(t.reached for t in found.values())
        finals = [t.final_distance for t in found.values()]
        results[actor] = {
            "reached": reached,
            "rate": reached / n,
            "interval_95": wilson_interval(reached, n),
            "final_distance_m": percentiles(finals, (50, 90), {"max": np.max}),
            "seconds_p50": float(np.median([t.seconds for t in found.values() if t.reached])) if reached else None,
        }
    distances = [t.start_distance for t in trials["model"].values()]
    is_planar = targets.shape[1] == 2
    return {
        "goals": n,
        "goal_set_hash": info["goal_set_hash"],
        "seed": seed,
        "model": checkpoint.config.name,
        "model_id": checkpoint.model_id,
        "tolerance_m": tolerance_m,
        "start_distance_m": {"min": min(distances), "median": float(np.median(distances))},
        "goal_hull_cm2": float(ConvexHull(targets[:, :2]).volume * 1e4) if n > 2 else None,
        **results.pop("model"),
        **results,
        "timing": asdict(timing),
        "per_goal": [
            {"goal": i, "start_xy": starts[i, :2].tolist(), "goal_xy": targets[i, :2].tolist()}
            | ({} if is_planar else {"start": starts[i].tolist(), "target": targets[i].tolist()})
            | {k: v for k, v in asdict(trial).items() if k != "distances"}
            for i, trial in trials["model"].items()
        ],
    }


def _print_summary(summary: dict[str, Any], written: Sequence[Path]) -> None:
    """Print success of the model and the baselines, and the model's planning time."""
    rows = []
    for actor, name in ACTORS.items():
        if (found := summary if actor == "model" else summary.get(actor)) is not None:
            low, high = (100 * share for share in found["interval_95"])
            final = f"{1e3 * found['final_distance_m']['p50']:.1f} mm"
            rows.append([name, f"{found['reached']} of {summary['goals']}", f"{low:.1f} to {high:.1f} %", final])
    columns = ("", "reached", "95 % confidence interval", "final distance, median")
    median = summary["plan_ms"]["p50"]
    lines = [] if median is None else [("plan time, median", f"{median:.0f} ms")]
    print_result(f"{summary['model']} in simulation, {summary['goals']} goals", lines, written, (columns, rows))


def _make_report(task: str, hold_s: float, summary: dict[str, Any], trials: Iterable[Trial]) -> Report:
    low, high = summary["interval_95"]
    subtitle = f"{summary['model']}, {summary['goals']} goals, seed {summary['seed']}"
    report = Report(f"{task.capitalize()} in simulation", subtitle)
    tiles = {
        "reached": f"{summary['reached']} of {summary['goals']}",
        "95 % confidence interval": f"{100 * low:.1f} to {100 * high:.1f} %",
    }
    for actor, name in list(ACTORS.items())[1:]:
        if actor in summary:
            tiles[f"reached by {name}"] = f"{summary[actor]['reached']} of {summary['goals']}"
    report.tiles(tiles)
    within = f"{summary['timing']['timeout']:g} s"
    centimetres = f"{100 * summary['tolerance_m']:g} cm"
    report.text(f"Reached: within {centimetres} of the goal for {hold_s:g} s, within {within}, measured in MuJoCo.")
    fig, (left, right) = plots.figure(2)
    for trial in trials:
        left.plot(0.1 * np.arange(len(trial.distances)), 100 * np.array(trial.distances), lw=0.5, alpha=0.4)
    left.axhline(100 * summary["tolerance_m"], lw=1, ls="--")
    left.set(title="Distance to the goal (model)", xlabel="s", ylabel="cm")
    places = np.array([(*g["start_xy"], *g["goal_xy"]) for g in summary["per_goal"]])
    good = np.array([g["reached"] for g in summary["per_goal"]])
    right.plot(places[good, 2], places[good, 3], ".", ms=4, label="reached")
    right.plot(places[~good, 2], places[~good, 3], "x", ms=6, label="missed")
    right.set(title="Goals", xlabel="x (m)", ylabel="y (m)", aspect="equal")
    right.legend()
    report.plot(fig)
    missed = [g for g in summary["per_goal"] if not g["reached"]]
    if missed:
        columns = ["goal", "start_xy", "goal_xy", "start_distance", "final_distance", "plans"]
        rows = [[str(np.round(g[c], 3).tolist()) if c.endswith("xy") else g[c] for c in columns] for g in missed]
        report.section("Missed").table(rows, columns)
    return report
