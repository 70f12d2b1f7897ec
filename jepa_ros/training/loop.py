"""The training loop of world models: seeded, resumable to the same losses, chosen on validation."""

from __future__ import annotations

import time

import numpy as np
import torch

from jepa_ros.datasets.episodes import EpisodeSet, Windows
from jepa_ros.distributed import ranks
from jepa_ros.distributed.batch_norm import convert_batch_norm
from jepa_ros.distributed.ranks import count_ranks
from jepa_ros.errors import InputError
from jepa_ros.evaluation.model_health import (
    describe_collapse,
    encode_frames,
    measure_latents,
    measure_prediction,
    measure_probe_r2,
)
from jepa_ros.training.losses import WorldModelLoss
from jepa_ros.training.recipe import LossWeights, Schedule
from jepa_ros.training.trainer import ResumableTrainer, copy_weights, descend, learning_rate_factor
from jepa_ros.world_model.anti_collapse.protocol import AntiCollapse
from jepa_ros.world_model.checkpoint import own_state
from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.device import CPU, on_device
from jepa_ros.world_model.protocol import PredictiveModel

COLLAPSED_VALIDATIONS = 2
"""Validations in a row that must look collapsed before training stops."""
PROBE_FRAMES = 4000


class Trainer(ResumableTrainer):
    """Trains one world model. After `run` the model has the weights of its best validation.

    Under torchrun every process draws the same global batch and takes its share of it; statistics and gradients are
    reduced over all processes, so losses and weights are those of one process on the whole batch.

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
        super().__init__(schedule.updates, schedule.every, device=device)
        if schedule.batch % count_ranks():
            raise InputError(f"recipe: batch {schedule.batch} is not a multiple of the {count_ranks()} processes")
        self.loss = WorldModelLoss(config, weights, anti_collapse, schedule.steps)
        if count_ranks() > 1:
            convert_batch_norm(model)
            convert_batch_norm(self.loss)
        self.config, self.model, self.data, self.schedule, self.seed = config, model, data, schedule, seed
        self.inference_model = on_device(model, device)
        self.loss.to(device)
        self.parameters = [p for p in (*model.parameters(), *self.loss.parameters()) if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True
        )
        self.window_rng = np.random.default_rng([seed, 1])
        self.projection_rng = torch.Generator().manual_seed(seed)
        self.best = copy_weights(own_state(model))
        if schedule.compile:
            model.encoder.compile()  # most of the time is spent here; the names of its weights stay

    def run(self, *arguments, **options) -> None:
        super().run(*arguments, **options)
        self.model.load_state_dict(self.best, strict=False)
        self.model.eval()

    def _update(self) -> dict[str, float]:
        s, p = self.schedule, self.progress
        started = time.monotonic()
        batch = self._draw_batch()
        p.loading += time.monotonic() - started
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=s.precision == "bfloat16"):
            loss, parts = self.loss(self.model, batch, self.projection_rng)
        values = {name: float(value) for name, value in ranks.average_over_ranks(parts).items()}
        self.check_finite(values["loss"])
        rate = s.learning_rate * learning_rate_factor(p.update, s.updates, s.warm_up)
        descend(loss, self.optimizer, rate, self.parameters)
        self.loss.anti_collapse.after_step(self.model)
        p.frames += s.batch * batch.frames.shape[1]
        return values

    def _draw_batch(self) -> Windows:
        s, c, train = self.schedule, self.config, self.data["train"]
        episode, tick = train.draw(s.batch, s.steps * c.block, self.window_rng)
        own = ranks.own_part(s.batch)
        return train.windows(episode[own], tick[own], s.steps, c.block, c.history).to(self.device)

    def validate(self) -> dict[str, float]:
        """Return the health on validation episodes; the weights with the least three-step error ratio are kept."""
        self.model.eval()
        val, train, model = self.data["val"], self.data["train"], self.inference_model
        latents = encode_frames(model, val.frames)
        health = measure_prediction(model, val, latents, max(3, self.schedule.steps), self.config.block, self.seed)
        health |= measure_latents(latents)
        some = np.random.default_rng(self.seed).permutation(len(train))[:PROBE_FRAMES]
        health["probe_r2"] = measure_probe_r2(
            encode_frames(model, train.frames[some]), train.tool[some], latents, val.tool
        )
        p, health["update"] = self.progress, self.progress.update
        p.validation.append(health)
        last = [describe_collapse(h) for h in p.validation[-COLLAPSED_VALIDATIONS:]]
        if len(last) == COLLAPSED_VALIDATIONS and all(last):
            p.stopped = f"update {p.update}: {last[-1]}"
        if health["error_ratio@3"] < p.best:
            p.best = health["error_ratio@3"]
            self.best = copy_weights(own_state(self.model))
        return health

    def state(self) -> dict:
        return {
            "model": own_state(self.model),
            "loss": self.loss.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "windows": self.window_rng.bit_generator.state,
            "directions": self.projection_rng.get_state(),
        }

    def set_state(self, state: dict) -> None:
        self.model.load_state_dict(state["model"], strict=False)
        self.loss.load_state_dict(state["loss"])
        self.best = state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.window_rng.bit_generator.state = state["windows"]
        self.projection_rng.set_state(state["directions"])
