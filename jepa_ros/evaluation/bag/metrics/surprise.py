"""Surprise along a recording, as the world_model node's monitor computes it, and the surprise events in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from jepa_ros.evaluation.bag.reading.recording import EvaluationSpec, Recording
from jepa_ros.evaluation.bag.reading.situations import JITTER_S, Situations
from jepa_ros.world_model.protocol import Context
from jepa_ros.world_model.surprise import SurpriseReading

BATCH = 256


@dataclass(frozen=True)
class SurpriseEvent:
    """Consecutive surprised readings. frame: the one with the largest error. begin, end: s since the first stamp."""

    frame: int
    begin: float
    end: float
    error: float
    readings: int


@torch.inference_mode()
def compute(recording: Recording, situations: Situations) -> dict[str, list]:
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


def summarize(samples: dict[str, list], spec: EvaluationSpec) -> dict[str, Any]:
    """Return the figures of all readings."""
    readings = samples["readings"]
    errors = np.array([reading.error for reading in readings])
    return {
        "readings": len(errors),
        "error_p50": float(np.median(errors)) if len(errors) else None,
        "error_p95": float(np.percentile(errors, 95)) if len(errors) else None,
        "quantile_p50": float(np.median([reading.quantile for reading in readings])) if len(errors) else None,
        "rate": float(np.mean([reading.surprised for reading in readings])) if len(errors) else None,
        "events": len(samples["events"]),
    }
