"""One goal of the action reach_goal, from acceptance to result, and what its request asks for."""

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
from jepa_ros.nodes.common.convert import picture
from jepa_ros.world_model.config import ModelConfig

if TYPE_CHECKING:  # torch is loaded when there is something to encode
    import torch

    from jepa_ros.planning.goal import Goal, GoalMaker, Term
    from jepa_ros.world_model.checkpoint import Checkpoint


class ActiveGoal:
    """Finished from any thread, once; closed in the executor's. ready: what it asks for is known and plans may be made.
    stages: the goals that are left, the one under way first."""

    def __init__(self, handle, executor, timeout: float):
        self.request = handle.request
        self.id = bytes(handle.goal_id.uuid).hex()
        self.done = Future(executor=executor)
        self.ready = self.ended = self.reached = self.cancelled = False
        self.reason, self.distance = "", math.nan
        self.stages: list[Goal] = []
        self._passed = 0
        self._handle, self._lock, self._begin = handle, threading.Lock(), time.monotonic()
        self._timeout = self.request.timeout if self.request.timeout > 0 else timeout

    @property
    def elapsed(self) -> float:
        """s since the goal was accepted."""
        return time.monotonic() - self._begin

    def forget_images(self) -> None:
        """What was asked for is known: rclpy would keep the request, megabytes of it, as long as the result."""
        empty = ReachGoal.Goal()
        for name in ("image", "more_images", "terms", "via"):
            setattr(self.request, name, getattr(empty, name))

    def finish(self, reached: bool, reason: str, distance: float) -> None:
        """The goal ends; what is said first counts."""
        with self._lock:
            if self.ended:
                return
            self.ended, self.reached, self.reason, self.distance = True, reached, reason, distance
        self.done.set_result(None)

    def next_stage(self) -> Goal:
        """The sub-goal under way has been passed; what comes after it."""
        self.stages.pop(0)
        self._passed += 1
        return self.stages[0]

    def check(self, held: float, why: str, hold_abort: float, distance: float) -> None:
        """End it where it was cancelled, ran out of time, or the arm has been held for too long (s), and why."""
        if self._handle.is_cancel_requested:
            self.cancelled = True
            self.finish(False, "cancelled", distance)
        elif self.elapsed > self._timeout:
            self.finish(False, f"not reached within {self._timeout:g} s", distance)
        elif held > hold_abort:
            self.finish(False, f"the arm was held for {hold_abort:g} s: {why}", distance)

    def feedback(self, distance: float, predicted: float, plan_id: int) -> None:
        """Publish feedback."""
        message = ReachGoal.Feedback(elapsed=self.elapsed, plan_id=plan_id)
        message.distance, message.predicted_distance = distance, predicted
        message.stage, message.stages = self._passed, self._passed + len(self.stages)
        if not self.ended:
            self._handle.publish_feedback(message)

    def close(self) -> ReachGoal.Result:
        """Tell the client; to be called once, at the end of the execute callback."""
        if self.cancelled:
            self._handle.canceled()
        elif self.reached:
            self._handle.succeed()
        else:
            self._handle.abort()
        result = ReachGoal.Result(reached=self.reached, reason=self.reason)
        result.final_distance = self.distance
        return result


def goal_frames(images: Sequence[Image], config: ModelConfig) -> np.ndarray:
    """What goal images, one a camera in the model's order, are to `encode`: (*frame_shape).

    Raises InputError where their number is another or one cannot be used.
    """
    if len(images) != len(config.cameras):
        names = ", ".join(config.cameras)
        raise InputError(f"goal images: expected {len(config.cameras)} ({names}), found {len(images)}")
    try:
        views = [preprocess(picture(image), config.preprocessing.size) for image in images]
    except InputError as error:
        raise InputError(f"goal image: {error}") from None
    return np.stack(views).reshape(config.frame_shape)


def read_goals(request: ReachGoal.Goal, checkpoint: Checkpoint, maker: GoalMaker, base_frame: str) -> list[Goal]:
    """What a request asks for: its sub-goals in order, then itself. Encodes images: to be called where torch is.

    Raises InputError where something does not fit the model or the robot.
    """
    last = [] if request.kind == ReachGoal.Goal.TERMS else [_first_term(request)]
    asked = [list(sub.terms) for sub in request.via] + [[*last, *request.terms]]
    from jepa_ros.planning.goal import Goal

    return [Goal(tuple(_term(term, checkpoint, maker, base_frame) for term in terms)) for terms in asked]


def _first_term(request: ReachGoal.Goal) -> GoalTerm:
    """The term that the request's own fields describe."""
    term = GoalTerm(kind=request.kind, tolerance=request.tolerance, model_id=request.model_id, pose=request.pose)
    term.latent, term.images = request.latent, [request.image, *request.more_images]
    return term


def _term(asked: GoalTerm, checkpoint: Checkpoint, maker: GoalMaker, base_frame: str) -> Term:
    weight = asked.weight if asked.weight != 0.0 else 1.0
    if asked.kind == GoalTerm.IMAGE:
        return maker.latent(_encoded(asked.images, checkpoint), asked.tolerance, weight)
    if asked.kind == GoalTerm.LATENT:
        return maker.latent(_latent(asked, checkpoint), asked.tolerance, weight)
    if asked.kind == GoalTerm.JOINTS:
        return maker.posture(tuple(asked.joints), np.array(asked.positions), asked.tolerance, weight)
    if asked.kind not in (GoalTerm.POSE, GoalTerm.OBJECT):
        raise InputError(f"goal kind: expected 0 (image) to 4 (object), found {asked.kind}")
    frame, p = asked.pose.header.frame_id, asked.pose.pose.position
    if frame not in ("", base_frame):
        raise InputError(f"goal pose: expected one in the frame '{base_frame}', found '{frame}'")
    place = np.array([p.x, p.y, p.z])
    if asked.kind == GoalTerm.POSE:
        return maker.tool(place, asked.tolerance, weight)
    return maker.object(asked.object, place, asked.tolerance, weight)


def _encoded(images: Sequence[Image], checkpoint: Checkpoint) -> torch.Tensor:
    import torch

    frame = goal_frames(images, checkpoint.config)
    with torch.inference_mode():
        return checkpoint.model.encode(frame[None])[0]


def _latent(asked: GoalTerm, checkpoint: Checkpoint) -> torch.Tensor:
    import torch

    if asked.model_id != checkpoint.model_id:
        raise InputError(f"goal latent: expected model '{checkpoint.model_id}', found '{asked.model_id}'")
    values, shape = np.array(asked.latent, np.float32), checkpoint.config.latent_shape
    if len(values) != math.prod(shape) or not np.isfinite(values).all():
        raise InputError(f"goal latent: expected {math.prod(shape)} finite values, found {len(values)}")
    return torch.from_numpy(values).reshape(shape)
