"""Open-loop prediction error by horizon, beside "nothing changes" and the actions of another moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from jepa_ros.evaluation.bag.reading.records import Recorded
from jepa_ros.evaluation.bag.reading.situations import Windows
from jepa_ros.world_model.checkpoint import Checkpoint

BATCH = 256


@dataclass(frozen=True)
class Errors:
    """Mean squares over the latent, (N, H), NaN where unknown. model: of the roll-out with the executed actions.
    still: of the frame that it begins at. shuffled: of the roll-out with the actions of another frame, for frames of
    which the whole horizon is known. joints, joints_still (N, H): mean square over the joint positions in rad²."""

    model: np.ndarray
    still: np.ndarray
    shuffled: np.ndarray
    joints: np.ndarray
    joints_still: np.ndarray


@torch.inference_mode()
def predict(checkpoint: Checkpoint, recorded: Recorded, found: Windows, seed: int) -> Errors:
    """Errors of every situation. seed: of which frame's actions a frame is given."""
    shape = found.known.shape
    errors = Errors(*(np.full(shape, np.nan, np.float32) for _ in range(5)))
    order = np.flatnonzero(found.known.any(axis=1))
    whole = np.flatnonzero(found.known.all(axis=1)) if shape[1] else order[:0]
    other = np.full(len(found), -1)
    other[whole] = whole[_derangement(len(whole), np.random.default_rng(seed))]
    for begin in range(0, len(order), BATCH):
        _predict(checkpoint, recorded, found, order[begin : begin + BATCH], other, errors)
    return errors


def _derangement(count: int, rng: np.random.Generator) -> np.ndarray:
    """A permutation that leaves nothing in its place: one cycle through all, in random order."""
    order = rng.permutation(count)
    other = np.empty(count, int)
    other[order] = np.roll(order, 1)
    return other


def _predict(
    checkpoint: Checkpoint, recorded: Recorded, found: Windows, rows: np.ndarray, other: np.ndarray, errors: Errors
) -> None:
    model, config, known = checkpoint.model, checkpoint.config, found.known[rows]
    context = found.context(recorded, rows)
    future = torch.from_numpy(found.future[rows])
    predicted, states = model.rollout(context, future)
    targets = recorded.latents.rows(np.maximum(found.targets[rows], 0))
    errors.model[rows] = _known(_squares(predicted, targets), known)
    errors.still[rows] = _known(_squares(context.latents[:, -1:].expand_as(targets), targets), known)
    pairs = np.flatnonzero(other[rows] >= 0)
    if len(pairs):
        wrong = torch.from_numpy(found.future[other[rows[pairs]]])
        part = type(context)(*(x[pairs] for x in (context.latents, context.states, context.actions)))
        errors.shuffled[rows[pairs]] = _squares(model.rollout(part, wrong)[0], targets[pairs]).numpy()
    joints = len(config.proprioception.joints)
    if joints:
        std = np.array(config.proprioception.std)[:joints]
        measured = found.target_states[rows][..., :joints]
        for values, kept in ((states.numpy(), errors.joints), (found.states[rows][:, -1:], errors.joints_still)):
            kept[rows] = _known(np.square((values[..., :joints] - measured) * std).mean(-1), known)


def _squares(latents: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(B, H) of (B, H, *L)."""
    return (latents - targets).square().flatten(2).mean(-1)


def _known(values: Any, known: np.ndarray) -> np.ndarray:
    return np.where(known, np.asarray(values), np.nan)


def measure(errors: Errors) -> dict[str, Any]:
    """Means by horizon, and the ratios to the baselines; None where there is nothing to judge."""
    horizon = errors.model.shape[1]
    rows: dict[str, Any] = {"situations": int(np.isfinite(errors.model).any(axis=1).sum()) if horizon else 0}
    paired = np.isfinite(errors.shuffled)
    by_horizon = []
    for k in range(horizon):
        model, still = _mean(errors.model[:, k]), _mean(errors.still[:, k])
        among = paired[:, k]
        by_horizon.append(
            {
                "steps": k + 1,
                "frames": int(np.isfinite(errors.model[:, k]).sum()),
                "error": model,
                "persistence": still,
                "shuffled": _mean(errors.shuffled[:, k]),
                "prediction_ratio": ratio(model, still),
                "shuffled_ratio": ratio(_mean(errors.model[among, k]), _mean(errors.shuffled[among, k])),
                "joints_rms_rad": _root(_mean(errors.joints[:, k])),
                "joints_persistence_rms_rad": _root(_mean(errors.joints_still[:, k])),
            }
        )
    return rows | {"horizons": by_horizon}


def ratio(value: float | None, base: float | None) -> float | None:
    """None where it cannot be told."""
    return None if value is None or not base else value / base


def _mean(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return float(values.mean(dtype=np.float64)) if len(values) else None


def _root(value: float | None) -> float | None:
    return None if value is None else float(np.sqrt(value))
