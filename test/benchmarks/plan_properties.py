"""Random goals, obstacles, models and seeds: does a plan ever break a constraint, and does what can be get a plan?

    .venv/bin/python test/benchmarks/plan_properties.py [--trials 10000] [--workers 2] [--out FILE]

Ctrl-C ends it with what it has.

Half of the goals are infeasible: inside a keep-out box, behind one that leaves no room, or with the arm boxed in. A
trial is one plan from rest. Every plan is looked at by brute force, each 2 ms of its joint path, apart from the
guardrails that made it: joint limits, workspace, boxes, self-collision, and the gate's limits on velocity, acceleration
and jerk. A feasible goal must get a plan that moves the tool and ends nearer to the goal.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import signal
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where helpers/ is
FIRST_SEED = 10_000
T0 = 1_700_000_000.0
KINDS = ("knows its world", "shipped", "random weights")


class World:
    """What all trials of a process share: the arm, its limits and its clearance field."""

    def __init__(self):
        import torch

        from helpers import small_models
        from jepa_ros.planning.guardrails import Guardrails
        from jepa_ros.robot.config import load_robot
        from jepa_ros.robot.motion.limits import JointLimits
        from jepa_ros.sim.cell import make_action_space
        from jepa_ros.sim.scene import Scene
        from jepa_ros.world_model.checkpoint import Checkpoint, load_checkpoint

        torch.set_num_threads(1)
        self.robot, self.scene = load_robot("openarm"), Scene()
        self.space = make_action_space(self.robot, self.scene.urdf, 0.1)
        self.limits = JointLimits.from_robot(self.robot, self.scene.urdf)
        self.rails = Guardrails.from_robot(self.robot, self.scene.urdf, self.space, self.limits)
        joints = tuple(self.robot.joints)
        model, policy = small_models.fresh(small_models.config(joints), 7)
        unsure = Checkpoint(small_models.config(joints), model, policy, "1" * 16, Path("nowhere"))
        self.checkpoints = dict(
            zip(KINDS, (small_models.knowing(joints), load_checkpoint("openarm_reach"), unsure), strict=True)
        )
        self.latent_of = small_models.latent_of


def place(world: World, rng: np.random.Generator, clear: float = 0.0) -> np.ndarray:
    """A tool position (2,) m in the workspace, with some clearance of the robot itself."""
    low, high = world.space.workspace.min(0), world.space.workspace.max(0)
    while True:
        xy = rng.uniform(low, high)
        if world.space.is_inside(xy) and (world.space.offsets - world.space.normals @ xy).min() > 0.01:
            if world.rails.clearance(xy) > clear:
                return xy


def box(name: str, centre: np.ndarray, half: np.ndarray):
    from jepa_ros.robot.collision.clearance import Box

    return Box(name, np.array([*(centre - half), 0.0]), np.array([*(centre + half), 1.0]))


def apart(box, points: np.ndarray) -> np.ndarray:
    """(M,) m from points (M, 3) to a box; 0 inside."""
    return np.linalg.norm(points - np.clip(points, box.low, box.high), axis=1)


def draw(world: World, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list, bool]:
    """Start and goal (2,) m, boxes, and whether the straight way between them is free."""
    margin = world.rails.margin
    while True:
        start, goal = place(world, rng, 0.005), place(world, rng, 0.005)
        way = start + np.linspace(0.0, 1.0, 60)[:, None] * (goal - start)
        if np.linalg.norm(goal - start) < 0.06 or world.rails._self_clearance(way).min() < 0.002:
            continue
        half = rng.uniform(0.01, 0.04, 2)
        feasible = rng.random() < 0.5
        centre = goal + rng.uniform(-1, 1, 2) * half if not feasible else place(world, rng)
        boxes = [box("one", centre, half)]
        gap = apart(boxes[0], np.column_stack([way, np.full(len(way), world.space.height)]))
        if gap[0] < margin + 0.01:
            continue
        if feasible == bool(gap.min() > margin + 0.01):
            return start, goal, boxes, feasible


def trial(world: World, index: int) -> dict:
    """One plan from rest, and what is wrong with it."""
    import torch

    from jepa_ros.errors import InputError
    from jepa_ros.planning import SOLVERS
    from jepa_ros.planning.goal import Goal
    from jepa_ros.planning.receding_horizon import PlanningSettings, PlanStep, RecedingHorizonController

    rng = np.random.default_rng(FIRST_SEED + index)
    start, goal, boxes, feasible = draw(world, rng)
    kind, solver = KINDS[index % len(KINDS)], list(SOLVERS)[(index // len(KINDS)) % len(SOLVERS)]
    checkpoint = world.checkpoints[kind]
    world.rails.boxes = tuple(boxes)
    settings = PlanningSettings(budget=np.inf, seed=FIRST_SEED + index, solver=solver)
    controller = RecedingHorizonController(checkpoint, world.space, settings, world.rails)
    q = world.space.inverse_kinematics(start)
    knows = kind == KINDS[0]
    latent = world.latent_of(start) if knows else torch.as_tensor(rng.standard_normal(checkpoint.config.latent_shape))
    controller.add_latent(T0, latent.float())
    gripper = np.zeros(len(checkpoint.config.proprioception.gripper))
    controller.add_state(T0, np.concatenate([q, np.zeros(len(q)), gripper]))
    # A latent goal means something to a model that knows its world; a place is a goal for any.
    found = {"kind": kind, "solver": solver, "feasible": feasible, "planned": False, "violation": ""}
    try:
        if knows and rng.random() < 0.5:
            controller.set_goal(world.latent_of(goal))
        else:
            controller.set_goal(Goal((controller.goals.tool([*goal, world.space.height]),)))
    except InputError as error:
        return found | {"text": str(error)}
    step = controller.plan_step(T0 + 0.01)
    if not isinstance(step, PlanStep):
        return found | {"text": step.text}
    found["planned"] = True
    found["violation"] = violation(world, step.trajectory, boxes)
    end = world.space.tool_coordinates(step.trajectory.positions[-1])
    found["moved"] = float(np.linalg.norm(end - start))
    found["nearer"] = float(np.linalg.norm(goal - start) - np.linalg.norm(goal - end))
    return found


def violation(world: World, trajectory, boxes: list) -> str:
    """What a trajectory breaks, each 2 ms of it; "" for nothing."""
    from jepa_ros.robot.motion.path import Path as JointPath

    t = np.arange(0.0, trajectory.duration + 1e-9, 0.002)
    q = trajectory.sample(t)[0]
    if (world.limits.excess(q) > 1e-6).any():
        return "joint limit"
    states = np.stack([trajectory.positions, trajectory.velocities, trajectory.accelerations], axis=1)
    use = world.limits.compute_usage(JointPath(trajectory.times, states))
    if not use.within_limits:
        return use.text
    tool = np.array([world.space.kinematics.forward(x)[0] for x in q[::5]])
    if (world.space.normals @ tool[:, :2].T - world.space.offsets[:, None]).max() > 0.01:
        return "workspace"
    if any(apart(b, tool).min() < world.rails.margin - 1e-4 for b in boxes):
        return "keep-out box"
    if world.rails.collision.distances(q[::10]).min() < world.rails.margin - 1e-4:
        return "self-collision"
    return ""


_world: World | None = None


def _many(indices: range) -> list[dict]:
    global _world
    _world = _world or World()
    return [trial(_world, i) for i in indices]


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the workers


def summarise(found: list[dict]) -> dict:
    """Counts, by model and solver as well."""
    feasible = [f for f in found if f["feasible"]]
    good = [f for f in feasible if f["planned"] and f["moved"] > 0.005 and f["nearer"] > 0.0]
    by = {}
    for key in ("kind", "solver"):
        for name in sorted({f[key] for f in feasible}):
            of = [f for f in feasible if f[key] == name]
            by[name] = sum(f in good for f in of) / len(of)
    texts = sorted({f["violation"] for f in found if f["violation"]})
    return {
        "trials": len(found),
        "infeasible": len(found) - len(feasible),
        "violations": sum(bool(f["violation"]) for f in found),
        "violation_texts": texts[:20],
        "feasible_with_a_plan_that_moves_and_ends_nearer": len(good) / len(feasible),
        "of": by,
        "infeasible_held": sum(not f["planned"] for f in found if not f["feasible"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    started, found, size = time.time(), [], 50
    parts = [range(i, min(i + size, arguments.trials)) for i in range(0, arguments.trials, size)]
    with multiprocessing.get_context("spawn").Pool(arguments.workers, _ignore_interrupt) as pool:
        try:
            for part in pool.imap_unordered(_many, parts):
                found += part
                print(f"\r{len(found)} of {arguments.trials}", end="", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            pass  # what has been found counts
    summary = summarise(found) | {"wall_s": time.time() - started}
    text = json.dumps(summary, indent=2)
    print(f"\n{text}")
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
