"""Time that the live graph would take on this machine: decoding, encoding, planning; and its missed deadlines."""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

import numpy as np
import torch

from jepa_ros.bags.cameras import decode_image
from jepa_ros.evaluation.bag.metrics.planner_agreement import time_plans
from jepa_ros.evaluation.bag.reading.recording import EvaluationSpec, Recording
from jepa_ros.evaluation.bag.reading.situations import Situations
from jepa_ros.images import preprocess
from jepa_ros.reporting.summary import percentiles

DEADLINE_S = 0.2
"""From a frame's stamp to its plan at the gate: the planner node's default."""
TIMED_IMAGES = 100


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
        "plan_ms": time_plans(situations),
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
