"""Quality of the recorded data: rates, gaps, jumps of time, frozen and broken frames, skew, missing fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jepa_ros.bags.cameras import GAP_PERIODS
from jepa_ros.evaluation.bag.reading.recording import EvaluationSpec, Recording
from jepa_ros.evaluation.bag.reading.situations import Situations
from jepa_ros.reporting.summary import percentiles

QUALITY_KEYS = ("frames", "frozen_frames", "dropped_frames", "camera_gaps", "time_jumps_back", "unreadable_messages")


def compute_quality(recording: Recording, situations: Situations) -> dict[str, list[dict[str, Any]]]:
    """Return everything about the recording as the one entry of `recordings`, for summary.json."""
    begins = np.array(sorted(stamp for stamp, _ in recording.episodes), np.int64)
    clock, states, actions = recording.clock, recording.states, recording.actions
    found = {
        "seconds": recording.seconds,
        "topics": {t.topic: {"type": t.msgtype, "messages": t.count} for t in recording.source.topics},
        "cameras": [
            {"topic": key[0]}
            | _describe_series(camera.stamps, begins)
            | {"dropped": dict(sorted(camera.dropped.items())), "first_problem": camera.problem or None}
            | {"without_stamp": camera.without_stamp}
            for key, camera in zip(recording.topics.cameras, recording.cameras, strict=True)
        ],
        "frames": len(recording.frame_stamps),
        "frozen_frames": sum(recording.frozen),
        "unmatched_frames": recording.unmatched,
        "frames_without_finite_latent": recording.not_finite,
        "joint_states": _describe_series(states.stamps, begins),
        "executed": _describe_series(actions.stamps, begins),
        "executed_turned_deg": recording.turned_deg,
        "episodes": len(recording.episodes),
        "time_jumps_back": len(clock.jumps),
        "largest_jump_back_s": max(((a - b) * 1e-9 for a, b in clock.jumps), default=0.0),
        "stragglers": clock.stragglers,
        "camera_to_joint_states_ms": measure_skew(recording),
        "recorded_after_stamp_ms": {
            "camera": _delay_ms(recording.frame_stamps, recording.frame_recorded),
            "joint_states": _delay_ms(states.stamps, recording.joint_recorded),
        },
        "unreadable": dict(sorted(recording.unreadable.items())),
        "refused": dict(recording.refused.most_common(8)),
        "missing": find_missing(recording),
    }
    return {"recordings": [found]}


def summarize_quality(samples: dict[str, list[dict[str, Any]]], spec: EvaluationSpec) -> dict[str, int]:
    """Return the sums of what was wrong with the recordings."""
    recordings = samples["recordings"]
    cameras = [camera for found in recordings for camera in found["cameras"]]
    counts = (
        sum(found["frames"] for found in recordings),
        sum(found["frozen_frames"] for found in recordings),
        sum(sum(camera["dropped"].values()) for camera in cameras),
        sum(camera["gaps"] for camera in cameras),
        sum(found["time_jumps_back"] for found in recordings),
        sum(sum(found["unreadable"].values()) for found in recordings),
    )
    return dict(zip(QUALITY_KEYS, counts, strict=True))


def find_missing(recording: Recording) -> list[str]:
    """Return the fields and topics whose absence prevents a part of the evaluation."""
    found, topics = [], recording.topics
    if topics.joint_states is not None and not recording.states.stamps and recording.refused:
        found.append("joint_states that fit the model")
    if topics.executed is not None and not recording.actions.stamps:
        found.append("executed actions in the model's action space")
    if recording.urdf is None:
        found.append("robot_description")
    if not any(kind.endswith("CameraInfo") for _, kind in topics.copied):
        found.append("camera_info")
    if not topics.episodes:
        found.append("episode")
    for (topic, _), camera in zip(topics.cameras, recording.cameras, strict=True):
        if camera.without_stamp:
            found.append(f"stamps of {camera.without_stamp} messages on {topic}")
        if camera.stamps and not camera.frame_id:
            found.append(f"frame_id on {topic}")
    return found


def _describe_series(stamps: Sequence[int], begins: np.ndarray) -> dict[str, Any]:
    """Return rate and gaps of messages by their stamps in ns; a pause before an episode is not a gap. not_later: number
    of messages whose stamp is not later than the one before."""
    times = np.array(stamps, np.int64)
    begun = np.searchsorted(begins, times, side="right")
    steps = np.diff(times) * 1e-9
    steps = steps[(np.diff(begun) == 0) | (steps <= 0)]
    onwards = steps[steps > 0]
    period = float(np.median(onwards)) if len(onwards) else np.inf
    return {
        "messages": len(stamps),
        "rate_hz": 1.0 / period if len(onwards) else None,
        "gaps": int((steps > GAP_PERIODS * period).sum()),
        "longest_gap_s": max(onwards, default=None),
        "jitter_p99_s": percentiles(np.abs(onwards - period), (99,))["p99"],
        "not_later": int((steps <= 0).sum()),
    }


def measure_skew(recording: Recording) -> dict[str, float | None]:
    """Return percentiles of the ms between a frame's stamp and that of the nearest joint state."""
    times, wanted = np.sort(np.array(recording.states.stamps, np.int64)), np.array(recording.frame_stamps, np.int64)
    if not len(times):
        return percentiles([], (50, 99))
    after = np.clip(np.searchsorted(times, wanted), 0, len(times) - 1)
    before = np.maximum(after - 1, 0)
    apart = np.minimum(np.abs(times[after] - wanted), np.abs(wanted - times[before]))
    return percentiles(apart * 1e-6, (50, 99), {"max": np.max})


def _delay_ms(stamps: Sequence[int], recorded: Sequence[int]) -> dict[str, float | None]:
    return percentiles((np.array(recorded, np.int64) - np.array(stamps, np.int64)) * 1e-6)
