"""Heads on a frozen world model: policy, learned distance and probes, trained on its latents of recorded play."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from jepa_ros.datasets.episodes import EpisodeSet
from jepa_ros.errors import InputError
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.training.losses import policy_loss, reachability_loss
from jepa_ros.training.recipe import Schedule
from jepa_ros.training.trainer import ResumableTrainer, copy_weights, descend, learning_rate_factor
from jepa_ros.world_model.checkpoint import build_policy, build_reachability
from jepa_ros.world_model.config import ModelConfig, ProbeConfig, ReachabilityConfig
from jepa_ros.world_model.heads import JOINTS, GoalPolicy, Probe, Reachability, fit_probe

LEARNING_RATE = 1e-3
REACHABILITY_DECAY = 0.1
"""Weight decay of the learned distance: it ranks long ways a little better than with the policy's."""
VALIDATION_PAIRS = 4096


@dataclass(frozen=True)
class Heads:
    """The heads of a model, in evaluation mode. curve: losses of training and validation by update."""

    policy: GoalPolicy | None = None
    reachability: Reachability | None = None
    probes: Mapping[str, Probe] = field(default_factory=dict)
    curve: list[dict] = field(default_factory=list)

    def describe(self, config: ModelConfig) -> ModelConfig:
        """Return the model's config with these heads in place of its former ones."""
        probes = [ProbeConfig(name=p.name, dimension=p.dimension, error_m=p.error) for p in self.probes.values()]
        return config.model_copy(
            update={
                "policy": config.policy if self.policy is not None else None,
                "reachability": config.reachability if self.reachability is not None else None,
                "probes": tuple(probes),
            }
        )


def fit_heads(
    config: ModelConfig,
    latents: Mapping[str, torch.Tensor],
    data: Mapping[str, EpisodeSet],
    schedule: Schedule,
    seed: int,
    bar: ProgressDisplay,
    state_file: Path | None = None,
) -> Heads:
    """Train the heads that `config` has sizes for on latents (N, *L) of each split, from new weights of this seed.

    Policy and learned distance keep the weights of least validation loss; with policy_updates 0 there are none. Probes
    are fitted to the positions that the episodes have (Episode.positions).

    state_file: resumes an interrupted training; removed at the end. Raises InputError if an episode is too short, or an
    object was never seen.
    """
    for split, part in data.items():
        if (shortest := part.lengths.min(initial=config.block)) < config.block:
            raise InputError(f"{split} episodes: one has {shortest} ticks, fewer than the {config.block} of a step")
    probes = fit_probes(config, latents, data)
    if not schedule.policy_updates:
        return Heads(probes=probes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy, reachability = build_policy(config), build_reachability(config)
    heads = []
    if policy is not None:
        heads.append(_TrainedHead("policy", policy, policy_loss, schedule.weight_decay, seed))
    if reachability is not None:
        heads.append(_TrainedHead("reachability", reachability, reachability_loss, REACHABILITY_DECAY, seed))
    if not heads:
        return Heads(probes=probes)
    trainer = HeadsTrainer(heads, config.block, latents, data, schedule, seed)
    if state_file is not None:
        trainer.load_if_there(state_file)
    task = bar.add("heads", schedule.policy_updates, trainer.progress.update)

    def show(values: dict) -> None:
        losses = ", ".join(f"{head.name} {values[head.name]:.3f}" for head in heads)
        bar.update(task, values["update"], losses)

    trainer.run(state_file, show)
    if state_file is not None:
        state_file.unlink()
    return Heads(policy, reachability, probes, trainer.progress.validation)


class _TrainedHead:
    """A head in training, with its own optimiser and random numbers, so that heads are independent."""

    def __init__(self, name: str, head: nn.Module, loss: Callable[..., torch.Tensor], decay: float, seed: int):
        self.name, self.head, self.loss = name, head, loss
        self.best, self.best_weights = math.inf, copy_weights(head.state_dict())
        self.generator = torch.Generator().manual_seed(seed)
        self.optimizer = torch.optim.AdamW(head.parameters(), lr=LEARNING_RATE, weight_decay=decay)


class HeadsTrainer(ResumableTrainer):
    """Trains several heads side by side. After `run` they have the weights of their least validation loss."""

    def __init__(
        self,
        heads: list[_TrainedHead],
        block: int,
        latents: Mapping[str, torch.Tensor],
        data: Mapping[str, EpisodeSet],
        schedule: Schedule,
        seed: int,
    ):
        super().__init__(schedule.policy_updates, schedule.every, curve_every=schedule.policy_updates)
        self._heads, self._block, self._latents, self._data = heads, block, latents, data
        self._schedule, self._seed, self._losses = schedule, seed, {}

    def run(self, *arguments, **options) -> None:
        super().run(*arguments, **options)
        for part in self._heads:
            part.head.load_state_dict(part.best_weights)
            part.head.eval().requires_grad_(False)

    def _update(self) -> dict[str, float]:
        s = self._schedule
        rate = LEARNING_RATE * learning_rate_factor(self.progress.update + 1, s.policy_updates, s.warm_up)
        for part in self._heads:
            part.head.train()
            loss = self._loss(part, "train", s.policy_batch, part.generator)
            self._losses[part.name] = float(loss.detach())
            self.check_finite(self._losses[part.name], part.name)
            descend(loss, part.optimizer, rate)
        return dict(self._losses)

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Return the losses of the same validation pairs each time, beside the last losses of training."""
        values = {"update": self.progress.update}
        for part in self._heads:
            part.head.eval()
            generator = torch.Generator().manual_seed(self._seed)
            value = float(self._loss(part, "val", VALIDATION_PAIRS, generator))
            values |= {part.name: self._losses[part.name], f"{part.name}_val": value}
            if value < part.best:
                part.best, part.best_weights = value, copy_weights(part.head.state_dict())
        self.progress.validation.append(values)
        return values

    def _loss(self, part: _TrainedHead, split: str, pairs: int, generator: torch.Generator) -> torch.Tensor:
        return part.loss(part.head, self._latents[split], self._data[split], pairs, self._block, generator)

    def state(self) -> dict:
        return {
            part.name: {
                "head": part.head.state_dict(),
                "optimizer": part.optimizer.state_dict(),
                "generator": part.generator.get_state(),
                "best": part.best,
                "best_weights": part.best_weights,
            }
            for part in self._heads
        }

    def set_state(self, state: dict) -> None:
        for part in self._heads:
            own = state[part.name]
            part.head.load_state_dict(own["head"])
            part.optimizer.load_state_dict(own["optimizer"])
            part.generator.set_state(own["generator"])
            part.best, part.best_weights = own["best"], own["best_weights"]


def add_head_sizes(config: ModelConfig) -> ModelConfig:
    """Return the config with sizes of a learned distance beside the policy, if there is a policy."""
    if config.policy is None or config.reachability is not None:
        return config
    return config.model_copy(update={"reachability": ReachabilityConfig(width=config.policy.width)})


def fit_probes(
    config: ModelConfig, latents: Mapping[str, torch.Tensor], data: Mapping[str, EpisodeSet]
) -> dict[str, Probe]:
    """Return a probe for each of `positions`, fitted on training episodes; its error is that on test episodes (on
    validation episodes, if there are no test episodes)."""
    test = "test" if "test" in data else "val"
    train_places, test_places = positions(config, data["train"]), positions(config, data[test])
    probes = {}
    for name, places in train_places.items():
        fitted_on = latents["train"], torch.from_numpy(places)
        measured_on = latents[test], torch.from_numpy(test_places[name])
        probes[name] = fit_probe(name, config.latent_shape, fitted_on, measured_on)
    return probes


def positions(config: ModelConfig, data: EpisodeSet) -> dict[str, np.ndarray]:
    """Return (N, 3) m by name, and the model's joints (N, J) rad, of all frames; empty if the episodes were read
    without positions."""
    names = getattr(data.episodes[0], "positions", {})
    found = {name: np.concatenate([e.positions[name] for e in data.episodes]) for name in names}
    if found and (joints := len(config.proprioception.joints)):
        found.setdefault(JOINTS, np.concatenate([e.states[:, :joints] for e in data.episodes]))
    return found
