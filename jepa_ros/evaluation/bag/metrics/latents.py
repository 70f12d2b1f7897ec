"""Health of a recording's latents (rank, dead dimensions, drift, distance to the training data), and errors of probes.

Probes are part of the checkpoint and were fitted on the training data; nothing is fitted on the evaluated bag.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from jepa_ros.evaluation.bag.reading.recording import EvaluationSpec, Recording
from jepa_ros.evaluation.bag.reading.situations import Situations, evenly_spread, normalise
from jepa_ros.evaluation.model_health import describe_collapse, measure_latents
from jepa_ros.reporting.summary import finite_or_none, percentiles
from jepa_ros.robot.motion.angles import nearest_turn
from jepa_ros.world_model.heads import JOINTS

DRIFT_PARTS = 10
"""Equal parts of a recording between which drift is measured."""
MAX_FRAMES = 8192
"""Frames that rank, spread and drift are measured on, evenly spread over the recording."""
FAR_STATE_STD = 4.0
"""Standard deviations from the training data's mean beyond which a state is out of the training data."""
LATENT_KEYS = ("dimensions", "effective_rank", "dead_dimensions", "spread", "collapse", "drift", "drift_max")
TOOL = "tool"
UNITS = {TOOL: "m", JOINTS: "rad"}


def compute_latents(recording: Recording, situations: Situations) -> dict[str, Any]:
    """Return `latents` (m, D) of evenly spread frames, patch tokens averaged, and their `distance` (m,) from the
    training data; of all frames `distances` (n,) and normalised `states` (n, P). NaN where unknown."""
    rows = evenly_spread(np.arange(len(recording.latents)), MAX_FRAMES)
    parts = []
    for begin in range(0, max(len(rows), 1), 256):  # whole latents may be large
        latents = recording.latents.rows(rows[begin : begin + 256])
        parts.append(latents.mean(1) if latents.ndim > 2 else latents)
    distances = np.array(recording.training_distance, float)
    states = normalise(situations.frame_states, situations.spec.config)
    return {"latents": torch.cat(parts), "distance": distances[rows], "distances": distances, "states": states}


def summarize_latents(samples: dict[str, Any], spec: EvaluationSpec) -> dict[str, Any]:
    """Return the figures of the latents."""
    latents, found = samples["latents"], dict.fromkeys(LATENT_KEYS)
    if len(latents) > 1:
        health, shift = measure_latents(latents), measure_drift(samples)["shift"]
        found = {
            "dimensions": latents.shape[1],
            **{name: finite_or_none(health[name]) for name in ("effective_rank", "dead_dimensions", "spread")},
            "collapse": describe_collapse(health) or None,
            "drift": shift[-1],
            "drift_max": max(shift),
        }
    distance = percentiles(samples["distances"], (95,), {"mean": np.mean})
    states = samples["states"][np.isfinite(samples["states"]).all(axis=1)]
    return {
        "frames": len(samples["distances"]),
        **found,
        "training_distance_mean": distance["mean"],
        "training_distance_p95": distance["p95"],
        "states_out_of_training": float((np.abs(states) > FAR_STATE_STD).any(1).mean()) if states.size else None,
    }


def measure_drift(samples: dict[str, Any]) -> dict[str, list[float]]:
    """Return by part of the recording: `shift`, the squared distance of the mean latent from the first part's over the
    variance (both averaged over dimensions), and `distance`, the mean distance from the training data."""
    latents, distance = samples["latents"].double(), samples["distance"]
    parts = [part for part in np.array_split(np.arange(len(latents)), DRIFT_PARTS) if len(part)]
    if not parts:
        return {"shift": [], "distance": []}
    variance = max(float(latents.var(0, unbiased=False).mean()), 1e-30)
    means = torch.stack([latents[part].mean(0) for part in parts])
    shift = ((means - means[0]).square().mean(1) / variance).tolist()
    known = np.isfinite(distance).all()
    return {"shift": shift, "distance": [float(distance[part].mean()) for part in parts] if known else []}


def compute_probes(recording: Recording, situations: Situations) -> dict[str, np.ndarray]:
    """Return for each probe of the model the error (n,) of every frame and the true value (n, d), NaN where unknown.

    tool_error: distance in m; tool_truth (n, 3): position in the base frame in m. joints_error: root mean square in
    rad; joints_truth (n, J): positions in rad.
    """
    spec, found = situations.spec, {}
    truths = {JOINTS: situations.frame_states[:, : len(spec.config.proprioception.joints)]}
    if TOOL in spec.checkpoint.probes and (tool := situations.tool_positions()) is not None:
        truths[TOOL] = tool
    for name, truth in truths.items():
        found |= read_probe(spec, recording, name, truth, situations.continuous)
    return found


@torch.inference_mode()
def read_probe(
    spec: EvaluationSpec, recording: Recording, name: str, truth: np.ndarray, continuous: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return error and truth of one probe as `compute_probes` does; nothing where the model has no such probe.

    continuous: (J,) bool, joints whose error is the shorter way round.
    """
    probe = spec.checkpoint.probes.get(name)
    if probe is None or truth.shape[1] < probe.dimension:
        return {}
    rows = [np.arange(begin, min(begin + 256, len(truth))) for begin in range(0, len(truth), 256)]
    read = [probe.read(recording.latents.rows(some)).numpy() for some in rows]
    truth = truth[:, : probe.dimension]
    error = (np.concatenate(read) if read else 0.0) - truth
    if name == JOINTS and continuous is not None:
        error = nearest_turn(error, np.zeros(probe.dimension), continuous[: probe.dimension])
    return {f"{name}_error": np.sqrt(_squares(name, error)), f"{name}_truth": truth}


def summarize_probes(samples: dict[str, np.ndarray], spec: EvaluationSpec) -> dict[str, Any]:
    """Return the figures of each probe; `spread` is the error of always predicting the mean."""
    result: dict[str, Any] = {}
    for name, unit in UNITS.items():
        error = samples.get(f"{name}_error", np.zeros(0))
        good = np.isfinite(error)
        entry = dict.fromkeys((f"error_p50_{unit}", f"error_p95_{unit}", f"rms_{unit}", f"spread_{unit}"))
        if good.any():
            truth, error = samples[f"{name}_truth"][good], error[good]
            spread = _squares(name, truth - truth.mean(0)).mean()
            values = (np.median(error), np.percentile(error, 95), np.sqrt(np.square(error).mean()), np.sqrt(spread))
            entry = dict(zip(entry, map(float, values), strict=True))
        probe = spec.checkpoint.probes.get(name)
        trained = None if probe is None else probe.error
        result[name] = {"frames": int(good.sum()), **entry, f"on_test_data_{unit}": trained}
    return result


def _squares(name: str, difference: np.ndarray) -> np.ndarray:
    """Return the squared lengths (n,) of differences (n, d): their sum for the tool, their mean for joints."""
    squares = np.square(difference)
    return squares.sum(1) if name == TOOL else squares.mean(1)
