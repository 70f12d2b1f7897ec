"""Heads on a frozen model: the policy, the learned distance and the probes, trained on its latents of recorded play."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from jepa_ros.datasets.episodes import EpisodeSet
from jepa_ros.errors import InputError
from jepa_ros.training.loop import learning_rate_factor
from jepa_ros.training.losses import policy_loss, reachability_loss
from jepa_ros.training.recipe import Schedule
from jepa_ros.world_model.checkpoint import build_policy, build_reachability
from jepa_ros.world_model.config import ModelConfig, ProbeConfig, ReachabilityConfig
from jepa_ros.world_model.heads import JOINTS, GoalPolicy, Probe, Reachability, fit_probe

LEARNING_RATE = 1e-3
REACHABILITY_DECAY = 0.1
"""Weight decay of the learned distance: it ranks far ways a little better than with the policy's."""
VALIDATION_PAIRS = 4096


@dataclass(frozen=True)
class Heads:
    """What was trained on a frozen model, in evaluation mode. curve: losses of training and validation by update."""

    policy: GoalPolicy | None = None
    reachability: Reachability | None = None
    probes: Mapping[str, Probe] = field(default_factory=dict)
    curve: list[dict] = field(default_factory=list)

    def describe(self, config: ModelConfig) -> ModelConfig:
        """The model's configuration with these heads in place of those that it had."""
        return config.model_copy(
            update={
                "policy": config.policy if self.policy is not None else None,
                "reachability": config.reachability if self.reachability is not None else None,
                "probes": tuple(
                    ProbeConfig(name=p.name, dimension=p.dimension, error_m=p.error) for p in self.probes.values()
                ),
            }
        )


def fit_heads(
    config: ModelConfig,
    latents: Mapping[str, torch.Tensor],
    data: Mapping[str, EpisodeSet],
    schedule: Schedule,
    seed: int,
    report: Callable[[dict], None],
) -> Heads:
    """Train the heads that `config` has sizes for on latents (N, *L) of each split, from fresh weights of this seed.

    Of policy and learned distance the weights of least validation loss are kept; without policy_updates there are
    none. Probes are fitted to the positions that the episodes have (Episode.positions). It takes minutes, so it is not
    resumed but run again, to the same result. `report` hears of each update. Raises InputError where an episode is
    too short, or an object was never seen.
    """
    check_episode_length(config, data)
    probes = fit_probes(config, latents, data)
    if not schedule.policy_updates:
        return Heads(probes=probes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy, reachability = build_policy(config), build_reachability(config)
    parts = [
        _Part(name, head, loss, decay, seed)
        for name, head, loss, decay in (
            ("policy", policy, policy_loss, schedule.weight_decay),
            ("reachability", reachability, reachability_loss, REACHABILITY_DECAY),
        )
        if head is not None
    ]
    curve = _train(parts, config, latents, data, schedule, seed, report) if parts else []
    return Heads(policy, reachability, probes, curve)


class _Part:
    """A head in training; its optimiser and random numbers are its own, whatever is trained beside it."""

    def __init__(self, name: str, head: nn.Module, loss: Callable[..., torch.Tensor], decay: float, seed: int):
        self.name, self.head, self._loss = name, head, loss
        self.best, self.kept = math.inf, copy.deepcopy(head.state_dict())
        self._generator = torch.Generator().manual_seed(seed)
        self._optimizer = torch.optim.AdamW(head.parameters(), lr=LEARNING_RATE, weight_decay=decay)

    def step(self, latents: torch.Tensor, data: EpisodeSet, batch: int, block: int, rate: float) -> float:
        """One update at `rate` times the learning rate; returns its loss. Raises FloatingPointError."""
        for group in self._optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        self.head.train()
        loss = self._loss(self.head, latents, data, batch, block, self._generator)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(f"{self.name}: the loss is {value}")
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        return value

    @torch.inference_mode()
    def validate(self, latents: torch.Tensor, data: EpisodeSet, block: int, seed: int) -> float:
        """Loss of the same pairs each time; the weights of the least are kept."""
        self.head.eval()
        fixed = torch.Generator().manual_seed(seed)
        value = float(self._loss(self.head, latents, data, VALIDATION_PAIRS, block, fixed))
        if value < self.best:
            self.best, self.kept = value, copy.deepcopy(self.head.state_dict())
        return value

    def end(self) -> None:
        self.head.load_state_dict(self.kept)
        self.head.eval().requires_grad_(False)


def _train(
    parts: list[_Part],
    config: ModelConfig,
    latents: Mapping[str, torch.Tensor],
    data: Mapping[str, EpisodeSet],
    schedule: Schedule,
    seed: int,
    report: Callable[[dict], None],
) -> list[dict]:
    """Train all parts to the end of the schedule; returns their losses at each validation."""
    curve: list[dict] = []
    block = config.block
    for update in range(1, schedule.policy_updates + 1):
        rate = learning_rate_factor(update, schedule.policy_updates, schedule.warm_up)
        losses = {p.name: p.step(latents["train"], data["train"], schedule.policy_batch, block, rate) for p in parts}
        if update % schedule.every == 0 or update == schedule.policy_updates:
            entry = {"update": update}
            for part in parts:
                entry[part.name] = losses[part.name]
                entry[f"{part.name}_val"] = part.validate(latents["val"], data["val"], block, seed)
            curve.append(entry)
        report({"update": update, **losses})
    for part in parts:
        part.end()
    return curve


def add_head_sizes(config: ModelConfig) -> ModelConfig:
    """The configuration of a model with a policy, of a learned distance beside it."""
    if config.policy is None or config.reachability is not None:
        return config
    return config.model_copy(update={"reachability": ReachabilityConfig(width=config.policy.width)})


def fit_probes(
    config: ModelConfig, latents: Mapping[str, torch.Tensor], data: Mapping[str, EpisodeSet]
) -> dict[str, Probe]:
    """A probe of each of `positions`, fitted on training episodes, its error from test episodes (where there are none,
    from validation)."""
    test = "test" if "test" in data else "val"
    train_places, test_places = positions(config, data["train"]), positions(config, data[test])
    return {
        name: fit_probe(
            name,
            config.latent_shape,
            (latents["train"], torch.from_numpy(train_places[name])),
            (latents[test], torch.from_numpy(test_places[name])),
        )
        for name in train_places
    }


def positions(config: ModelConfig, data: EpisodeSet) -> dict[str, np.ndarray]:
    """(N, 3) m by name, and the model's joints (N, J) rad, of all frames; empty where the episodes were read without
    positions."""
    names = getattr(data.episodes[0], "positions", {})
    found = {name: np.concatenate([e.positions[name] for e in data.episodes]) for name in names}
    if found and (joints := len(config.proprioception.joints)):
        found.setdefault(JOINTS, np.concatenate([e.states[:, :joints] for e in data.episodes]))
    return found


def check_episode_length(config: ModelConfig, data: Mapping[str, EpisodeSet]) -> None:
    """Raise InputError where an episode has no whole model step."""
    for split, part in data.items():
        if part.lengths.min(initial=config.block) < config.block:
            raise InputError(
                f"episodes: expected {split} episodes of {config.block} ticks, found one of {part.lengths.min()}"
            )


def check_finite_latents(latents: Mapping[str, torch.Tensor]) -> None:
    """Raise InputError where a model makes latents that are no numbers."""
    for split, z in latents.items():
        if not bool(torch.isfinite(z).all()):
            raise InputError(f"model: expected finite latents of the {split} episodes, found NaN or Inf")
