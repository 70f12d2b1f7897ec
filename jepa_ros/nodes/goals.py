"""One goal of the action reach_goal, from acceptance to result."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence

import numpy as np
from jepa_msgs.action import ReachGoal
from rclpy.task import Future
from sensor_msgs.msg import Image

from jepa_ros.errors import InputError
from jepa_ros.images import preprocess
from jepa_ros.nodes.convert import picture
from jepa_ros.world_model.config import ModelConfig


class ActiveGoal:
    """Finished from any thread, once; closed in the executor's. ready: its latent is known and plans may be made."""

    def __init__(self, handle, executor, timeout: float):
        self.request = handle.request
        self.id = bytes(handle.goal_id.uuid).hex()
        self.done = Future(executor=executor)
        self.ready = self.ended = self.reached = self.cancelled = False
        self.reason, self.distance = "", math.nan
        self._handle, self._lock, self._begin = handle, threading.Lock(), time.monotonic()
        self._timeout = self.request.timeout if self.request.timeout > 0 else timeout

    @property
    def elapsed(self) -> float:
        """s since the goal was accepted."""
        return time.monotonic() - self._begin

    def finish(self, reached: bool, reason: str, distance: float) -> None:
        """The goal ends; what is said first counts."""
        with self._lock:
            if self.ended:
                return
            self.ended, self.reached, self.reason, self.distance = True, reached, reason, distance
        self.done.set_result(None)

    def check(self, held: float, hold_abort: float, distance: float) -> None:
        """End it where it was cancelled, ran out of time, or the arm was held for too long."""
        if self._handle.is_cancel_requested:
            self.cancelled = True
            self.finish(False, "cancelled", distance)
        elif self.elapsed > self._timeout:
            self.finish(False, f"not reached within {self._timeout:g} s", distance)
        elif held > hold_abort:
            self.finish(False, f"the gate held the arm for {hold_abort:g} s", distance)

    def feedback(self, distance: float, predicted: float, plan_id: int) -> None:
        """Publish feedback."""
        message = ReachGoal.Feedback(elapsed=self.elapsed, plan_id=plan_id)
        message.distance, message.predicted_distance = distance, predicted
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


def goal_latent(request: ReachGoal.Goal, checkpoint):
    """The latent (*L) that a goal asks for. Raises InputError where it does not fit the model."""
    import torch

    config = checkpoint.config
    if request.kind == ReachGoal.Goal.IMAGE:
        frame = goal_frames([request.image, *request.more_images], config)
        with torch.inference_mode():
            return checkpoint.model.encode(frame[None])[0]
    if request.kind != ReachGoal.Goal.LATENT:
        raise InputError(f"goal kind: expected 0 (image) or 1 (latent), found {request.kind}")
    if request.model_id != checkpoint.model_id:
        raise InputError(f"goal latent: expected model '{checkpoint.model_id}', found '{request.model_id}'")
    values = np.array(request.latent, np.float32)
    wanted = math.prod(config.latent_shape)
    if len(values) != wanted or not np.isfinite(values).all():
        raise InputError(f"goal latent: expected {wanted} finite values, found {len(values)}")
    return torch.from_numpy(values).reshape(config.latent_shape)
