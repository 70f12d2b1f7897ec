"""Planner agreement: at states of a recording, what the planner would do to get to where the recording got to.

The goal is the frame H steps later. The planner node's own controller plans from what was seen, measured and done by
then; until its hand-over the arm does what it did in the recording.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from jepa_ros.evaluation.bag.reading.records import Recorded
from jepa_ros.evaluation.bag.reading.situations import Stretch, Windows, states_at
from jepa_ros.planning.committed_reference import CommittedReference
from jepa_ros.planning.goal import Outcome
from jepa_ros.planning.guardrails import Guardrails
from jepa_ros.planning.receding_horizon import PlanningSettings, PlanStep, RecedingHorizonController
from jepa_ros.planning.rollout_problem import RolloutProblem, Situation
from jepa_ros.robot.motion.action_space import PlanarVelocity
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.path import Path
from jepa_ros.robot.motion.random_play import sample_random_play
from jepa_ros.robot.motion.tool_path import ToolPath
from jepa_ros.robot.motion.trajectory import JointTrajectory
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.protocol import Context

SEE = 0.05
"""s from a frame's stamp to the planner seeing its latent, as in closed_loop.Timing."""
RANDOM = 32
"""Random motions that a plan is set beside."""
GRID = 0.02
"""s between the points that the recorded motion is known by."""


@dataclass(frozen=True)
class Agreement:
    """One state. frame, goal_frame: their numbers in the bag. costs: the objective's, of the planned, the recorded and
    random actions (mean of RANDOM). gap: m between where plan and recording bring the tool; moved: m that the recording
    moved it. actions_rms: of planned less recorded actions. forbidden: why the plan broke a limit, "" where it did not.
    plan: None, and text says why, where there was none."""

    frame: int
    goal_frame: int
    plan: PlanStep | None
    text: str = ""
    cost: float = math.nan
    recorded_cost: float = math.nan
    random_cost: float = math.nan
    gap: float = math.nan
    moved: float = math.nan
    direction: float = math.nan
    actions_rms: float = math.nan
    forbidden: str = ""


class Planning:
    """Plans at states of recordings. settings: of the planner; rounds of its search are counted, not timed."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        space: PlanarVelocity,
        limits: JointLimits,
        rails: Guardrails,
        settings: PlanningSettings,
    ):
        self._checkpoint, self._space, self._limits, self._rails = checkpoint, space, limits, rails
        self._control = RecedingHorizonController(checkpoint, space, settings, rails)
        self._settings, self._config = settings, checkpoint.config

    @torch.inference_mode()
    def at(self, recorded: Recorded, part: Stretch, found: Windows, row: int) -> Agreement:
        """Plan at the situation `row` towards the last frame of its horizon, all of which is known."""
        config, control, space = self._config, self._control, self._space
        frame, goal_frame = int(found.frames[row]), int(found.targets[row, -1])
        now = float(part.times[np.searchsorted(part.rows, frame)])
        self._show(recorded, part, now)
        goal = recorded.latents.rows(goal_frame)
        control.set_goal(goal)
        control.reference = reference = self._recorded_reference(part, now)
        handed = now + SEE
        step = control.plan_step(handed)
        if not isinstance(step, PlanStep):
            return Agreement(frame, goal_frame, None, step.text)
        context = found.context(recorded, np.array([row]))
        situation = Situation(context, lambda t: reference.tool_at(now + t), step.start - now)
        problem = RolloutProblem(
            self._checkpoint, space, situation, control.goal, control.planner.objective, self._settings.horizon
        )
        rng = np.random.default_rng([self._settings.seed, frame])
        random = problem.repair(np.stack([sample_random_play(problem.ticks, rng) for _ in range(RANDOM)]))
        done = found.future[row].reshape(-1, space.dimension)
        planned = step.motion.actions
        start = reference.tool_at(np.array([now]))[0][0]
        end = space.tool_coordinates(
            states_at(part, np.array([now + config.step * found.known.shape[1]]), config)[0, : self._arm]
        )
        way, meant = end - start, space.to_base_axes(planned.sum(0)) * space.max_speed * config.tick
        return Agreement(
            frame,
            goal_frame,
            step,
            cost=self._cost(context, planned, start),
            recorded_cost=self._cost(context, done, start),
            random_cost=float(np.mean(problem.cost(random))),
            gap=float(np.linalg.norm(start + meant - end)),
            moved=float(np.linalg.norm(way)),
            direction=float(way @ meant / max(np.linalg.norm(way) * np.linalg.norm(meant), 1e-9)),
            actions_rms=float(np.sqrt(np.square(planned - done).mean())),
            forbidden=self._broken(step.trajectory),
        )

    @property
    def _arm(self) -> int:
        return len(self._config.proprioception.joints)

    def _show(self, recorded: Recorded, part: Stretch, now: float) -> None:
        """What a live controller would know at a frame, and no more."""
        control, keep = self._control, (self._config.history + 1) * self._config.step
        control.observations.clear()
        control.clear_goal()
        control.start_episode()
        for times, values, add in (
            (part.action_starts, part.actions, control.add_executed),
            (part.state_times, part.states, control.add_state),
        ):
            for k in range(*np.searchsorted(times, [now - keep, now + 1e-6])):
                add(float(times[k]), values[k])
        for k in range(*np.searchsorted(part.times, [now - keep, now + 1e-6])):
            control.add_latent(float(part.times[k]), recorded.latents.rows(part.rows[k]))

    def _recorded_reference(self, part: Stretch, now: float) -> CommittedReference:
        """The recorded motion around a frame, as a committed reference."""
        keep = self._config.history * self._config.step
        times = np.arange(now - keep, now + 1.0, GRID)
        states = states_at(part, times, self._config)
        good = np.isfinite(states).all(axis=1)
        times, q, qd = times[good], states[good, : self._arm], states[good, self._arm : 2 * self._arm]
        speeds = (
            np.array([self._space.tool_knot(*joints) for joints in zip(q, qd, strict=True)]) * self._space.max_speed
        )
        reference = CommittedReference()
        path = ToolPath(self._space.tool_coordinates(q[0]), speeds, GRID)
        reference.add_plan(
            times[0], path, JointTrajectory(tuple(self._config.proprioception.joints), times - times[0], q, qd)
        )
        return reference

    def _cost(self, context: Context, actions: np.ndarray, start: np.ndarray) -> float:
        """The objective's, of executed actions (ticks, A) from a tool position (2,) m on."""
        config, control = self._config, self._control
        blocks = torch.from_numpy(actions.astype(np.float32)).reshape(1, -1, config.action_block)
        latents, states = self._checkpoint.model.rollout(context, blocks)
        tool = start + np.cumsum(self._space.to_base_axes(actions), axis=0) * self._space.max_speed * config.tick
        tool = torch.from_numpy(tool[config.block - 1 :: config.block].astype(np.float32))[None]
        ticks = blocks.unflatten(2, (-1, self._space.dimension)).flatten(1, 2)
        return float(control.planner.objective(control.goal, Outcome(latents, states, tool), ticks)[0])

    def _broken(self, trajectory: JointTrajectory) -> str:
        """What of a plan breaks the joints' limits or the guardrails, in words; "" where nothing does."""
        states = np.stack((trajectory.positions, trajectory.velocities, trajectory.accelerations), axis=1)
        use = self._limits.compute_usage(Path(trajectory.times, states).divided())
        return self._rails.check(trajectory) or ("" if use.within_limits else use.text)


def spread(found: Windows, count: int) -> np.ndarray:
    """Rows (n,) of up to `count` situations whose whole horizon is known, evenly spread over the recording."""
    rows = np.flatnonzero(found.known.all(axis=1)) if found.known.shape[1] else np.zeros(0, int)
    if not len(rows) or not count:
        return rows[:0]
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))]


def measure(found: list[Agreement]) -> dict[str, Any]:
    """Figures; None where there was no plan."""
    made = [a for a in found if a.plan is not None]
    values: dict[str, Any] = {
        "states": len(found),
        "planned": len(made),
        "without_plan": len(found) - len(made),
        "limit_violations": sum(bool(a.forbidden) for a in made),
        "first_violation": next((a.forbidden for a in made if a.forbidden), None),
        "first_without_plan": next((a.text for a in found if a.plan is None), None),
    }
    if not made:
        return values | dict.fromkeys(KEYS)

    def median(name: str) -> float:
        return float(np.median([getattr(a, name) for a in made]))

    gaps, ways = (np.array([getattr(a, name) for a in made]) for name in ("gap", "moved"))
    return values | {
        "gap_p50_m": float(np.median(gaps)),
        "gap_p90_m": float(np.percentile(gaps, 90)),
        "gap_ratio": float(gaps.sum() / max(ways.sum(), 1e-9)),
        "moved_p50_m": float(np.median(ways)),
        "direction_p50": median("direction"),
        "actions_rms_p50": median("actions_rms"),
        "cost_p50": median("cost"),
        "recorded_cost_p50": median("recorded_cost"),
        "random_cost_p50": median("random_cost"),
        "cheaper_than_recorded": float(np.mean([a.cost <= a.recorded_cost for a in made])),
        "cheaper_than_random": float(np.mean([a.cost < a.random_cost for a in made])),
    }


KEYS = (
    "gap_p50_m",
    "gap_p90_m",
    "gap_ratio",
    "moved_p50_m",
    "direction_p50",
    "actions_rms_p50",
    "cost_p50",
    "recorded_cost_p50",
    "random_cost_p50",
    "cheaper_than_recorded",
    "cheaper_than_random",
)
