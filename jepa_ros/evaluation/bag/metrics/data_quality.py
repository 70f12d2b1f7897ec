"""Whether a recording itself is sound: rates, gaps, jumps of time, frozen and broken frames, skew, missing fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jepa_ros.bags.frame_runs import GAP_PERIODS
from jepa_ros.bags.reader import Bag
from jepa_ros.evaluation.bag.reading.records import Recorded, View
from jepa_ros.evaluation.bag.reading.topics import Inputs
from jepa_ros.reporting.summary import percentiles
from jepa_ros.world_model.config import ModelConfig


def measure(source: Bag, inputs: Inputs, recorded: Recorded, config: ModelConfig) -> dict[str, Any]:
    """All of it, for summary.json."""
    begins = np.array(sorted(stamp for stamp, _ in recorded.episodes), np.int64)
    return {
        "seconds": recorded.seconds,
        "topics": {t.topic: {"type": t.msgtype, "messages": t.count} for t in source.topics},
        "cameras": [
            {"topic": name[0]} | _camera(view, begins) for name, view in zip(inputs.views, recorded.views, strict=True)
        ],
        "frames": len(recorded.frame_stamps),
        "frozen_frames": sum(recorded.frozen),
        "unmatched_frames": recorded.apart,
        "frames_without_finite_latent": recorded.not_finite,
        "joint_states": _series(recorded.states.stamps, begins),
        "executed": _series(recorded.actions.stamps, begins),
        "executed_turned_deg": recorded.turned,
        "episodes": len(recorded.episodes),
        "time_jumps_back": len(recorded.clock.jumps),
        "largest_jump_back_s": max(((a - b) * 1e-9 for a, b in recorded.clock.jumps), default=0.0),
        "stragglers": recorded.clock.stragglers,
        "camera_to_joint_states_ms": skew(recorded),
        "recorded_after_stamp_ms": {
            "camera": percentiles(_delays(recorded.frame_stamps, recorded.frame_recorded)),
            "joint_states": percentiles(_delays(recorded.states.stamps, recorded.joint_recorded)),
        },
        "unreadable": dict(sorted(recorded.unreadable.items())),
        "refused": dict(recorded.refused.most_common(8)),
        "missing": missing(inputs, recorded, config),
    }


def missing(inputs: Inputs, recorded: Recorded, config: ModelConfig) -> list[str]:
    """Fields and topics that something could not be judged without."""
    found = []
    if inputs.joint_states is not None and not recorded.states.stamps and recorded.refused:
        found.append("joint_states that the model can take")
    if inputs.executed is not None and not recorded.actions.stamps:
        found.append("executed actions in the model's action space")
    if recorded.urdf is None:
        found.append("robot_description")
    if not any(kind.endswith("CameraInfo") for _, kind in inputs.kept):
        found.append("camera_info")
    if not inputs.episodes:
        found.append("episode")
    for name, view in zip(inputs.views, recorded.views, strict=True):
        if view.without_stamp:
            found.append(f"stamps of {view.without_stamp} messages on {name[0]}")
        if view.stamps and not view.frame_id:
            found.append(f"frame_id on {name[0]}")
    return found


def _camera(view: View, begins: np.ndarray) -> dict[str, Any]:
    return _series(view.stamps, begins) | {
        "dropped": dict(sorted(view.dropped.items())),
        "first_problem": view.problem or None,
        "without_stamp": view.without_stamp,
    }


def _series(stamps: Sequence[int], begins: np.ndarray) -> dict[str, Any]:
    """Rate and gaps of messages by their stamps in ns; where an episode begins there is no gap."""
    times = np.array(stamps, np.int64)
    begun = np.searchsorted(begins, times, side="right")
    steps = np.diff(times) * 1e-9
    steps = steps[(np.diff(begun) == 0) | (steps <= 0)]
    onwards = steps[steps > 0]
    if not len(onwards):
        empty = dict.fromkeys(("rate_hz", "longest_gap_s", "jitter_p99_s"))
        return {"messages": len(stamps), "gaps": 0, "not_later": int((steps <= 0).sum())} | empty
    period = float(np.median(onwards))
    return {
        "messages": len(stamps),
        "rate_hz": 1.0 / period,
        "gaps": int((steps > GAP_PERIODS * period).sum()),
        "longest_gap_s": float(onwards.max()),
        "jitter_p99_s": float(np.percentile(np.abs(onwards - period), 99)),
        "not_later": int((steps <= 0).sum()),
    }


def skew(recorded: Recorded) -> dict[str, float | None]:
    """ms between a frame's stamp and the nearest joint state's."""
    times, wanted = np.sort(np.array(recorded.states.stamps, np.int64)), np.array(recorded.frame_stamps, np.int64)
    if not len(times):
        return percentiles([], (50, 99))
    after = np.clip(np.searchsorted(times, wanted), 0, len(times) - 1)
    before = np.maximum(after - 1, 0)
    apart = np.minimum(np.abs(times[after] - wanted), np.abs(wanted - times[before]))
    return percentiles(apart * 1e-6, (50, 99), {"max": np.max})


def _delays(stamps: Sequence[int], recorded: Sequence[int]) -> np.ndarray:
    return (np.array(recorded, np.int64) - np.array(stamps, np.int64)) * 1e-6
