"""The training loops of world model and policy: seeded, resumable to the same losses, chosen on validation."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from jepa_ros.planning.policy import GoalPolicy
from jepa_ros.training.episodes import EpisodeSet
from jepa_ros.training.losses import LossWeights, jepa_loss, policy_loss
from jepa_ros.training.validation import encode_all, latent_health, prediction_health, probe_r2
from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.jepa import Jepa


@dataclass(frozen=True)
class Schedule:
    """updates of the world model, then of the policy. batch windows of `steps` model steps; learning rates peak after
    the warm-up and fall to zero by a cosine. Validation every `every` updates."""

    updates: int = 6000
    policy_updates: int = 6000
    batch: int = 48
    policy_batch: int = 512
    steps: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warm_up: int = 200
    every: int = 500
    loss: LossWeights = field(default_factory=LossWeights)


@dataclass
class Progress:
    """All that a resumed run needs to go on with the same losses, but for the weights and the optimiser's state."""

    update: int = 0
    best: float = math.inf
    curve: list[dict] = field(default_factory=list)
    validation: list[dict] = field(default_factory=list)
    seconds: float = 0.0
    frames: int = 0


class Trainer:
    """Trains one world model; `state_file` holds everything between calls, written whole or not at all."""

    def __init__(self, config: ModelConfig, model: Jepa, data: dict[str, EpisodeSet], schedule: Schedule, seed: int):
        self.config, self.model, self.data, self.schedule, self.seed = config, model, data, schedule, seed
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
        )
        self.windows = np.random.default_rng([seed, 1])
        self.directions = torch.Generator().manual_seed(seed)
        self.progress = Progress()
        self.best = copy.deepcopy(model.state_dict())

    def run(self, state_file: Path, report: Callable[[dict], None], save_every: float = 60.0) -> None:
        """Train to the end of the schedule; `report` is called after each update with its losses and progress."""
        saved = time.monotonic()
        while self.progress.update < self.schedule.updates:
            started = time.monotonic()
            parts = self.step()
            if self.progress.update % self.schedule.every == 0 or self.progress.update == self.schedule.updates:
                parts |= self.validate()
            self.progress.seconds += time.monotonic() - started
            report(parts | {"update": self.progress.update})
            if time.monotonic() - saved > save_every:
                self.save(state_file)
                saved = time.monotonic()
        self.save(state_file)
        self.model.load_state_dict(self.best)
        self.model.eval()

    def step(self) -> dict[str, float]:
        """One update; returns its losses. Raises FloatingPointError where the loss is not finite."""
        s, p = self.schedule, self.progress
        for group in self.optimizer.param_groups:
            group["lr"] = s.learning_rate * learning_rate_factor(p.update, s.updates, s.warm_up)
        batch = self.data["train"].sample(s.batch, s.steps, self.config.block, self.config.history, self.windows)
        self.model.train()
        loss, parts = jepa_loss(self.model, batch, self.config.history, s.loss, self.directions)
        if not math.isfinite(parts["loss"]):
            raise FloatingPointError(f"update {p.update}: the loss is {parts['loss']}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        p.update += 1
        p.frames += batch.frames.shape[0] * batch.frames.shape[1]
        if p.update % 20 == 0:
            p.curve.append({"update": p.update, **parts})
        return parts

    def validate(self) -> dict[str, float]:
        """Health on validation episodes; the weights of the least three-step error ratio are kept."""
        self.model.eval()
        val, train = self.data["val"], self.data["train"]
        latents = encode_all(self.model, val.frames)
        s = self.schedule
        health = prediction_health(self.model, val, latents, s.steps, self.config.block, self.config.history, self.seed)
        health |= latent_health(latents)
        some = np.random.default_rng(self.seed).permutation(len(train))[:4000]
        health["probe_r2"] = probe_r2(encode_all(self.model, train.frames[some]), train.tool[some], latents, val.tool)
        health["update"] = self.progress.update
        self.progress.validation.append(health)
        score = health[f"error_ratio@{min(3, s.steps)}"]
        if score < self.progress.best:
            self.progress.best = score
            self.best = copy.deepcopy(self.model.state_dict())
        return health

    def save(self, path: Path) -> None:
        """Everything needed to go on, by way of a temporary file."""
        state = {
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "windows": self.windows.bit_generator.state,
            "directions": self.directions.get_state(),
        }
        torch.save(state, path.with_suffix(".partial"))
        os.replace(path.with_suffix(".partial"), path)

    def load(self, path: Path) -> None:
        """Go on where `save` left off."""
        state = torch.load(path, weights_only=True)
        self.progress = Progress(**state["progress"])
        self.model.load_state_dict(state["model"])
        self.best = state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.windows.bit_generator.state = state["windows"]
        self.directions.set_state(state["directions"])


def train_policy(
    config: ModelConfig,
    policy: GoalPolicy,
    latents: dict[str, torch.Tensor],
    data: dict[str, EpisodeSet],
    schedule: Schedule,
    seed: int,
    report: Callable[[dict], None],
) -> list[dict]:
    """Train the policy on frozen latents (N, D) of each split; keeps the weights of least validation loss.

    It takes two minutes, so it is not resumed but run again, to the same result.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3, weight_decay=schedule.weight_decay)
    best, kept, curve = math.inf, copy.deepcopy(policy.state_dict()), []
    for update in range(1, schedule.policy_updates + 1):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * learning_rate_factor(update, schedule.policy_updates, schedule.warm_up)
        policy.train()
        loss = policy_loss(policy, latents["train"], data["train"], schedule.policy_batch, config.block, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if update % schedule.every == 0 or update == schedule.policy_updates:
            policy.eval()
            with torch.inference_mode():
                fixed = torch.Generator().manual_seed(seed)
                val = float(policy_loss(policy, latents["val"], data["val"], 4096, config.block, fixed))
            curve.append({"update": update, "train": float(loss.detach()), "val": val})
            if val < best:
                best, kept = val, copy.deepcopy(policy.state_dict())
        report({"update": update, "policy_loss": float(loss.detach())})
    policy.load_state_dict(kept)
    policy.eval()
    return curve


def learning_rate_factor(update: int, updates: int, warm_up: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    return min(1.0, (update + 1) / max(1, warm_up)) * 0.5 * (1 + math.cos(math.pi * min(1.0, update / max(1, updates))))
