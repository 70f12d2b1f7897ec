"""Reaching a goal step by step: from what was seen and promised to the next plan. Node and evaluator share it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from jepa_ros.planning.codes import PlannerCode
from jepa_ros.planning.committed_reference import CommittedReference
from jepa_ros.planning.goal import Goal, GoalMaker, Objective, Outcome
from jepa_ros.planning.planner import LatentPlanner, PlannedMotion
from jepa_ros.planning.rollout_problem import Situation
from jepa_ros.planning.solvers import make_solver
from jepa_ros.robot.motion.motion_space import MotionSpace
from jepa_ros.robot.motion.trajectory import JointTrajectory
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.history import ObservationHistory

if TYPE_CHECKING:
    from jepa_ros.planning.guardrails import Guardrails


@dataclass(frozen=True)
class PlanningSettings:
    """lead: s from the start of a search to its hand-over; the search itself gets `budget` s of it. plan_ticks:
    control ticks of a plan that are sent. dwell: s within the tolerance after which a goal counts as reached. drift:
    rad between the promised rest and the measured joints beyond which the measured ones count. solver,
    policy, metric: names of planning.SOLVERS, POLICY_MODES and METRICS. smoothness, uncertainty: see Objective."""

    lead: float = 0.11
    budget: float = 0.05
    plan_ticks: int = 10
    dwell: float = 0.6
    drift: float = 0.05
    horizon: int = 5
    seed: int = 0
    solver: str = "icem"
    policy: str = "policy_first"
    metric: str = "l2"
    smoothness: float = 0.0
    uncertainty: float = 0.0


@dataclass(frozen=True)
class PlanStep:
    """A plan to hand over. start, source_stamp, valid_until: s on the ROS clock. imagined: None for a stop.
    splice_error: rad."""

    plan_id: int
    trajectory: JointTrajectory
    start: float
    source_stamp: float
    valid_until: float
    imagined: PlannedMotion | None
    splice_error: float
    step_ms: float


@dataclass(frozen=True)
class NoPlan:
    """No plan now; text says for what. infeasible: there would be one, but for what it may not do."""

    text: str
    infeasible: bool = False
    code: PlannerCode = field(default=PlannerCode.NONE, compare=False)


@dataclass
class _Judged:
    """The last joint path that the guardrails were asked about, and what of it is forbidden."""

    trajectory: JointTrajectory | None = None
    forbidden: str = ""


class RecedingHorizonController:
    """One arm, one goal at a time. Feed it latents, states and whether the gate follows; ask it for steps."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        space: MotionSpace,
        settings: PlanningSettings | None = None,
        guardrails: Guardrails | None = None,
    ):
        self.settings = settings or PlanningSettings()
        s, config = self.settings, checkpoint.config
        self.config, self.space, self.guardrails = config, space, guardrails
        self._device = checkpoint.device
        prices = {"smoothness": s.smoothness, "uncertainty": s.uncertainty, "sight": checkpoint.probes.get("tool")}
        self.planner = LatentPlanner(
            checkpoint,
            space,
            horizon=s.horizon,
            budget=s.budget,
            solver=make_solver(s.solver),
            objective=Objective(**prices),
            guardrails=guardrails,
            policy=s.policy,
            seed=s.seed,
        )
        self.goals = GoalMaker(checkpoint, space, s.metric, guardrails)
        self.observations = ObservationHistory(config)
        self.reference = CommittedReference()
        self.goal: Goal | None = None
        self._joints: np.ndarray | None = None
        self.speed = 1.0
        self.distance = math.nan
        self.plan_id = 0
        self._within: float | None = None
        self._last_start: float | None = None

    # -- what is seen --------------------------------------------------------------------------------------------------

    def add_latent(self, stamp: float, latent: torch.Tensor) -> None:
        """A frame's latent (*L). Time that went back begins a new episode."""
        if not bool(torch.isfinite(latent).all()):
            return
        if not self.observations.latents.add(stamp, latent):
            self.observations.actions.clear()
            self.start_episode()
        if self.goal is not None:
            self._judge(stamp, latent)

    def add_state(self, stamp: float, proprioception: np.ndarray, joints: np.ndarray | None = None) -> None:
        """Measured proprioception (P,) raw, and joint positions (J,) rad; None: it begins with them."""
        self.observations.states.add(stamp, proprioception)
        self._joints = proprioception[: len(self.config.proprioception.joints)] if joints is None else joints

    def add_executed(self, start: float, values: np.ndarray) -> None:
        """What the gate let through in the control tick from `start` on, (A,)."""
        self.observations.actions.add(start, values)

    def drop_reference(self) -> None:
        """The gate does not follow: the next plan starts from the measured joints."""
        self.reference = CommittedReference()

    def start_episode(self) -> None:
        """Forget everything but the goal: a new episode begins."""
        self.reference, self._within, self._last_start = CommittedReference(), None, None
        self.planner.reset()

    # -- goals ---------------------------------------------------------------------------------------------------------

    def set_goal(self, goal: Goal | torch.Tensor, tolerance: float = 0.0) -> None:
        """What to reach, or a latent (*L) and the latent distance at which it is (0: the model's own)."""
        if isinstance(goal, torch.Tensor):
            goal = Goal((self.goals.latent(goal, tolerance),))
        self.goal, self._within, self._last_start = goal, None, None
        self.distance = math.nan
        self.planner.reset()
        stamp = self.observations.latents.newest
        if stamp is not None:
            self._judge(stamp, self.observations.latents.at(stamp))

    def _judge(self, stamp: float, latent: torch.Tensor) -> None:
        """How far away the goal is, as seen in a frame's latent (*L), and since when it is within the tolerances."""
        goal, measured = self.goal, self.observations.states.latest
        if measured is None:
            if goal.needs_states:
                return
            states, tool = torch.zeros(1, 1, 0), torch.zeros(1, 1, self.space.axes)
        else:
            states = self.observations.normalise(measured)[None, None]
            tool = torch.as_tensor(self.space.tool_coordinates(self._joints), dtype=torch.float32)[None, None]
        outcome = Outcome(latent[None, None], states, tool).to(self._device)
        self.distance = float(goal.distance(outcome)[0, 0])
        if not bool(goal.within(outcome)[0, 0]):
            self._within = None
        elif self._within is None:
            self._within = stamp

    def clear_goal(self) -> None:
        """No goal: no more plans."""
        self.goal, self._within = None, None

    @property
    def is_reached(self) -> bool:
        """Whether the goal has been within its tolerances for the dwell time."""
        newest = self.observations.latents.newest
        return self._within is not None and newest is not None and newest - self._within >= self.settings.dwell

    @property
    def is_within_tolerance(self) -> bool:
        """Whether it is within its tolerances now; enough for a goal on the way to another."""
        return self._within is not None

    # -- plans ---------------------------------------------------------------------------------------------------------

    def plan_step(self, now: float) -> PlanStep | NoPlan:
        """Plan from the newest frame; `now` s on the ROS clock. It takes `budget` s and a little."""
        begin = time.perf_counter()
        if self.goal is None:
            return NoPlan("no goal")
        stamp = self.observations.latents.newest
        if stamp is None:
            return NoPlan("no latent yet", code=PlannerCode.NO_LATENT)
        tick = self.config.tick
        context = self.observations.at(stamp, self._committed_block if self.reference else None)
        if context is None:
            return NoPlan("no joint states at the frame's time", code=PlannerCode.NO_JOINT_STATES)
        start = math.ceil((now + self.settings.lead) / tick - 1e-6) * tick
        if start - stamp > (imagined := self.settings.horizon * self.config.step) - 1e-6:
            late = f"a plan takes effect {start - stamp:.2f} s after its frame"
            text = f"{late}, but what is imagined ends {imagined:g} s after it: a longer horizon is needed"
            return NoPlan(text, code=PlannerCode.HORIZON_TOO_SHORT)
        self._anchor(now)
        situation = Situation(context, lambda t: self.reference.tool_at(stamp + t), start - stamp, self.speed)
        elapsed = 0 if self._last_start is None else round((start - self._last_start) / tick)
        judged = _Judged()
        imagined = self.planner.plan(situation, self.goal, elapsed, lambda knots: self._allowed(knots, start, judged))
        self._last_start = start
        if not math.isfinite(imagined.cost):
            self.planner.reset()
            text = f"no plan is allowed: {judged.forbidden or 'none has a finite cost'}"
            return NoPlan(text, infeasible=True, code=PlannerCode.NO_PLAN_ALLOWED)
        knots = imagined.knots[: self.settings.plan_ticks]
        return self._hand_over(knots, judged.trajectory, start, stamp, imagined, begin)

    def plan_stop(self, now: float) -> PlanStep | None:
        """A plan that brings the arm to rest as soon as possible; None where nothing is promised, so it is at rest."""
        begin = time.perf_counter()
        if not self.reference or now >= self.reference.end:
            return None
        start = math.ceil((now + 0.5 * self.settings.lead) / self.config.tick - 1e-6) * self.config.tick
        xy, velocity = self.reference.tool_at(np.array([start]))
        still = np.zeros((1, self.space.axes))
        knots = self.space.constrain(xy[0], velocity[0] / self.space.max_speed, still)
        # It is let through in any case: what it puts an end to is worse.
        trajectory = self.space.to_trajectory(*self.reference.joints_at(start), knots)
        return self._hand_over(knots, trajectory, start, now, None, begin)

    def _allowed(self, knots: np.ndarray, start: float, judged: _Judged) -> bool:
        """Whether the guardrails allow the joint path of knots (n, D), as far as it would be handed over."""
        state = self.reference.joints_at(start)
        judged.trajectory = self.space.to_trajectory(*state, knots[: self.settings.plan_ticks])
        judged.forbidden = self.guardrails.check(judged.trajectory) if self.guardrails else ""
        return not judged.forbidden

    def _hand_over(
        self,
        knots: np.ndarray,
        trajectory: JointTrajectory,
        start: float,
        stamp: float,
        imagined: PlannedMotion | None,
        begin: float,
    ) -> PlanStep:
        q, qd, _ = self.reference.joints_at(start)
        self.reference.add_plan(start, self.space.make_path(q, qd, knots), trajectory)
        self.plan_id += 1
        return PlanStep(
            self.plan_id,
            trajectory,
            start,
            stamp,
            start + trajectory.duration + self.config.tick,
            imagined,
            float(np.abs(trajectory.positions[0] - q).max()),
            1e3 * (time.perf_counter() - begin),
        )

    def _committed_block(self, start: float) -> np.ndarray:
        """(K,) the action block that was promised for the model step from `start` on."""
        tick, block = self.config.tick, self.config.block
        xy, _ = self.reference.tool_at(start + tick * np.arange(block + 1))
        return self.space.to_model_axes(np.diff(xy, axis=0) / (self.space.max_speed * tick)).ravel()

    def _anchor(self, now: float) -> None:
        """Where nothing is promised, or the arm came to rest elsewhere than promised, start from what is measured."""
        measured = self._joints
        if self.reference and (
            now < self.reference.end or np.abs(self.reference.joints_at(now)[0] - measured).max() < self.settings.drift
        ):
            return
        self.reference.hold(now - 10.0, measured, self.space.kinematics.joints, self.space.tool_coordinates(measured))
