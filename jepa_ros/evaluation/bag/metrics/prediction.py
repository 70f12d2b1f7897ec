"""Open-loop prediction error by horizon, and surprise: the error of one step along a recording.

Prediction is compared with "nothing changes" and with the actions of another moment. Surprise is computed as by the
world_model node's monitor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from jepa_ros.evaluation.bag.reading.recording import EvaluationSpec, Recording
from jepa_ros.evaluation.bag.reading.situations import JITTER_S, Situations
from jepa_ros.reporting.summary import percentiles
from jepa_ros.robot.motion.angles import difference
from jepa_ros.world_model.protocol import Context
from jepa_ros.world_model.surprise import SurpriseReading

BATCH = 256
ERRORS = ("model", "still", "shuffled", "joints", "joints_still")


@dataclass(frozen=True)
class SurpriseEvent:
    """Consecutive surprised readings. frame: the one with the largest error. begin, end: s since the first stamp."""

    frame: int
    begin: float
    end: float
    error: float
    readings: int


@torch.inference_mode()
def compute_prediction(recording: Recording, situations: Situations) -> dict[str, np.ndarray]:
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
    errors["model"][rows] = np.where(known, _squares(predicted, targets), np.nan)
    errors["still"][rows] = np.where(known, _squares(context.latents[:, -1:].expand_as(targets), targets), np.nan)
    pairs = np.flatnonzero(other[rows] >= 0)
    if len(pairs):
        wrong = torch.from_numpy(situations.future[other[rows[pairs]]])
        part = Context(*(x[pairs] for x in (context.latents, context.states, context.actions)))
        errors["shuffled"][rows[pairs]] = _squares(model.rollout(part, wrong)[0], targets[pairs])
    joints = len(config.proprioception.joints)
    if joints:
        std = np.array(config.proprioception.std)[:joints]
        measured = situations.target_states[rows][..., :joints]
        for name, values in (("joints", states.numpy()), ("joints_still", situations.states[rows][:, -1:])):
            error = difference(values[..., :joints] * std, measured * std, situations.continuous)
            squares = np.square(error).mean(-1)
            errors[name][rows] = np.where(known, squares, np.nan)


def _squares(latents: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    """Return the mean squares (B, H) of differences (B, H, *L)."""
    return (latents - targets).square().flatten(2).mean(-1).numpy()


def summarize_prediction(samples: dict[str, np.ndarray], spec: EvaluationSpec) -> dict[str, Any]:
    """Return means by horizon and their ratios to the baselines."""
    by_horizon = []
    for k in range(spec.horizon):
        errors = {name: samples[name][:, k] for name in ERRORS}
        mean = {name: _mean(values) for name, values in errors.items()}
        paired = _mean(errors["model"][np.isfinite(errors["shuffled"])])
        by_horizon.append(
            {
                "steps": k + 1,
                "frames": int(np.isfinite(errors["model"]).sum()),
                "error": mean["model"],
                "persistence": mean["still"],
                "shuffled": mean["shuffled"],
                "prediction_ratio": _ratio(mean["model"], mean["still"]),
                "shuffled_ratio": _ratio(paired, mean["shuffled"]),
                "joints_rms_rad": None if mean["joints"] is None else math.sqrt(mean["joints"]),
                "joints_persistence_rms_rad": None if mean["joints"] is None else math.sqrt(mean["joints_still"]),
            }
        )
    return {"situations": int(np.isfinite(samples["model"]).any(axis=1).sum()), "horizons": by_horizon}


def _ratio(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base else value / base


def _mean(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return float(values.mean(dtype=np.float64)) if len(values) else None


@torch.inference_mode()
def compute_surprise(recording: Recording, situations: Situations) -> dict[str, list]:
    """Return the `readings` of SurpriseMonitor, one each model step, their `frames`, and `events`. Unlike live, no
    report of an action comes too late."""
    config, model = situations.spec.config, situations.spec.checkpoint.model
    frames: list[int] = []
    readings: list[SurpriseReading] = []
    for segment in situations.segments:
        samples = segment.sample(segment.times - config.step)
        due = _due_rows(segment.times, np.flatnonzero(samples.has_block), config.step - JITTER_S)
        for begin in range(0, len(due), BATCH):
            rows = due[begin : begin + BATCH]
            latents = recording.latents.rows(segment.rows[samples.past[rows]])
            states, history, block = (
                torch.from_numpy(x[rows].astype(np.float32)) for x in (samples.states, samples.history, samples.block)
            )
            predicted, _ = model.rollout(Context(latents, states, history), block[:, None])
            seen = recording.latents.rows(segment.rows[rows])
            errors = (predicted[:, 0] - seen).square().flatten(1).mean(1).tolist()
            readings += [SurpriseReading.of(error, config.surprise) for error in errors]
            frames += segment.rows[rows].tolist()
    return {"frames": frames, "readings": readings, "events": find_events(frames, readings, recording.frame_times)}


def _due_rows(times: np.ndarray, known: np.ndarray, every: float) -> np.ndarray:
    """Return those of the `known` rows that are read: each the first that is `every` s after the one before."""
    due, last = [], -np.inf
    for row in known:
        if times[row] - last >= every:
            due.append(row)
            last = times[row]
    return np.array(due, int)


def find_events(frames: Sequence[int], readings: Sequence[SurpriseReading], times: np.ndarray) -> list[SurpriseEvent]:
    """Return the runs of surprised readings in time order. times (n,): s of all frames of the recording."""
    found, run = [], []
    for frame, reading in [*zip(frames, readings, strict=True), (-1, None)]:
        if reading is not None and reading.surprised:
            run.append((frame, reading.error))
        elif run:
            worst = max(run, key=lambda item: item[1])
            begin, end = float(times[run[0][0]]), float(times[run[-1][0]])
            found.append(SurpriseEvent(worst[0], begin, end, worst[1], len(run)))
            run = []
    return found


def summarize_surprise(samples: dict[str, list], spec: EvaluationSpec) -> dict[str, Any]:
    """Return the figures of all readings."""
    readings = samples["readings"]
    error = percentiles([reading.error for reading in readings], (50, 95))
    return {
        "readings": len(readings),
        "error_p50": error["p50"],
        "error_p95": error["p95"],
        "quantile_p50": percentiles([reading.quantile for reading in readings])["p50"],
        "rate": float(np.mean([reading.surprised for reading in readings])) if readings else None,
        "events": len(samples["events"]),
    }
