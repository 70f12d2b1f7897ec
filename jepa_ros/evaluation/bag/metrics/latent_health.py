"""Health of a recording's latents: rank, dead dimensions, drift, distance to the training data."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from jepa_ros.evaluation.bag.reading.recording import EvaluationSpec, Recording
from jepa_ros.evaluation.bag.reading.situations import Situations, evenly_spread, normalise
from jepa_ros.evaluation.model_health import describe_collapse, measure_latents

DRIFT_PARTS = 10
"""Equal parts of a recording between which drift is measured."""
MAX_FRAMES = 8192
"""Frames that rank, spread and drift are measured on, evenly spread over the recording."""
FAR_STATE_STD = 4.0
"""Standard deviations from the training data's mean beyond which a state is out of the training data."""
LATENT_KEYS = ("dimensions", "effective_rank", "dead_dimensions", "spread", "collapse", "drift", "drift_max")


def compute(recording: Recording, situations: Situations) -> dict[str, Any]:
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


def summarize(samples: dict[str, Any], spec: EvaluationSpec) -> dict[str, Any]:
    """Return the figures of the latents."""
    latents, known = samples["latents"], samples["distances"][np.isfinite(samples["distances"])]
    states = samples["states"][np.isfinite(samples["states"]).all(axis=1)]
    far = float((np.abs(states) > FAR_STATE_STD).any(axis=1).mean()) if states.size else None
    found = {"frames": len(samples["distances"]), **dict.fromkeys(LATENT_KEYS)}
    if len(latents) > 1:
        health, shift = measure_latents(latents), measure_drift(samples)["shift"]
        found |= {
            "dimensions": latents.shape[1],
            "effective_rank": _finite(health["effective_rank"]),
            "dead_dimensions": _finite(health["dead_dimensions"]),
            "spread": _finite(health["spread"]),
            "collapse": describe_collapse(health) or None,
            "drift": shift[-1],
            "drift_max": max(shift),
        }
    return found | {
        "training_distance_mean": float(known.mean()) if len(known) else None,
        "training_distance_p95": float(np.percentile(known, 95)) if len(known) else None,
        "states_out_of_training": far,
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


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
