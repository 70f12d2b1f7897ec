"""Surprise along a recording, read as by the world_model node's monitor, and the events that it marks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from jepa_ros.evaluation.bag.reading.records import Recorded
from jepa_ros.evaluation.bag.reading.situations import JITTER, Stretch, at
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.protocol import Context
from jepa_ros.world_model.surprise import SurpriseReading

BATCH = 256


@dataclass(frozen=True)
class Event:
    """Surprised readings in a row. frame: the one of the greatest error. begin, end: s since the bag's first stamp."""

    frame: int
    begin: float
    end: float
    error: float
    readings: int


@torch.inference_mode()
def read(checkpoint: Checkpoint, recorded: Recorded, parts: list[Stretch]) -> dict[int, SurpriseReading]:
    """Readings by frame, once a model step, as SurpriseMonitor gives them, but for reports of actions that come late.
    Many are made at once."""
    config, readings = checkpoint.config, {}
    for part in parts:
        before = part.times - config.step
        situations = at(part, before, config)
        rows = _due(part.times, np.flatnonzero(situations.known), config.step - JITTER)
        for begin in range(0, len(rows), BATCH):
            some = rows[begin : begin + BATCH]
            latents = recorded.latents.rows(part.rows[situations.past[some]])
            states, history, block = (
                torch.from_numpy(x[some].astype(np.float32))
                for x in (situations.states, situations.history, situations.block)
            )
            predicted, _ = checkpoint.model.rollout(Context(latents, states, history), block[:, None])
            seen = recorded.latents.rows(part.rows[some])
            errors = (predicted[:, 0] - seen).square().flatten(1).mean(1).tolist()
            for row, error in zip(some, errors, strict=True):
                readings[int(part.rows[row])] = SurpriseReading.of(error, config.surprise)
    return readings


def _due(times: np.ndarray, known: np.ndarray, every: float) -> np.ndarray:
    """Of the `known` rows those that are read: each the first that is `every` s after the one before."""
    due, last = [], -np.inf
    for row in known:
        if times[row] - last >= every:
            due.append(row)
            last = times[row]
    return np.array(due, int)


def events(readings: dict[int, SurpriseReading], times: np.ndarray) -> list[Event]:
    """In the order of time. times (n,) s of all frames."""
    found, run = [], []
    for frame, reading in [*readings.items(), (-1, None)]:
        if reading is not None and reading.surprised:
            run.append((frame, reading.error))
        elif run:
            worst = max(run, key=lambda item: item[1])
            found.append(Event(worst[0], float(times[run[0][0]]), float(times[run[-1][0]]), worst[1], len(run)))
            run = []
    return found


def measure(readings: dict[int, SurpriseReading], marked: list[Event]) -> dict[str, Any]:
    """Figures; None where nothing could be read."""
    errors = np.array([r.error for r in readings.values()])
    return {
        "readings": len(errors),
        "error_p50": float(np.median(errors)) if len(errors) else None,
        "error_p95": float(np.percentile(errors, 95)) if len(errors) else None,
        "quantile_p50": float(np.median([r.quantile for r in readings.values()])) if len(errors) else None,
        "rate": float(np.mean([r.surprised for r in readings.values()])) if len(errors) else None,
        "events": len(marked),
    }
