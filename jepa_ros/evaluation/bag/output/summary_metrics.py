"""The figures of one bag or of several together, and the flat list of those that thresholds are set on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from jepa_ros.evaluation.bag.metrics import latent_health as health
from jepa_ros.evaluation.bag.metrics import planner_agreement as plans
from jepa_ros.evaluation.bag.metrics import prediction, surprise
from jepa_ros.evaluation.bag.metrics import probes as probing
from jepa_ros.evaluation.bag.metrics.bag_results import Judged, Task

TIMING = ("times_real_time", "deadline_misses", "decode_ms_p99", "encode_ms_p99", "plan_ms_p99")
"""Figures that thresholds may be set on and that differ from run to run."""


def figures(judged: Sequence[Judged], task: Task) -> dict[str, Any]:
    """Of these bags, as one."""
    errors = _joined([j.errors for j in judged])
    names = {name for j in judged for name in j.probes}
    probes = {n: np.concatenate([j.probes[n] for j in judged if n in j.probes]) for n in names}
    truths = {n: np.concatenate([j.truths[n] for j in judged if n in j.probes]) for n in names}
    states = np.concatenate([j.states for j in judged])
    share = health.states_out_of_training(states[np.isfinite(states).all(axis=1)]) if states.shape[1] else None
    readings = {k: r for k, r in enumerate(r for j in judged for r in j.readings.values())}
    found = {
        "prediction": prediction.measure(errors),
        "latents": health.measure(health.join([j.sample for j in judged]), share),
        "probes": probing.measure(probes, truths, task.checkpoint),
        "surprise": surprise.measure(readings, [e for j in judged for e in j.events]),
        "planner": plans.measure([a for j in judged for a in j.plans]),
    }
    last = found["prediction"]["horizons"][-1]
    return found | score(
        last["prediction_ratio"], found["probes"]["tool"]["error_p50_m"], found["planner"]["gap_ratio"]
    )


def _joined(errors: Sequence[prediction.Errors]) -> prediction.Errors:
    return prediction.Errors(*(np.concatenate([getattr(e, f.name) for e in errors]) for f in fields(prediction.Errors)))


def flat(found: dict[str, Any], judged: Sequence[Judged]) -> dict[str, float | None]:
    """Names and values for --fail-if."""
    metrics: dict[str, float | None] = {}
    for entry in found["prediction"]["horizons"]:
        for name in ("prediction_ratio", "shuffled_ratio", "joints_rms_rad"):
            metrics[f"{name}@{entry['steps']}"] = entry[name]
    latents, tool, joints = found["latents"], found["probes"]["tool"], found["probes"]["joints"]
    metrics |= {k: latents[k] for k in ("effective_rank", "dead_dimensions", "drift", "drift_max")}
    metrics |= {k: latents[k] for k in ("training_distance_mean", "training_distance_p95", "states_out_of_training")}
    metrics |= {f"probe_tool_{k}_m": tool[f"{s}_m"] for k, s in PROBED}
    metrics |= {f"probe_joints_{k}_rad": joints[f"{s}_rad"] for k, s in PROBED}
    metrics |= {f"surprise_{k}": found["surprise"][k] for k in ("error_p50", "error_p95", "rate", "events")}
    metrics |= {f"plan_{k}": found["planner"][k] for k in ("states", "without_plan", "limit_violations", *plans.KEYS)}
    metrics["score"] = found["score"]
    return metrics | _sound(judged)


PROBED = (("p50", "error_p50"), ("p95", "error_p95"), ("rms", "rms"))


def _sound(judged: Sequence[Judged]) -> dict[str, float | None]:
    """Sums of what was wrong with the recordings."""
    found = [j.quality for j in judged]
    cameras = [camera for q in found for camera in q["cameras"]]
    return {
        "frames": sum(q["frames"] for q in found),
        "frozen_frames": sum(q["frozen_frames"] for q in found),
        "dropped_frames": sum(sum(c["dropped"].values()) for c in cameras),
        "camera_gaps": sum(c["gaps"] for c in cameras),
        "time_jumps_back": sum(q["time_jumps_back"] for q in found),
        "unreadable_messages": sum(sum(q["unreadable"].values()) for q in found),
    }


def timed(timing: dict[str, Any]) -> dict[str, float | None]:
    """Those of TIMING."""
    taken = {f"{k}_p99": timing[k]["p99"] for k in ("decode_ms", "encode_ms", "plan_ms")}
    return {k: timing[k] for k in ("times_real_time", "deadline_misses")} | taken


def names(horizon: int) -> list[str]:
    """Of all figures that thresholds may be set on."""
    steps = [
        f"{name}@{k + 1}" for name in ("prediction_ratio", "shuffled_ratio", "joints_rms_rad") for k in range(horizon)
    ]
    latents = [*("effective_rank", "dead_dimensions", "drift", "drift_max")]
    latents += ["training_distance_mean", "training_distance_p95", "states_out_of_training"]
    probes = [f"probe_{name}_{k}_{unit}" for name, unit in (("tool", "m"), ("joints", "rad")) for k, _ in PROBED]
    surprised = [f"surprise_{k}" for k in ("error_p50", "error_p95", "rate", "events")]
    planned = [f"plan_{k}" for k in ("states", "without_plan", "limit_violations", *plans.KEYS)]
    return [*steps, *latents, *probes, *surprised, *planned, "score", *_sound([]), *TIMING]


SIGHT = 0.01
"""m of probe error that halves the part for seeing."""


def score(prediction_ratio: float | None, probe_error: float | None, gap_ratio: float | None) -> dict[str, Any]:
    """The geometric mean of three parts, each 1 at best and towards 0 the worse it is; None where one is unknown.

    prediction = 1 / (1 + √prediction_ratio at the horizon's end), the root to make it a ratio of lengths as the others
    are; sight = 1 / (1 + median error of the tool's probe / SIGHT); planning = 1 / (1 + gap_ratio). None of them
    saturates, so that better is always more; as they are multiplied, a model that fails at one is no good.
    """
    given = {"planning": gap_ratio}
    given["prediction"] = None if prediction_ratio is None else math.sqrt(max(prediction_ratio, 0.0))
    given["sight"] = None if probe_error is None else probe_error / SIGHT
    parts = {name: None if value is None else 1.0 / (1.0 + max(value, 0.0)) for name, value in given.items()}
    known = [value for value in parts.values() if value is not None]
    return {"score": math.prod(known) ** (1 / 3) if len(known) == 3 else None, "parts": parts}
