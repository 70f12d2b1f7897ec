"""The receding-horizon controller: from latents, joint states and the committed reference to the next plan.

The planner node and the evaluation in simulation share it.
"""

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
from jepa_ros.robot.motion.angles import difference
from jepa_ros.robot.motion.motion_space import MotionSpace
from jepa_ros.robot.motion.trajectory import JointTrajectory
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.history import ObservationHistory

if TYPE_CHECKING:
    from jepa_ros.planning.guardrails import Guardrails


@dataclass(frozen=True)
class PlanningSettings:
    """lead: s from the start of a search to its hand-over, of which the search gets `budget`. plan_ticks: control ticks
    of a plan that are sent. dwell: s within the tolerances after which a goal is reached. drift: rad between the
    committed rest and the measured joints beyond which a plan starts from the measured ones. horizon: model steps.
    solver, policy, metric: names of planning.SOLVERS, POLICY_MODES and METRICS. smoothness, uncertainty: weights, see
    Objective."""

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
    """A plan to hand over. start, source_stamp, valid_until: s on the ROS clock. motion: the prediction; None for a
    stop. splice_error: rad between the plan's first point and the committed reference."""

    plan_id: int
    trajectory: JointTrajectory
    start: float
    source_stamp: float
    valid_until: float
    motion: PlannedMotion | None
    splice_error: float
    step_ms: float


@dataclass(frozen=True)
class NoPlan:
    """No plan this time. text: the reason. infeasible: plans were found, but constraints forbid all of them."""

    text: str
    infeasible: bool = False
    code: PlannerCode = field(default=PlannerCode.NONE, compare=False)


@dataclass
class _CheckedPath:
    """The last joint path that was checked, and the constraint that it violates ("" if none)."""

    trajectory: JointTrajectory | None = None
    violation: str = ""


class RecedingHorizonController:
    """Plans one arm towards one goal at a time. Add observations as they arrive, then call plan_step at control rate.

    Attributes: goal; distance of the last frame to it, in the unit of its first term (NaN if unknown); speed, a factor
    of 0 to 1 on max_speed; reference, the plans that were handed over; plan_id of the last one.
    """

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
        self.planner = LatentPlanner(
            checkpoint,
            space,
            horizon=s.horizon,
            budget=s.budget,
            solver=make_solver(s.solver),
            objective=Objective(
                smoothness=s.smoothness, uncertainty=s.uncertainty, tool_probe=checkpoint.probes.get("tool")
            ),
            guardrails=guardrails,
            policy=s.policy,
            seed=s.seed,
        )
        self.goals = GoalMaker(checkpoint, space, s.metric, guardrails)
        continuous = space.kinematics.find_continuous(config.proprioception.joints)
        self.observations = ObservationHistory(config, tuple(np.flatnonzero(continuous).tolist()))
        self.reference = CommittedReference()
        self.goal: Goal | None = None
        self.speed = 1.0
        self.distance = math.nan
        self.plan_id = 0
        self._joints: np.ndarray | None = None
        self._within_since: float | None = None
        self._last_start: float | None = None

    # -- observations --------------------------------------------------------------------------------------------------

    def add_latent(self, stamp: float, latent: torch.Tensor) -> None:
        """Add a frame's latent (*L); one that is not finite is ignored. A stamp that goes back starts a new episode."""
        if not bool(torch.isfinite(latent).all()):
            return
        if not self.observations.latents.add(stamp, latent):
            self.observations.actions.clear()
            self.start_episode()
        if self.goal is not None:
            self._update_distance(self.goal, stamp, latent)

    def add_state(self, stamp: float, proprioception: np.ndarray, joints: np.ndarray | None = None) -> None:
        """Add measured proprioception (P,), not normalised, and joint positions (J,) rad. None: the proprioception
        starts with the joint positions."""
        self.observations.states.add(stamp, proprioception)
        self._joints = proprioception[: len(self.config.proprioception.joints)] if joints is None else joints

    def add_executed(self, start: float, values: np.ndarray) -> None:
        """Add the action (A,) that the gate executed in the control tick that began at `start`."""
        self.observations.actions.add(start, values)

    def drop_reference(self) -> None:
        """Forget the committed plans, because the gate does not follow them: the next plan starts from the measured
        joints."""
        self.reference = CommittedReference()

    def start_episode(self) -> None:
        """Forget everything but the goal and the observations."""
        self.reference, self._within_since, self._last_start = CommittedReference(), None, None
        self.planner.reset()

    # -- goals ---------------------------------------------------------------------------------------------------------

    def set_goal(self, goal: Goal | torch.Tensor, tolerance: float = 0.0) -> None:
        """Set the goal: terms, or a latent (*L) and the latent distance at which it is reached (0: the model's own)."""
        if isinstance(goal, torch.Tensor):
            goal = Goal((self.goals.latent(goal, tolerance),))
        self.goal, self._within_since, self._last_start = goal, None, None
        self.distance = math.nan
        self.planner.reset()
        stamp = self.observations.latents.newest
        if stamp is not None:
            self._update_distance(goal, stamp, self.observations.latents.at(stamp))

    def clear_goal(self) -> None:
        """Remove the goal: no more plans."""
        self.goal, self._within_since = None, None

    @property
    def is_reached(self) -> bool:
        """Whether the state has been within the goal's tolerances for the dwell time."""
        newest = self.observations.latents.newest
        return (
            self._within_since is not None and newest is not None and newest - self._within_since >= self.settings.dwell
        )

    @property
    def is_within_tolerance(self) -> bool:
        """Whether the last frame is within the goal's tolerances; enough for a via goal."""
        return self._within_since is not None

    def _update_distance(self, goal: Goal, stamp: float, latent: torch.Tensor) -> None:
        """Compute the goal's distance for a frame's latent (*L) and since when it is within the tolerances."""
        measured, joints = self.observations.states.latest, self._joints
        if measured is None or joints is None:
            if goal.needs_states:
                return
            states, tool = torch.zeros(1, 1, 0), torch.zeros(1, 1, self.space.axes)
        else:
            states = self.observations.normalise(measured)[None, None]
            tool = torch.as_tensor(self.space.tool_coordinates(joints), dtype=torch.float32)[None, None]
        outcome = Outcome(latent[None, None], states, tool).to(self._device)
        self.distance = float(goal.distance(outcome)[0, 0])
        if not bool(goal.within(outcome)[0, 0]):
            self._within_since = None
        elif self._within_since is None:
            self._within_since = stamp

    # -- plans ---------------------------------------------------------------------------------------------------------

    def plan_step(self, now: float) -> PlanStep | NoPlan:
        """Plan from the newest frame and commit the plan. now: s on the ROS clock. Takes the budget and a little."""
        begin = time.perf_counter()
        if self.goal is None:
            return NoPlan("no goal")
        stamp = self.observations.latents.newest
        if stamp is None:
            return NoPlan("no latent yet", code=PlannerCode.NO_LATENT)
        tick = self.config.tick
        context = self.observations.context_at(stamp, self._committed_block if self.reference else None)
        if context is None:
            return NoPlan("no joint states at the frame's time", code=PlannerCode.NO_JOINT_STATES)
        start = math.ceil((now + self.settings.lead) / tick - 1e-6) * tick
        if start - stamp > (horizon := self.settings.horizon * self.config.step) - 1e-6:
            late = f"a plan takes effect {start - stamp:.2f} s after its frame"
            text = f"{late}, but the horizon ends {horizon:g} s after it: increase the horizon"
            return NoPlan(text, code=PlannerCode.HORIZON_TOO_SHORT)
        self._anchor_reference(now)
        situation = Situation(context, lambda t: self.reference.tool_at(stamp + t), start - stamp, self.speed)
        elapsed = 0 if self._last_start is None else round((start - self._last_start) / tick)
        checked = _CheckedPath()
        motion = self.planner.plan(situation, self.goal, elapsed, lambda knots: self._is_allowed(knots, start, checked))
        self._last_start = start
        if not math.isfinite(motion.cost) or checked.trajectory is None:
            self.planner.reset()
            text = f"no plan is allowed: {checked.violation or 'none has a finite cost'}"
            return NoPlan(text, infeasible=True, code=PlannerCode.NO_PLAN_ALLOWED)
        knots = motion.knots[: self.settings.plan_ticks]
        return self._hand_over(knots, checked.trajectory, start, stamp, motion, begin)

    def plan_stop(self, now: float) -> PlanStep | None:
        """Plan and commit the fastest stop; None if nothing is committed or the reference is at rest."""
        begin = time.perf_counter()
        if not self.reference or now >= self.reference.end:
            return None
        start = math.ceil((now + 0.5 * self.settings.lead) / self.config.tick - 1e-6) * self.config.tick
        position, velocity = self.reference.tool_at(np.array([start]))
        still = np.zeros((1, self.space.axes))
        knots = self.space.constrain(position[0], velocity[0] / self.space.max_speed, still)
        # Not checked by the guardrails: the motion that it ends is worse.
        trajectory = self.space.to_trajectory(*self.reference.joints_at(start), knots)
        return self._hand_over(knots, trajectory, start, now, None, begin)

    def _is_allowed(self, knots: np.ndarray, start: float, checked: _CheckedPath) -> bool:
        """Check the joint path of knots (n, D) with the guardrails, as far as it would be handed over."""
        state = self.reference.joints_at(start)
        checked.trajectory = self.space.to_trajectory(*state, knots[: self.settings.plan_ticks])
        checked.violation = self.guardrails.check(checked.trajectory) if self.guardrails else ""
        return not checked.violation

    def _hand_over(
        self,
        knots: np.ndarray,
        trajectory: JointTrajectory,
        start: float,
        stamp: float,
        motion: PlannedMotion | None,
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
            motion,
            float(np.abs(trajectory.positions[0] - q).max()),
            1e3 * (time.perf_counter() - begin),
        )

    def _committed_block(self, start: float) -> np.ndarray:
        """Return the committed action block (K,) of the model step that begins at `start`."""
        tick, block = self.config.tick, self.config.block
        positions, _ = self.reference.tool_at(start + tick * np.arange(block + 1))
        return self.space.to_model_axes(np.diff(positions, axis=0) / (self.space.max_speed * tick)).ravel()

    def _anchor_reference(self, now: float) -> None:
        """Start from the measured joints if nothing is committed or the arm rests away from the reference."""
        measured = self._joints
        if measured is None or (self.reference and now < self.reference.end):
            return
        if self.reference:
            # A continuous joint that is reported on another turn has not moved.
            away = difference(self.reference.joints_at(now)[0], measured, self.space.kinematics.continuous)
            if np.abs(away).max() < self.settings.drift:
                return
        self.reference.hold(now - 10.0, measured, self.space.kinematics.joints, self.space.tool_coordinates(measured))
