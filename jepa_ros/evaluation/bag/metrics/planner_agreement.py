"""Planner agreement, and the time that the live graph would take on this machine.

Agreement: from states of a recording, the planner's motion is compared with the recorded one.
The goal is the frame H steps later. The planner node's own controller plans from what was seen, measured and executed
by then; until its plan takes effect the arm moves as in the recording.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from jepa_ros.bags.cameras import decode_image
from jepa_ros.errors import InputError
from jepa_ros.evaluation.bag.reading.recording import EvaluationSpec, Recording
from jepa_ros.evaluation.bag.reading.situations import Segment, Situations, evenly_spread
from jepa_ros.images import preprocess
from jepa_ros.planning.committed_reference import CommittedReference
from jepa_ros.planning.goal import Outcome
from jepa_ros.planning.guardrails import Guardrails
from jepa_ros.planning.receding_horizon import PlanStep, RecedingHorizonController
from jepa_ros.planning.rollout_problem import RolloutProblem, Situation
from jepa_ros.reporting.summary import percentiles
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.path import Path
from jepa_ros.robot.motion.tool_path import ToolPath
from jepa_ros.robot.motion.trajectory import JointTrajectory
from jepa_ros.robot.motion.velocity_space import make_velocity_space
from jepa_ros.world_model.checkpoint import check_velocity_space
from jepa_ros.world_model.protocol import Context

LATENT_DELAY_S = 0.05
"""From a frame's stamp to its latent at the planner, as in closed_loop.Timing."""
RANDOM_MOTIONS = 32
"""Random motions whose mean cost a plan is compared with."""
GRID_S = 0.02
"""Between the points of the recorded motion."""
TIMED_PLANS = 8
"""Plans of a bag that are timed."""
DEADLINE_S = 0.2
"""From a frame's stamp to its plan at the gate: the planner node's default."""
TIMED_IMAGES = 100
PLAN_KEYS = (
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


@dataclass(frozen=True)
class Agreement:
    """One state. frame, goal_frame: their numbers in the bag. cost, recorded_cost, random_cost: the objective's, of the
    planned, the recorded and random actions (mean of RANDOM_MOTIONS). gap: m between the tool's positions at the end of
    plan and recording; moved: m that the recording moved it; direction: cosine between the two motions. actions_rms: of
    planned minus recorded actions. forbidden: which limit the plan violates, "" for none. plan: None where there was
    none, for the reason in text."""

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


def compute_agreement(
    recording: Recording, situations: Situations, progress: Callable[[int], None] = lambda plans: None
) -> dict[str, list]:
    """Return an Agreement for each of spec.plan_states states as `agreements`, and why there are none as `problems`.

    progress: called with the number of plans after each.
    """
    try:
        recording.make_kinematics(situations.spec.robot)
    except InputError as error:
        return {"agreements": [], "problems": [str(error)] if recording.frame_stamps else []}
    rows, made = pick_states(situations), []
    if not len(rows):
        return {"agreements": [], "problems": []}
    try:
        planner = RecordingPlanner(situations)
    except InputError as error:
        return {"agreements": [], "problems": [f"bag {recording.path}: nothing is planned: {error}"]}
    for row in rows:
        made.append(planner.plan_at(int(row)))
        progress(len(made))
    return {"agreements": made, "problems": []}


def pick_states(situations: Situations) -> np.ndarray:
    """Return rows (n,) of up to spec.plan_states situations whose whole horizon is known, evenly spread."""
    return evenly_spread(np.flatnonzero(situations.known.all(axis=1)), situations.spec.plan_states)


class RecordingPlanner:
    """Plans at states of a recording with the planner node's controller; search rounds are counted, not timed.

    Raises InputError where the robot or the model allows no plans.
    """

    def __init__(self, situations: Situations):
        spec, recording = situations.spec, situations.recording
        self._situations, self._config, self._settings = situations, spec.config, spec.planning
        check_velocity_space(spec.config)
        kinematics = recording.make_kinematics(spec.robot)
        self._space = make_velocity_space(spec.robot, kinematics, spec.config.tick)
        self._limits = JointLimits.from_robot(spec.robot, recording.urdf)
        self._rails = Guardrails.from_robot(spec.robot, recording.urdf, self._space, self._limits)
        self._control = RecedingHorizonController(spec.checkpoint, self._space, spec.planning, self._rails)
        self._arm = len(spec.config.proprioception.joints)

    @torch.inference_mode()
    def plan_at(self, row: int) -> Agreement:
        """Plan from situation `row` to the last frame of its horizon, all of which must be known."""
        config, control, space, situations = self._config, self._control, self._space, self._situations
        frame, goal_frame = int(situations.frames[row]), int(situations.targets[row, -1])
        segment = situations.segment_of(frame)
        now = float(segment.times[np.searchsorted(segment.rows, frame)])
        self._show_history(segment, now)
        control.set_goal(situations.recording.latents.rows(goal_frame))
        control.reference = reference = self._recorded_reference(segment, now)
        step = control.plan_step(now + LATENT_DELAY_S)
        if not isinstance(step, PlanStep):
            return Agreement(frame, goal_frame, None, step.text)
        context = situations.context(np.array([row]))
        situation = Situation(context, lambda t: reference.tool_at(now + t), step.start - now)
        checkpoint, objective = situations.spec.checkpoint, control.planner.objective
        problem = RolloutProblem(checkpoint, space, situation, control.goal, objective, self._settings.horizon)
        rng = np.random.default_rng([self._settings.seed, frame])
        random = np.stack([space.sample_play(problem.ticks, rng) for _ in range(RANDOM_MOTIONS)])
        executed, planned = situations.future[row].reshape(-1, space.dimension), step.motion.actions
        start, end_time = reference.tool_at(np.array([now]))[0][0], now + config.step * situations.known.shape[1]
        end = space.tool_coordinates(segment.known_states_at(np.array([end_time]))[0, : self._arm])
        whole = space.to_base_axes(planned.sum(0)) * space.max_speed * config.tick
        recorded_motion, planned_motion = ((end - start)[: space.position_axes], whole[: space.position_axes])
        return Agreement(
            frame,
            goal_frame,
            step,
            cost=self._cost(context, planned, start),
            recorded_cost=self._cost(context, executed, start),
            random_cost=float(np.mean(problem.cost(problem.repair(random)))),
            gap=float(np.linalg.norm((start + whole - end)[: space.position_axes])),
            moved=float(np.linalg.norm(recorded_motion)),
            direction=float(
                recorded_motion
                @ planned_motion
                / max(np.linalg.norm(recorded_motion) * np.linalg.norm(planned_motion), 1e-9)
            ),
            actions_rms=float(np.sqrt(np.square(planned - executed).mean())),
            forbidden=self._violation(step.trajectory),
        )

    def _show_history(self, segment: Segment, now: float) -> None:
        """Give the controller what a live one would know at a frame, and no more."""
        control, keep = self._control, (self._config.history + 1) * self._config.step
        latents = self._situations.recording.latents
        control.observations.clear()
        control.clear_goal()
        control.start_episode()
        for times, values, add in (
            (segment.action_starts, segment.actions, control.add_executed),
            (segment.state_times, segment.states, control.add_state),
        ):
            for k in range(*np.searchsorted(times, [now - keep, now + 1e-6])):
                add(float(times[k]), values[k])
        for k in range(*np.searchsorted(segment.times, [now - keep, now + 1e-6])):
            control.add_latent(float(segment.times[k]), latents.rows(segment.rows[k]))

    def _recorded_reference(self, segment: Segment, now: float) -> CommittedReference:
        """Return the recorded motion around a frame as the committed reference."""
        times = np.arange(now - self._config.history * self._config.step, now + 1.0, GRID_S)
        states = segment.known_states_at(times)
        good = np.isfinite(states).all(axis=1)
        times, q, qd = times[good], states[good, : self._arm], states[good, self._arm : 2 * self._arm]
        knots = np.array([self._space.tool_knot(*joints) for joints in zip(q, qd, strict=True)])
        path = ToolPath(self._space.tool_coordinates(q[0]), knots * self._space.max_speed, GRID_S)
        names = tuple(self._config.proprioception.joints)
        reference = CommittedReference()
        reference.add_plan(times[0], path, JointTrajectory(names, times - times[0], q, qd))
        return reference

    def _cost(self, context: Context, actions: np.ndarray, start: np.ndarray) -> float:
        """Return the objective's cost of executed actions (ticks, A) from coordinates (D,) of the tool."""
        config, control = self._config, self._control
        blocks = torch.from_numpy(actions.astype(np.float32)).reshape(1, -1, config.action_block)
        latents, states = self._situations.spec.checkpoint.model.rollout(context, blocks)
        tool = start + np.cumsum(self._space.to_base_axes(actions), axis=0) * self._space.max_speed * config.tick
        tool = torch.from_numpy(tool[config.block - 1 :: config.block].astype(np.float32))[None]
        ticks = blocks.unflatten(2, (-1, self._space.dimension)).flatten(1, 2)
        return float(control.planner.objective(control.goal, Outcome(latents, states, tool), ticks)[0])

    def _violation(self, trajectory: JointTrajectory) -> str:
        """Describe which joint limit or guardrail a plan violates; "" for none."""
        states = np.stack((trajectory.positions, trajectory.velocities, trajectory.accelerations), axis=1)
        use = self._limits.compute_usage(Path(trajectory.times, states).divided())
        return self._rails.check(trajectory) or ("" if use.within_limits else use.text)


def summarize_agreement(samples: dict[str, list], spec: EvaluationSpec) -> dict[str, Any]:
    """Return the figures of all states; those of plans are None where there was none."""
    found = samples["agreements"]
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
        return values | dict.fromkeys(PLAN_KEYS)

    gap, moved, direction, actions_rms, cost, recorded_cost, random_cost = (
        np.array([getattr(a, name) for a in made])
        for name in ("gap", "moved", "direction", "actions_rms", "cost", "recorded_cost", "random_cost")
    )
    figures = (
        np.median(gap),
        np.percentile(gap, 90),
        gap.sum() / max(moved.sum(), 1e-9),
        *(np.median(column) for column in (moved, direction, actions_rms, cost, recorded_cost, random_cost)),
        np.mean(cost <= recorded_cost),
        np.mean(cost < random_cost),
    )
    return values | dict(zip(PLAN_KEYS, map(float, figures), strict=True))


@torch.inference_mode()
def compute_timing(recording: Recording, situations: Situations) -> dict[str, list]:
    """Return the ms that single images and plans take in the camera, world_model and planner nodes while nothing else
    runs (`decode_ms` and `encode_ms` of the first images of the first camera, `plan_ms`), and of the recording its
    `seconds`, number of `cameras` and `frame_steps` in ns."""
    config, model = situations.spec.config, situations.spec.checkpoint.model
    decode_ms, encode_ms = [], []
    for message in islice(recording.source.messages(recording.topics.cameras[:1]), TIMED_IMAGES):
        try:
            read = message.deserialise()
            begin = time.perf_counter()
            frame = preprocess(decode_image(read), config.preprocessing.size)
        except Exception:  # broken images are counted while reading
            continue
        decode_ms.append(1e3 * (time.perf_counter() - begin))
        frames = np.broadcast_to(frame, config.frame_shape).copy()[None]
        begin = time.perf_counter()
        model.encode(frames)
        encode_ms.append(1e3 * (time.perf_counter() - begin))
    return {
        "decode_ms": decode_ms,
        "encode_ms": encode_ms,
        "plan_ms": _time_plans(situations),
        "seconds": [recording.seconds],
        "cameras": [len(recording.cameras)],
        "frame_steps": np.diff(recording.frame_stamps),
    }


def summarize_timing(samples: dict[str, Any], spec: EvaluationSpec) -> dict[str, Any]:
    """Return everything that differs from run to run, except for the duration of the evaluation."""
    decode, encode, plan_ms = (percentiles(samples[name]) for name in ("decode_ms", "encode_ms", "plan_ms"))
    steps = samples["frame_steps"] * 1e-6
    period = float(np.median(steps[steps > 0])) if (steps > 0).any() else None
    see_ms = None if decode["p99"] is None else decode["p99"] * max(samples["cameras"]) + encode["p99"]
    late = [see_ms is not None and see_ms + ms > 1e3 * DEADLINE_S for ms in samples["plan_ms"]]
    return {
        "seconds_of_recording": sum(samples["seconds"]),
        "decode_ms": decode,
        "encode_ms": encode,
        "plan_ms": plan_ms,
        "camera_period_ms": period,
        "keeps_up_with_camera": None if see_ms is None or period is None else bool(see_ms < period),
        "deadline_ms": 1e3 * DEADLINE_S,
        "deadline_misses": int(sum(late)) if late else None,
    }


def _time_plans(situations: Situations) -> list[float]:
    """Return the ms of each of about TIMED_PLANS plans, made while nothing else runs."""
    rows = pick_states(situations)
    if not len(rows):
        return []
    try:
        planner = RecordingPlanner(situations)
    except InputError:  # reported by compute_agreement
        return []
    planner.plan_at(int(rows[0]))  # the first plan of a controller takes longer
    made = (planner.plan_at(int(row)) for row in rows[:: max(1, len(rows) // TIMED_PLANS)])
    return [agreement.plan.step_ms for agreement in made if agreement.plan is not None]
