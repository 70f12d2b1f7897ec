"""`jepa_ros evaluate sim`: hundreds of goals in process, beside random actions and a privileged oracle."""

from __future__ import annotations

import math
import multiprocessing
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.evaluation.closed_loop import Timing, Trial, expect_one_camera
from jepa_ros.reporting import plots
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.report import Report
from jepa_ros.reporting.summary import percentiles, wilson_interval, write_summary
from jepa_ros.robot.config import load_robot, require_planar_space
from jepa_ros.world_model.checkpoint import check_robot, load_checkpoint

KINDS = ("model", "random", "oracle")
TASKS = ("reach",)


def run_sim_evaluation(
    *,
    model: str,
    task: str,
    goals: int,
    seed: int,
    out: Path,
    robot: str = "openarm",
    solver: str = "icem",
    policy: str = "policy_first",
    metric: str = "l2",
    timeout: float = 15.0,
    baselines: bool = True,
    workers: int = 2,
) -> int:
    """Evaluate, showing progress; writes summary.json and report.html into `out`.

    solver, policy, metric: of the planner, see planning.reach.PlanningSettings. timeout: s that a goal may take,
    the one in which it is held included. baselines: try the goals at random and by the oracle as well. Raises
    InputError.
    """
    if task not in TASKS:
        raise InputError(f"task '{task}': expected one of {', '.join(TASKS)}")
    checkpoint = load_checkpoint(model)
    arm = load_robot(robot)
    check_robot(checkpoint.config, arm)
    require_planar_space(arm)
    expect_one_camera(checkpoint.config)
    planning = {"solver": solver, "policy": policy, "metric": metric}
    started = time.time()
    kinds = KINDS if baselines else KINDS[:1]
    trials: dict[str, dict[int, Trial]] = {kind: {} for kind in kinds}
    workers = min(workers, goals)
    jobs = [
        (str(checkpoint.directory), robot, goals, seed, planning, timeout, kinds, share, workers)
        for share in range(workers)
    ]
    plan_ms: list[float] = []
    queue = multiprocessing.get_context("spawn").Manager().Queue()
    with ProgressDisplay() as bar:
        task_id = bar.add("goals", goals)
        with multiprocessing.get_context("spawn").Pool(workers, _quiet) as pool:
            result = pool.map_async(_try_share, [(*job, queue) for job in jobs])
            while not (result.ready() and queue.empty()):
                for index, found, times in _drain(queue):
                    plan_ms += times
                    for kind, trial in found.items():
                        trials[kind][index] = trial
                    reached = sum(t.reached for t in trials["model"].values())
                    bar.update(task_id, len(trials["model"]), f"{reached} reached")
            info = result.get()  # raises what a worker raised
    summary = _summary(trials, info[0], checkpoint, seed, Timing(timeout=timeout))
    summary |= {"planning": planning, "plan_ms": percentiles(plan_ms, (50, 99)), "wall_s": time.time() - started}
    write_summary(out / "summary.json", summary)
    _report(out / "report.html", summary, {k: [v[i] for i in sorted(v)] for k, v in trials.items()})
    return 0


def _quiet() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the workers


def _drain(queue) -> list:
    import queue as queues

    try:
        found = [queue.get(timeout=0.2)]
        while not queue.empty():
            found.append(queue.get())
    except queues.Empty:
        return []
    return found


def _try_share(job) -> dict:
    """Every `workers`-th goal by the model, at random and by the oracle; what was found goes to the queue."""
    import torch

    from jepa_ros.evaluation.actors import OracleActor, RandomActor
    from jepa_ros.evaluation.closed_loop import ModelActor, run_trial
    from jepa_ros.planning.guardrails import Guardrails
    from jepa_ros.planning.receding_horizon import PlanningSettings, RecedingHorizonController
    from jepa_ros.robot.motion.limits import JointLimits
    from jepa_ros.sim.cell import ArmCell
    from jepa_ros.sim.scene import Scene
    from jepa_ros.sim.tasks.reach import goal_set_hash, make_goals

    directory, robot_name, count, seed, planning, timeout, kinds, share, workers, queue = job
    torch.set_num_threads(1)
    robot, scene = load_robot(robot_name), Scene()
    cell = ArmCell(scene, robot)
    checkpoint = load_checkpoint(directory)
    timing = Timing(timeout=timeout)
    # Rounds of the search are counted here, not timed: the same goals give the same result on any machine.
    rails = Guardrails.from_robot(robot, scene.urdf, cell.space, JointLimits.from_robot(robot, scene.urdf))
    controller = RecedingHorizonController(
        checkpoint, cell.space, PlanningSettings(budget=math.inf, seed=seed, **planning), rails
    )
    goals = make_goals(scene, robot, cell.space, count, seed)
    actor = ModelActor(cell, checkpoint, controller, timing)
    others = {"random": RandomActor(cell, seed), "oracle": OracleActor(cell)}
    for index in range(share, count, workers):
        goal, found = goals[index], {}
        actor.start(goal)
        trial = run_trial(cell, goal, actor, timing, executed=actor.executed)
        trial.plans = len(actor.plans)
        found["model"] = trial
        for kind, other in others.items():
            if kind not in kinds:
                continue
            other.start(goal)
            found[kind] = run_trial(cell, goal, other, timing)
        queue.put((index, found, [step.step_ms for step in actor.plans]))
    return {"goal_set_hash": goal_set_hash(goals), "places": [(*g.start_xy, *g.goal_xy) for g in goals]}


def _summary(trials: dict[str, dict[int, Trial]], info: dict, checkpoint, seed: int, timing) -> dict:
    from scipy.spatial import ConvexHull

    n = len(trials["model"])
    places = np.array(info["places"])
    results = {}
    for kind, found in trials.items():
        reached = sum(t.reached for t in found.values())
        finals = [t.final_distance for t in found.values()]
        results[kind] = {
            "reached": reached,
            "rate": reached / n,
            "interval_95": wilson_interval(reached, n),
            "final_distance_m": percentiles(finals, (50, 90)) | {"max": max(finals)},
            "seconds_p50": float(np.median([t.seconds for t in found.values() if t.reached])) if reached else None,
        }
    starts = [t.start_distance for t in trials["model"].values()]
    goals = places[:, 2:]
    return {
        "goals": n,
        "goal_set_hash": info["goal_set_hash"],
        "seed": seed,
        "model": checkpoint.config.name,
        "model_id": checkpoint.model_id,
        "tolerance_m": 0.03,
        "start_distance_m": {"min": min(starts), "median": float(np.median(starts))},
        "goal_hull_cm2": float(ConvexHull(goals).volume * 1e4) if n > 2 else None,
        **results["model"],
        **{kind: found for kind, found in results.items() if kind != "model"},
        "timing": asdict(timing),
        "per_goal": [
            {"goal": i, "start_xy": places[i, :2].tolist(), "goal_xy": places[i, 2:].tolist()}
            | {k: v for k, v in asdict(trials["model"][i]).items() if k != "distances"}
            for i in sorted(trials["model"])
        ],
    }


def _report(path: Path, summary: dict, trials: dict[str, list[Trial]]) -> None:
    low, high = summary["interval_95"]
    report = Report("Reach in simulation", f"{summary['model']}, {summary['goals']} goals, seed {summary['seed']}")
    figures = {
        "reached": f"{summary['reached']} of {summary['goals']}",
        "95 % interval": f"{100 * low:.1f} to {100 * high:.1f} %",
    }
    for kind in KINDS[1:] if "random" in trials else ():
        figures[f"reached by {kind}"] = f"{summary[kind]['reached']} of {summary['goals']}"
    report.tiles(figures)
    within = f"{summary['timing']['timeout']:g} s"
    report.text(f"Reached: MuJoCo's gripper site within 3 cm of the goal's, held for 1 s, within {within}.")
    fig, (left, right) = plots.figure(2)
    for trial in trials["model"]:
        left.plot(0.1 * np.arange(len(trial.distances)), 100 * np.array(trial.distances), lw=0.5, alpha=0.4)
    left.axhline(3, lw=1, ls="--")
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
    report.write(path)
