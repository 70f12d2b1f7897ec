"""Goals of the action reach_goal: from acceptance to result, and from a request's terms to the planner's goals."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jepa_msgs.action import ReachGoal
from jepa_msgs.msg import GoalTerm
from rclpy.task import Future
from sensor_msgs.msg import Image

from jepa_ros.errors import InputError
from jepa_ros.images import preprocess
from jepa_ros.nodes.common.convert import decode_image
from jepa_ros.planning.codes import Cause, PlannerCode
from jepa_ros.world_model.config import ModelConfig

if TYPE_CHECKING:  # torch is loaded when there is something to encode
    import torch

    from jepa_ros.planning.goal import Goal, GoalMaker, Term
    from jepa_ros.world_model.checkpoint import Checkpoint

INVALID = {
    GoalTerm.IMAGE: PlannerCode.GOAL_IMAGE_INVALID,
    GoalTerm.LATENT: PlannerCode.GOAL_LATENT_INVALID,
    GoalTerm.POSE: PlannerCode.GOAL_POSE_INVALID,
    GoalTerm.JOINTS: PlannerCode.GOAL_JOINTS_INVALID,
    GoalTerm.OBJECT: PlannerCode.GOAL_OBJECT_INVALID,
}


class InvalidGoal(InputError):
    """A goal that cannot be pursued. code: which part of it is wrong."""

    def __init__(self, code: PlannerCode, text: str):
        super().__init__(text)
        self.code = code


class ActiveGoal:
    """One accepted goal. `finish` may be called from any thread and counts once; `close` is called by the executor.

    ready: the request has been read and plans may be made. stages: the goals left, the current one first.
    """

    def __init__(self, handle, executor, timeout: float):
        self.request = handle.request
        self.id = bytes(handle.goal_id.uuid).hex()
        self.done = Future(executor=executor)
        self.ready = self.ended = False
        self.gate_checked = False  # the gate's state was known while this goal was pursued
        self.outcome = Cause()
        self.stages: list[Goal] = []
        self._distance = math.nan
        self._passed = 0
        self._handle, self._lock, self._begin = handle, threading.Lock(), time.monotonic()
        self._timeout = self.request.timeout if self.request.timeout > 0 else timeout

    @property
    def reached(self) -> bool:
        return self.ended and self.outcome.code == PlannerCode.REACHED

    @property
    def cancelled(self) -> bool:
        return self.outcome.code == PlannerCode.CANCELLED

    @property
    def elapsed(self) -> float:
        """s since the goal was accepted."""
        return time.monotonic() - self._begin

    def drop_images(self) -> None:
        """Free the request's images once they are encoded: rclpy keeps a request as long as its result."""
        self.request.terms, self.request.via = [], []

    def finish(self, outcome: Cause, distance: float = math.nan) -> None:
        """End the goal. Only the first call counts."""
        with self._lock:
            if self.ended:
                return
            self.ended, self.outcome, self._distance = True, outcome, distance
        self.done.set_result(None)

    def next_stage(self) -> Goal:
        """Drop the sub-goal that was passed and return the next goal."""
        self.stages.pop(0)
        self._passed += 1
        return self.stages[0]

    def check(self, held: float, cause: Cause, hold_timeout: float, distance: float) -> None:
        """End the goal where it was cancelled, timed out, or the arm has been held for longer than hold_timeout.

        held: s for which the arm has been held. cause: why it is held.
        """
        if self._handle.is_cancel_requested:
            self.finish(Cause(PlannerCode.CANCELLED, "cancelled"), distance)
        elif self.elapsed > self._timeout:
            self.finish(Cause(PlannerCode.GOAL_TIMEOUT, f"not reached within {self._timeout:g} s"), distance)
        elif held > hold_timeout:
            text = f"the arm was held for {hold_timeout:g} s: {cause.text}"
            self.finish(Cause(cause.code or PlannerCode.GATE_HOLDING, text), distance)

    def publish_feedback(self, distance: float, predicted: float, plan_id: int) -> None:
        """Publish the action's feedback for a plan."""
        message = ReachGoal.Feedback(elapsed=self.elapsed, plan_id=plan_id)
        message.distance, message.predicted_distance = distance, predicted
        message.stage, message.stages = self._passed, self._passed + len(self.stages)
        if not self.ended:
            self._handle.publish_feedback(message)

    def close(self) -> ReachGoal.Result:
        """Set the action's final state and return its result. To be called once, at the end of the execute callback."""
        if self.cancelled:
            self._handle.canceled()
        elif self.reached:
            self._handle.succeed()
        else:
            self._handle.abort()
        code, reason = self.outcome
        result = ReachGoal.Result(reached=self.reached, code=code, reason=reason)
        result.final_distance = self._distance
        return result


def goal_frames(images: Sequence[Image], config: ModelConfig) -> np.ndarray:
    """Return goal images, one for each camera in the model's order, as `encode` takes them: (*frame_shape).

    Raises InputError where their number differs from the model's cameras or one cannot be decoded.
    """
    if len(images) != len(config.cameras):
        names = ", ".join(config.cameras)
        raise InputError(f"goal images: expected {len(config.cameras)} ({names}), found {len(images)}")
    try:
        views = [preprocess(decode_image(image), config.preprocessing.size) for image in images]
    except InputError as error:
        raise InputError(f"goal image: {error}") from None
    return np.stack(views).reshape(config.frame_shape)


def read_goals(request: ReachGoal.Goal, checkpoint: Checkpoint, maker: GoalMaker, base_frame: str) -> list[Goal]:
    """Return a request's sub-goals in order, then its goal. Encodes images: to be called in torch's thread.

    Raises InvalidGoal where a term does not fit the model or the robot.
    """
    from jepa_ros.planning.goal import Goal

    goals = []
    for terms in (*(sub.terms for sub in request.via), request.terms):
        read = tuple(_read_term(term, checkpoint, maker, base_frame) for term in terms)
        try:
            goals.append(Goal(read))
        except InputError as error:
            raise InvalidGoal(PlannerCode.GOAL_INVALID, str(error)) from None
    return goals


def _read_term(term: GoalTerm, checkpoint: Checkpoint, maker: GoalMaker, base_frame: str) -> Term:
    code = INVALID.get(term.kind)
    if code is None:
        text = f"goal kind: expected 0 (image) to 4 (object), found {term.kind}"
        raise InvalidGoal(PlannerCode.GOAL_KIND_UNKNOWN, text)
    try:
        return _make_term(term, checkpoint, maker, base_frame)
    except InputError as error:
        raise InvalidGoal(code, str(error)) from None


def _make_term(term: GoalTerm, checkpoint: Checkpoint, maker: GoalMaker, base_frame: str) -> Term:
    weight = term.weight if term.weight != 0.0 else 1.0
    if term.kind == GoalTerm.IMAGE:
        return maker.latent(_encode(term.images, checkpoint), term.tolerance, weight)
    if term.kind == GoalTerm.LATENT:
        return maker.latent(_read_latent(term, checkpoint), term.tolerance, weight)
    if term.kind == GoalTerm.JOINTS:
        return maker.posture(tuple(term.joints), np.array(term.positions), term.tolerance, weight)
    frame, p = term.pose.header.frame_id, term.pose.pose.position
    if frame not in ("", base_frame):
        raise InputError(f"goal pose: expected one in the frame '{base_frame}', found '{frame}'")
    position = np.array([p.x, p.y, p.z])
    if term.kind == GoalTerm.POSE:
        return maker.tool(position, term.tolerance, weight)
    return maker.object(term.object, position, term.tolerance, weight)


def _encode(images: Sequence[Image], checkpoint: Checkpoint) -> torch.Tensor:
    import torch

    frame = goal_frames(images, checkpoint.config)
    with torch.inference_mode():
        return checkpoint.model.encode(frame[None])[0]


def _read_latent(term: GoalTerm, checkpoint: Checkpoint) -> torch.Tensor:
    import torch

    if term.model_id != checkpoint.model_id:
        raise InputError(f"goal latent: expected model '{checkpoint.model_id}', found '{term.model_id}'")
    values, shape = np.array(term.latent, np.float32), checkpoint.config.latent_shape
    if len(values) != math.prod(shape) or not np.isfinite(values).all():
        raise InputError(f"goal latent: expected {math.prod(shape)} finite values, found {len(values)}")
    return torch.from_numpy(values).reshape(shape)
