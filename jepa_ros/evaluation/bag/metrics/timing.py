"""How long the live graph would take here: decoding, encoding, planning, and whether its deadlines would be met."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch

from jepa_ros.bags.reader import Bag
from jepa_ros.bags.typestore import typestore
from jepa_ros.evaluation.bag.reading.pictures import picture
from jepa_ros.evaluation.bag.reading.records import Recorded
from jepa_ros.evaluation.bag.reading.topics import Name
from jepa_ros.images import preprocess
from jepa_ros.reporting.summary import percentiles
from jepa_ros.world_model.checkpoint import Checkpoint

DEADLINE = 0.2
"""s from a frame's stamp to its plan at the gate: the planner node's default."""
REPEATS = 100


@dataclass
class Live:
    """ms that single pictures take as the camera and world_model nodes treat them, with nothing beside them."""

    decode: list[float] = field(default_factory=list)
    encode: list[float] = field(default_factory=list)

    @torch.inference_mode()
    def add(self, source: Bag, views: list[Name], checkpoint: Checkpoint) -> None:
        """Take the first REPEATS pictures of a bag's first camera."""
        config, frame = checkpoint.config, None
        for message in islice(source.messages(views[:1]), REPEATS):
            try:
                read = typestore().deserialize_cdr(message.data, message.msgtype)
                begin = time.perf_counter()
                frame = preprocess(picture(read), config.preprocessing.size)
            except Exception:  # broken ones are counted elsewhere
                continue
            self.decode.append(1e3 * (time.perf_counter() - begin))
            shown = np.broadcast_to(frame, config.frame_shape).copy()[None]
            begin = time.perf_counter()
            checkpoint.model.encode(shown)
            self.encode.append(1e3 * (time.perf_counter() - begin))


def measure(recorded: list[Recorded], plan_ms: list[float], live: Live, wall_s: float) -> dict[str, Any]:
    """All that differs from run to run."""
    seconds = sum(r.seconds for r in recorded)
    cameras = [len(r.views) for r in recorded if r.views]
    decode, encode = live.decode, live.encode
    periods = [np.diff(r.frame_stamps) for r in recorded if len(r.frame_stamps) > 1]
    steps = np.concatenate(periods) * 1e-6 if periods else np.zeros(0)
    period = float(np.median(steps[steps > 0])) if (steps > 0).any() else None
    seen = percentiles(decode)["p99"], percentiles(encode)["p99"]
    see_ms = None if None in seen else seen[0] * max(cameras) + seen[1]
    late = [see_ms is not None and see_ms + ms > 1e3 * DEADLINE for ms in plan_ms]
    return {
        "seconds_of_recording": seconds,
        "times_real_time": seconds / max(wall_s, 1e-9),
        "decode_ms": percentiles(decode),
        "encode_ms": percentiles(encode),
        "plan_ms": percentiles(plan_ms),
        "camera_period_ms": period,
        "keeps_up_with_camera": None if see_ms is None or period is None else bool(see_ms < period),
        "deadline_ms": 1e3 * DEADLINE,
        "deadline_misses": int(sum(late)) if plan_ms else None,
    }
