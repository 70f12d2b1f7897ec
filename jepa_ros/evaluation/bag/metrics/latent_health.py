"""Whether the latents of a recording are healthy: rank, dead dimensions, drift, distance to the training data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from jepa_ros.evaluation.bag.reading.records import Recorded
from jepa_ros.evaluation.model_health import collapse, latent_health

PARTS = 10
"""Equal parts of a recording that drift is looked for between."""
MOST = 8192
"""Frames that the figures are of, evenly spread: rank and spread need no more."""


@dataclass(frozen=True)
class Sample:
    """Frames evenly spread over a recording: their latents (n, D), patch tokens averaged; the distances (n,) of these
    frames from the training data and of all frames (N,), NaN where unknown."""

    latents: torch.Tensor
    distance: np.ndarray
    distances: np.ndarray


def sample(recorded: Recorded) -> Sample:
    """Of a recording; at most MOST frames."""
    count, parts = len(recorded.latents), []
    rows = np.unique(np.linspace(0, count - 1, min(count, MOST)).round().astype(int)) if count else np.zeros(0, int)
    for begin in range(0, len(rows), 256):  # whole latents may be large
        latents = recorded.latents.rows(rows[begin : begin + 256])
        parts.append(latents.mean(1) if latents.ndim > 2 else latents)
    distances = np.array(recorded.from_training, float)
    return Sample(torch.cat(parts) if parts else torch.zeros(0, 1), distances[rows], distances)


def join(samples: list[Sample]) -> Sample:
    """Several recordings as one."""
    some = [s for s in samples if len(s.latents)] or samples[:1]
    latents = torch.cat([s.latents for s in some])
    return Sample(latents, *(np.concatenate([getattr(s, k) for s in some]) for k in ("distance", "distances")))


def measure(found: Sample, state_share: float | None) -> dict[str, Any]:
    """Figures. state_share: of frames whose state is far from training."""
    latents, known = found.latents, found.distances[np.isfinite(found.distances)]
    far = {
        "training_distance_mean": float(known.mean()) if len(known) else None,
        "training_distance_p95": float(np.percentile(known, 95)) if len(known) else None,
        "states_out_of_training": state_share,
    }
    if len(latents) < 2:
        return {"frames": len(found.distances), **dict.fromkeys(KEYS), **far}
    health = latent_health(latents)
    shift = along(found)["shift"]
    return {
        "frames": len(found.distances),
        "dimensions": latents.shape[1],
        "effective_rank": _finite(health["effective_rank"]),
        "dead_dimensions": _finite(health["dead_dimensions"]),
        "spread": _finite(health["spread"]),
        "collapse": collapse(health) or None,
        "drift": shift[-1],
        "drift_max": max(shift),
    } | far


def along(found: Sample) -> dict[str, list[float]]:
    """By part of the recording: how far the mean latent has moved from the first part's, over the variance (mean over
    the dimensions of both), and the mean distance from the training data."""
    latents = found.latents.double()
    parts = [part for part in np.array_split(np.arange(len(latents)), PARTS) if len(part)]
    if not parts:
        return {"shift": [], "distance": []}
    variance = max(float(latents.var(0, unbiased=False).mean()), 1e-30)
    means = torch.stack([latents[part].mean(0) for part in parts])
    shift = ((means - means[0]).square().mean(1) / variance).tolist()
    known = np.isfinite(found.distance).all()
    return {"shift": shift, "distance": [float(found.distance[part].mean()) for part in parts] if known else []}


KEYS = ("dimensions", "effective_rank", "dead_dimensions", "spread", "collapse", "drift", "drift_max")


def states_out_of_training(states: np.ndarray) -> float | None:
    """Share of normalised states (n, P) of which some field is further than 4 standard deviations from its mean over
    the training data; None where there are none."""
    return float((np.abs(states) > 4.0).any(axis=1).mean()) if states.size else None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
