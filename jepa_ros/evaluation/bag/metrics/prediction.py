"""Open-loop prediction error by horizon, compared with "nothing changes" and with the actions of another moment."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from jepa_ros.evaluation.bag.reading.recording import EvaluationSpec, Recording
from jepa_ros.evaluation.bag.reading.situations import Situations
from jepa_ros.world_model.protocol import Context

BATCH = 256
ERRORS = ("model", "still", "shuffled", "joints", "joints_still")


@torch.inference_mode()
def compute(recording: Recording, situations: Situations) -> dict[str, np.ndarray]:
    """Return mean square errors over the latent (N, H), NaN where unknown, and `frames` (N,).

    model: of the rollout with the executed actions. still: of the frame that it starts from. shuffled: of the rollout
    with the actions of another frame, for frames whose whole horizon is known; the seed selects which. joints,
    joints_still: mean square over the joint positions in rad².
    """
    known = situations.known
    errors = {name: np.full(known.shape, np.nan, np.float32) for name in ERRORS}
    rows, whole = np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.all(axis=1))
    other = np.full(len(situations), -1)
    other[whole] = whole[_derangement(len(whole), np.random.default_rng(situations.spec.seed))]
    for begin in range(0, len(rows), BATCH):
        _predict(situations, rows[begin : begin + BATCH], other, errors)
    return errors | {"frames": situations.frames}


def _derangement(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return a permutation without a fixed point: one cycle through all in random order."""
    order = rng.permutation(count)
    other = np.empty(count, int)
    other[order] = np.roll(order, 1)
    return other


def _predict(situations: Situations, rows: np.ndarray, other: np.ndarray, errors: dict[str, np.ndarray]) -> None:
    """Fill in the errors of situations `rows`. other (N,): whose actions are the wrong ones, -1 for none."""
    model, config, known = situations.spec.checkpoint.model, situations.spec.config, situations.known[rows]
    context = situations.context(rows)
    predicted, states = model.rollout(context, torch.from_numpy(situations.future[rows]))
    targets = situations.recording.latents.rows(np.maximum(situations.targets[rows], 0))
    errors["model"][rows] = _where_known(_squares(predicted, targets), known)
    errors["still"][rows] = _where_known(_squares(context.latents[:, -1:].expand_as(targets), targets), known)
    pairs = np.flatnonzero(other[rows] >= 0)
    if len(pairs):
        wrong = torch.from_numpy(situations.future[other[rows[pairs]]])
        part = Context(*(x[pairs] for x in (context.latents, context.states, context.actions)))
        errors["shuffled"][rows[pairs]] = _squares(model.rollout(part, wrong)[0], targets[pairs]).numpy()
    joints = len(config.proprioception.joints)
    if joints:
        std = np.array(config.proprioception.std)[:joints]
        measured = situations.target_states[rows][..., :joints]
        for name, values in (("joints", states.numpy()), ("joints_still", situations.states[rows][:, -1:])):
            errors[name][rows] = _where_known(np.square((values[..., :joints] - measured) * std).mean(-1), known)


def _squares(latents: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(B, H) of (B, H, *L)."""
    return (latents - targets).square().flatten(2).mean(-1)


def _where_known(values: Any, known: np.ndarray) -> np.ndarray:
    return np.where(known, np.asarray(values), np.nan)


def summarize(samples: dict[str, np.ndarray], spec: EvaluationSpec) -> dict[str, Any]:
    """Return means by horizon and their ratios to the baselines."""
    by_horizon = []
    for k in range(spec.horizon):
        errors = {name: samples[name][:, k] for name in ERRORS}
        model, still, paired = _mean(errors["model"]), _mean(errors["still"]), np.isfinite(errors["shuffled"])
        by_horizon.append(
            {
                "steps": k + 1,
                "frames": int(np.isfinite(errors["model"]).sum()),
                "error": model,
                "persistence": still,
                "shuffled": _mean(errors["shuffled"]),
                "prediction_ratio": _ratio(model, still),
                "shuffled_ratio": _ratio(_mean(errors["model"][paired]), _mean(errors["shuffled"][paired])),
                "joints_rms_rad": _root(_mean(errors["joints"])),
                "joints_persistence_rms_rad": _root(_mean(errors["joints_still"])),
            }
        )
    return {"situations": int(np.isfinite(samples["model"]).any(axis=1).sum()), "horizons": by_horizon}


def _ratio(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base else value / base


def _mean(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return float(values.mean(dtype=np.float64)) if len(values) else None


def _root(value: float | None) -> float | None:
    return None if value is None else float(np.sqrt(value))
