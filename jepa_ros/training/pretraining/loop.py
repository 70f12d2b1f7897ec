"""The loop of pre-training: seeded, resumable to the same losses, watched for collapse on clips that were held out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from jepa_ros.text_files import atomic_path
from jepa_ros.training.pretraining.clips import Clips, Crops, crop_randomly, normalize_clips
from jepa_ros.training.pretraining.health import collapse, feature_health
from jepa_ros.training.pretraining.models import TUBELET, MaskedPredictor
from jepa_ros.world_model.device import CPU

HELD_OUT_CLIPS = 64
CLIP_GRADIENT = 1.0
CURVE = 1000
"""Points of the loss curve that are kept, at most twice as many."""
CLIPS, MASKS, CROPS, HELD_OUT = range(4)
"""What a generator is for: each update draws from fresh ones, so that a resumed run needs no generator's state."""


@dataclass(frozen=True)
class Schedule:
    """updates of `batch` clips. The learning rate rises over `warm_up` updates, then falls by a cosine to a hundredth.

    momentum of the teacher, rising to 1 in a line over the updates (V-JEPA 0.998, I-JEPA 0.996 over hundreds of
    thousands). weight_decay: of all but gains and offsets. Validation every `every` updates. Both methods came with a
    peak of about 1e-3 at 2048 or more clips; with some tens of them a rate as high lowers the features' rank.
    """

    updates: int = 4000
    batch: int = 32
    learning_rate: float = 2e-4
    weight_decay: float = 0.04
    warm_up: int = 400
    momentum: float = 0.998
    every: int = 200
    crops: Crops = field(default_factory=Crops)


@dataclass
class Progress:
    """All that a resumed run needs besides weights and the optimiser's state. stopped: why it ended early."""

    update: int = 0
    curve: list[dict] = field(default_factory=list)
    validation: list[dict] = field(default_factory=list)
    seconds: float = 0.0
    loading: float = 0.0
    frames: int = 0
    stopped: str | None = None


class Pretrainer:
    """Trains one model; `state_file` of `run` holds everything between calls, written whole or not at all."""

    def __init__(
        self,
        model: MaskedPredictor,
        train: Clips,
        held: Clips,
        schedule: Schedule,
        seed: int,
        device: torch.device = CPU,
    ):
        self.model, self.train, self.schedule, self.seed = model.to(device), train, schedule, seed
        self.device = device
        self.held = held.spread(HELD_OUT_CLIPS)
        learnt = [p for part in (model.encoder, model.predictor) for p in part.parameters() if p.requires_grad]
        groups = [[p for p in learnt if (p.ndim > 1) == matrix] for matrix in (True, False)]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": groups[0], "weight_decay": schedule.weight_decay},
                {"params": groups[1], "weight_decay": 0.0},
            ],
            lr=schedule.learning_rate,
        )
        self.learnt = learnt
        self.progress = Progress()

    def run(self, state_file: Path, report: Callable[[dict], None], save_every: float = 60.0) -> None:
        """Train to the end of the schedule or to a collapse; `report` is called after each update with its losses.

        Raises FloatingPointError where a loss is not finite.
        """
        saved, p = time.monotonic(), self.progress
        if not p.validation:
            self.validate()
        while p.update < self.schedule.updates and p.stopped is None:
            started = time.monotonic()
            values = self.step()
            if p.update % self.schedule.every == 0 or p.update == self.schedule.updates:
                self.validate()
                p.stopped = collapse(p.validation)
            p.seconds += time.monotonic() - started
            report(values | {"update": p.update})
            if time.monotonic() - saved > save_every:
                self.save(state_file)
                saved = time.monotonic()
        self.save(state_file)

    def step(self) -> dict[str, float]:
        """One update; returns its losses: of each kind of mask, and `loss`, their mean."""
        s, p = self.schedule, self.progress
        started = time.monotonic()
        clips = self.train.draw(s.batch, self._rng(CLIPS))
        clips = crop_randomly(normalize_clips(clips, self.device), s.crops, self._rng(CROPS))
        p.loading += time.monotonic() - started
        self.model.encoder.train()
        self.model.predictor.train()
        losses = self.model.losses(clips, self.model.draw_masks(s.batch, self._rng(MASKS)))
        loss = torch.stack(losses).mean()
        values = self._named(losses)
        self._expect_finite(values["loss"])
        for group in self.optimizer.param_groups:
            group["lr"] = s.learning_rate * learning_rate_factor(p.update, s.updates, s.warm_up)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm_(self.learnt, CLIP_GRADIENT)
        self.optimizer.step()
        self.model.follow(s.momentum + (1 - s.momentum) * p.update / s.updates)
        p.update += 1
        p.frames += clips.shape[0] * clips.shape[1]
        if p.update % max(1, s.updates // CURVE) == 0:
            p.curve.append({"update": p.update, **values})
        return values

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Losses and health of features on held-out clips: always the same ones, whole, under the same masks."""
        self.model.eval()
        clips = normalize_clips(self.held, self.device)
        rng = np.random.default_rng([self.seed, HELD_OUT])
        parts, tokens = [], []
        for batch in clips.split(self.schedule.batch):
            parts.append(self._named(self.model.losses(batch, self.model.draw_masks(len(batch), rng))))
            tokens.append(self.model.features(batch))
        values = {key: float(np.mean([part[key] for part in parts])) for key in parts[0]}
        self._expect_finite(values["loss"])
        steps = max(1, clips.shape[1] // TUBELET)
        values |= feature_health(torch.cat(tokens), steps) | {"update": self.progress.update}
        self.progress.validation.append(values)
        return values

    def save(self, path: Path) -> None:
        """Everything needed to go on, by way of a temporary file."""
        state = {
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with atomic_path(path) as partial:
            torch.save(state, partial)

    def load(self, path: Path) -> None:
        """Go on where `save` left off."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.progress = Progress(**state["progress"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _rng(self, which: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, which, self.progress.update])

    def _expect_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise FloatingPointError(f"update {self.progress.update}: expected a finite loss, found {loss}")

    def _named(self, losses: list[torch.Tensor]) -> dict[str, float]:
        values = [float(loss.detach()) for loss in losses]
        return {"loss": float(np.mean(values)), **dict(zip(self.model.groups, values, strict=True))}


def learning_rate_factor(update: int, updates: int, warm_up: int, last: float = 0.01) -> float:
    """Share of the peak at update 0..updates - 1: a line up to 1, then a cosine down to `last`."""
    if update < warm_up:
        return (update + 1) / warm_up
    done = (update - warm_up) / max(1, updates - warm_up)
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
