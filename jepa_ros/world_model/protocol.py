"""The seam between world models and everything that uses one, whatever its family.

Shapes: B situations; C cameras that see one; S pixels of a frame's side; T steps in a row, a model step apart, oldest
first; h = `history`, the steps that a model looks back; L = `latent_shape`, (D,) or (tokens, D), of all views together;
P numbers of proprioception, 0 where a model takes none; K = block * A numbers of an action block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

from jepa_ros.errors import InputError


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

    def to(self, device: torch.device) -> Context:
        """The same on a device."""
        return Context(*(x.to(device) for x in (self.latents, self.states, self.actions)))


class WorldModel(Protocol):
    """What planners, nodes and evaluations need of a model."""

    latent_shape: tuple[int, ...]
    history: int

    def encode(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Frames uint8 rgb, (B, S, S, 3) or, of C > 1 cameras in the order of ModelConfig.cameras, (B, C, S, S, 3) →
        latents (B, *L). Raises InputError where the number of views is another."""

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


def step_context(model: WorldModel, context: Context, block: torch.Tensor) -> Context:
    """The context (B, h, ...) one model step later, after an action block (B, 1, K), as the model imagines it."""
    latents, states = model.rollout(context, block)
    return Context(
        torch.cat([context.latents[:, 1:], latents], dim=1),
        torch.cat([context.states[:, 1:], states], dim=1),
        torch.cat([context.actions, block], dim=1)[:, 1:],
    )


def flatten_views(frames: np.ndarray | torch.Tensor, cameras: int) -> np.ndarray | torch.Tensor:
    """Frames as `encode` takes them → (B * C, S, S, 3), the views of a situation one after the other.

    Raises InputError where they are not of so many cameras.
    """
    views = () if cameras == 1 else (cameras,)
    if frames.ndim != 4 + len(views) or tuple(frames.shape[1:-3]) != views or frames.shape[-1] != 3:
        expected = ", ".join(map(str, ("B", *views, "S", "S", 3)))
        raise InputError(f"frames: expected shape ({expected}), found {tuple(frames.shape)}")
    return frames if cameras == 1 else frames.reshape(-1, *frames.shape[2:])


def as_images(frames: np.ndarray | torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Frames (B, H, W, 3) uint8 → (B, 3, H, W) float, of which mean (3,) is taken and by std (3,) divided; both for
    values of 0 to 1."""
    tensor = torch.from_numpy(np.ascontiguousarray(frames)) if isinstance(frames, np.ndarray) else frames
    pixels = tensor.to(mean.device).permute(0, 3, 1, 2).float()
    # (x / 255 - mean) / std in one pass over the pixels, of which there are many.
    return torch.addcmul((-mean / std).view(3, 1, 1), pixels, (1.0 / (255.0 * std)).view(3, 1, 1))
