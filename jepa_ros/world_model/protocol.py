"""The seam between world models and everything that uses one, whatever its family.

Shapes: B situations; T steps in a row, a model step apart, oldest first; h = `history`, the steps that a model looks
back; L = `latent_shape`, (D,) or (tokens, D); P numbers of proprioception, 0 where a model takes none; K = block * A
numbers of an action block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class Context:
    """What imagination starts from. latents (B, h, *L). states (B, h, P), normalised. actions (B, h - 1, K): the
    executed blocks between them."""

    latents: torch.Tensor
    states: torch.Tensor
    actions: torch.Tensor

    def expand(self, count: int) -> Context:
        """The one situation in it, `count` times, without a copy."""
        return Context(*(x.expand(count, *x.shape[1:]) for x in (self.latents, self.states, self.actions)))


class WorldModel(Protocol):
    """What planners, nodes and evaluations need of a model."""

    latent_shape: tuple[int, ...]
    history: int

    def encode(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Frames (B, size, size, 3) uint8 rgb → latents (B, *L)."""

    def predict(
        self, latents: torch.Tensor, states: torch.Tensor, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Teacher-forced: latents (B, T, *L), states (B, T, P), actions (B, T, K), T ≤ h → the next latents (B, T, *L)
        and states (B, T, P). Entry t is predicted from the entries up to t alone.
        """

    def rollout(self, context: Context, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Imagine action blocks (B, H, K) from the context on → latents (B, H, *L), states (B, H, P)."""


class PredictiveModel(nn.Module):
    """Base of the families: a roll-out is `predict` again and again on a window of `history` steps that slides."""

    latent_shape: tuple[int, ...]
    history: int

    def rollout(self, context: Context, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See WorldModel."""
        h = self.history
        latents, states = list(context.latents.unbind(1)), list(context.states.unbind(1))
        blocks = torch.cat([context.actions, actions], dim=1)
        first = len(latents)
        for step in range(first, first + actions.shape[1]):
            low = max(0, step - h)
            latent, state = self.predict(
                torch.stack(latents[low:step], 1), torch.stack(states[low:step], 1), blocks[:, low:step]
            )
            latents.append(latent[:, -1])
            states.append(state[:, -1])
        return torch.stack(latents[first:], 1), torch.stack(states[first:], 1)


def as_images(frames: np.ndarray | torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Frames (B, H, W, 3) uint8 → (B, 3, H, W) float, of which mean (3,) is taken and by std (3,) divided; both for
    values of 0 to 1."""
    tensor = torch.from_numpy(np.ascontiguousarray(frames)) if isinstance(frames, np.ndarray) else frames
    scaled = tensor.to(mean.device).permute(0, 3, 1, 2).float().div(255.0)
    return (scaled - mean.view(3, 1, 1)) / std.view(3, 1, 1)
