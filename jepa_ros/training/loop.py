"""The training loop of world models: seeded, resumable to the same losses, chosen on validation."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from jepa_ros.datasets.episodes import EpisodeSet
from jepa_ros.distributed import ranks
from jepa_ros.distributed.batch_norm import convert_batch_norm
from jepa_ros.distributed.ranks import count_ranks
from jepa_ros.errors import InputError
from jepa_ros.evaluation.model_health import collapse, encode_all, latent_health, prediction_health, probe_r2
from jepa_ros.text_files import atomic_path
from jepa_ros.training.losses import WorldModelLoss
from jepa_ros.training.recipe import LossWeights, Schedule
from jepa_ros.world_model.anti_collapse.protocol import AntiCollapse
from jepa_ros.world_model.checkpoint import own_state
from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.device import CPU, on_device
from jepa_ros.world_model.protocol import PredictiveModel

COLLAPSED_FOR = 2  # validations in a row


@dataclass
class Progress:
    """All that a resumed run needs to go on with the same losses, but for the weights and the optimiser's state.

    seconds: spent in updates and validations; loading: of these, waiting for data. stopped: why training ended early.
    """

    update: int = 0
    best: float = math.inf
    curve: list[dict] = field(default_factory=list)
    validation: list[dict] = field(default_factory=list)
    seconds: float = 0.0
    loading: float = 0.0
    frames: int = 0
    stopped: str = ""

    @property
    def frames_per_second(self) -> float:
        """Frames trained on, of all processes, a second."""
        return self.frames / max(self.seconds, 1e-9)

    @property
    def loader_share(self) -> float:
        """Share of the time that updates waited for data."""
        return self.loading / max(self.seconds, 1e-9)


class Trainer:
    """Trains one world model; `state_file` holds everything between calls, written whole or not at all.

    Under torchrun every process draws the same global batch and takes its part of it, statistics and gradients are
    reduced over all of them, and so losses and weights are those of one process on the whole batch.

    device: where it trains; weights are initialised on the CPU, so that a seed gives the same weights on any device.
    inference_model: the model for callers whose data is in CPU memory.
    """

    def __init__(
        self,
        config: ModelConfig,
        model: PredictiveModel,
        anti_collapse: AntiCollapse,
        data: dict[str, EpisodeSet],
        schedule: Schedule,
        weights: LossWeights,
        seed: int,
        device: torch.device = CPU,
    ):
        if schedule.batch % count_ranks():
            raise InputError(f"batch: expected a multiple of {count_ranks()} processes, found {schedule.batch}")
        if count_ranks() > 1:
            convert_batch_norm(model)
        self.config, self.model, self.data, self.schedule, self.seed = config, model, data, schedule, seed
        self.loss = WorldModelLoss(config, weights, anti_collapse, schedule.steps)
        if count_ranks() > 1:
            convert_batch_norm(self.loss)
        self.device, self.inference_model = device, on_device(model, device)
        self.loss.to(device)
        self.parameters = [p for p in (*model.parameters(), *self.loss.parameters()) if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True
        )
        self.window_rng = np.random.default_rng([seed, 1])
        self.projection_rng = torch.Generator().manual_seed(seed)
        self.progress = Progress()
        self.best = copy.deepcopy(own_state(model))
        if schedule.compile:
            model.encoder.compile()  # where the time goes; its weights keep their names

    def run(self, state_file: Path, report: Callable[[dict], None], save_every: float = 60.0) -> None:
        """Train to the end of the schedule, or until the latents have collapsed (see progress.stopped); `report` is
        called after each update with its losses and progress. Afterwards the model has its best weights."""
        saved, p = time.monotonic(), self.progress
        while p.update < self.schedule.updates and not p.stopped:
            started = time.monotonic()
            parts = self.step()
            if p.update % self.schedule.every == 0 or p.update == self.schedule.updates:
                parts |= self.validate()
            p.seconds += time.monotonic() - started
            report(parts | {"update": p.update})
            if time.monotonic() - saved > save_every:
                self.save(state_file)
                saved = time.monotonic()
        self.save(state_file)
        self.model.load_state_dict(self.best, strict=False)
        self.model.eval()

    def step(self) -> dict[str, float]:
        """One update; returns its losses. Raises FloatingPointError where the loss is not finite."""
        s, p = self.schedule, self.progress
        for group in self.optimizer.param_groups:
            group["lr"] = s.learning_rate * learning_rate_factor(p.update, s.updates, s.warm_up)
        begin = time.monotonic()
        batch = self._batch()
        p.loading += time.monotonic() - begin
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=s.precision == "bfloat16"):
            loss, parts = self.loss(self.model, batch, self.projection_rng)
        values = {name: float(value) for name, value in ranks.average_over_ranks(parts).items()}
        if not math.isfinite(values["loss"]):
            raise FloatingPointError(f"update {p.update}: the loss is {values['loss']}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        ranks.average_gradients(self.parameters)
        clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.loss.anti_collapse.after_step(self.model)
        p.update += 1
        p.frames += s.batch * batch.frames.shape[1]
        if p.update % 20 == 0:
            p.curve.append({"update": p.update, **values})
        return values

    def _batch(self):
        s, c, train = self.schedule, self.config, self.data["train"]
        episode, tick = train.draw(s.batch, s.steps * c.block, self.window_rng)
        own = ranks.own_part(s.batch)
        return train.windows(episode[own], tick[own], s.steps, c.block, c.history).to(self.device)

    def validate(self) -> dict[str, float]:
        """Health on validation episodes; the weights of the least three-step error ratio are kept."""
        self.model.eval()
        val, train = self.data["val"], self.data["train"]
        latents = encode_all(self.inference_model, val.frames)
        health = prediction_health(
            self.inference_model, val, latents, max(3, self.schedule.steps), self.config.block, self.seed
        )
        health |= latent_health(latents)
        some = np.random.default_rng(self.seed).permutation(len(train))[:4000]
        health["probe_r2"] = probe_r2(
            encode_all(self.inference_model, train.frames[some]), train.tool[some], latents, val.tool
        )
        p, health["update"] = self.progress, self.progress.update
        p.validation.append(health)
        last = [collapse(h) for h in p.validation[-COLLAPSED_FOR:]]
        if len(last) == COLLAPSED_FOR and all(last):
            p.stopped = f"update {p.update}: {last[-1]}"
        if health["error_ratio@3"] < p.best:
            p.best = health["error_ratio@3"]
            self.best = copy.deepcopy(own_state(self.model))
        return health

    def save(self, path: Path) -> None:
        """Everything needed to go on, by way of a temporary file; the first process writes for all."""
        state = {
            "progress": asdict(self.progress),
            "model": own_state(self.model),
            "loss": self.loss.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "windows": self.window_rng.bit_generator.state,
            "directions": self.projection_rng.get_state(),
            "torch": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        if ranks.rank() == 0:
            with atomic_path(path) as partial:
                torch.save(state, partial)
        ranks.wait_for_ranks()

    def load(self, path: Path) -> None:
        """Go on where `save` left off."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.progress = Progress(**state["progress"])
        self.model.load_state_dict(state["model"], strict=False)
        self.loss.load_state_dict(state["loss"])
        self.best = state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.window_rng.bit_generator.state = state["windows"]
        self.projection_rng.set_state(state["directions"])
        torch.set_rng_state(state["torch"])
        if self.device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self.device)


def learning_rate_factor(update: int, updates: int, warm_up: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    return min(1.0, (update + 1) / max(1, warm_up)) * 0.5 * (1 + math.cos(math.pi * min(1.0, update / max(1, updates))))
