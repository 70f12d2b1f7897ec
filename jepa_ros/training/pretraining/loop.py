"""The pre-training loop: seeded, resumable to the same losses, stopped if features collapse on held-out clips."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np
import torch

from jepa_ros.training.pretraining.clips import Clips, Crops, crop_randomly, normalize_clips
from jepa_ros.training.pretraining.health import describe_collapse, feature_health
from jepa_ros.training.pretraining.models import TUBELET, MaskedPredictor
from jepa_ros.training.trainer import ResumableTrainer, descend
from jepa_ros.world_model.device import CPU

HELD_OUT_CLIPS = 64
MIN_CURVE_POINTS = 1000
"""Points of the loss curve that are kept; at most twice as many."""
CLIPS, MASKS, CROPS, HELD_OUT = range(4)
"""Purposes of random generators: every update seeds new ones, so that a resumed run needs no generator state."""


@dataclass(frozen=True)
class PretrainingSchedule:
    """updates of `batch` clips. The learning rate rises over `warm_up` updates, then falls by a cosine to a hundredth.

    momentum: of the teacher; rises linearly to 1 over the updates (V-JEPA 0.998, I-JEPA 0.996 over hundreds of
    thousands). weight_decay: of all parameters but gains and biases. Validation every `every` updates. Both methods
    were published with a peak of about 1e-3 at batches of 2048 or more; with tens of clips so high a rate lowers the
    rank of the features.
    """

    updates: int = 4000
    batch: int = 32
    learning_rate: float = 2e-4
    weight_decay: float = 0.04
    warm_up: int = 400
    momentum: float = 0.998
    every: int = 200
    crops: Crops = field(default_factory=Crops)


class Pretrainer(ResumableTrainer):
    """Trains one masked predictor on clips; `held` are the clips of its validation."""

    def __init__(
        self,
        model: MaskedPredictor,
        train: Clips,
        held: Clips,
        schedule: PretrainingSchedule,
        seed: int,
        device: torch.device = CPU,
    ):
        super().__init__(schedule.updates, schedule.every, max(1, schedule.updates // MIN_CURVE_POINTS), device)
        self.model, self.train, self.schedule, self.seed = model.to(device), train, schedule, seed
        self.held = held.spread(HELD_OUT_CLIPS)
        self.learnt = [p for part in (model.encoder, model.predictor) for p in part.parameters() if p.requires_grad]
        matrices, vectors = ([p for p in self.learnt if (p.ndim > 1) == is_matrix] for is_matrix in (True, False))
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": schedule.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=schedule.learning_rate,
        )

    def run(self, *arguments, **options) -> None:
        if not self.progress.validation:  # figures of the untrained features, to compare with
            self.validate()
        super().run(*arguments, **options)

    def _update(self) -> dict[str, float]:
        s, p = self.schedule, self.progress
        started = time.monotonic()
        clips = self.train.draw(s.batch, self._rng(CLIPS))
        clips = crop_randomly(normalize_clips(clips, self.device), s.crops, self._rng(CROPS))
        p.loading += time.monotonic() - started
        self.model.encoder.train()
        self.model.predictor.train()
        losses = self.model.losses(clips, self.model.draw_masks(s.batch, self._rng(MASKS)))
        values = self._named(losses)
        self.check_finite(values["loss"])
        rate = s.learning_rate * pretraining_rate_factor(p.update, s.updates, s.warm_up)
        descend(torch.stack(losses).mean(), self.optimizer, rate, self.learnt)
        self.model.update_teacher(s.momentum + (1 - s.momentum) * p.update / s.updates)
        p.frames += clips.shape[0] * clips.shape[1]
        return values

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return losses and feature health on the held-out clips: always the same ones, uncropped, same masks."""
        self.model.eval()
        clips = normalize_clips(self.held, self.device)
        rng = np.random.default_rng([self.seed, HELD_OUT])
        parts, tokens = [], []
        for batch in clips.split(self.schedule.batch):
            parts.append(self._named(self.model.losses(batch, self.model.draw_masks(len(batch), rng))))
            tokens.append(self.model.features(batch))
        values = {key: float(np.mean([part[key] for part in parts])) for key in parts[0]}
        self.check_finite(values["loss"])
        steps, p = max(1, clips.shape[1] // TUBELET), self.progress
        values |= feature_health(torch.cat(tokens), steps) | {"update": p.update}
        p.validation.append(values)
        p.stopped = describe_collapse(p.validation)
        return values

    def state(self) -> dict:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def set_state(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _rng(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, purpose, self.progress.update])

    def _named(self, losses: list[torch.Tensor]) -> dict[str, float]:
        """Return the loss of each kind of mask, and `loss`, their mean."""
        values = [float(loss.detach()) for loss in losses]
        return {"loss": float(np.mean(values)), **dict(zip(self.model.groups, values, strict=True))}


def pretraining_rate_factor(update: int, updates: int, warm_up: int, last: float = 0.01) -> float:
    """Return a share of the peak learning rate at update 0..updates - 1: linear up to 1, then a cosine to `last`."""
    if update < warm_up:
        return (update + 1) / warm_up
    done = (update - warm_up) / max(1, updates - warm_up)
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
