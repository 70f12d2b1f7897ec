"""Heads on frozen latents: the goal-conditioned policy, the learned distance in ticks, and linear probes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from jepa_ros.errors import InputError


class GoalPolicy(nn.Module):
    """Latent (B, D), goal latent (B, D), proprioception (B, P), time to go (B,) in ticks → actions (B, block * A).

    Inverse dynamics: trained on the actions that led from one moment of play to a later one within the time to go, and
    on zero actions from there on. max_ticks: longest time to go.
    """

    def __init__(
        self, latent_dim: int, proprioception_dim: int, action_dim: int, width: int, depth: int, max_ticks: int
    ):
        super().__init__()
        self.max_ticks = max_ticks
        layers: list[nn.Module] = [nn.Linear(2 * latent_dim + proprioception_dim + 1, width), nn.GELU()]
        for _ in range(depth):
            layers += [nn.Linear(width, width), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, action_dim))

    def forward(
        self, latent: torch.Tensor, goal: torch.Tensor, proprioception: torch.Tensor, ticks: torch.Tensor
    ) -> torch.Tensor:
        time = (ticks.clamp(0, self.max_ticks) / self.max_ticks).unsqueeze(1)
        return self.layers(torch.cat([latent, goal, proprioception, time], dim=1))


FACTOR_RANGE = 0.5
"""Largest relative change of the time to go by the present motion."""


class Reachability(nn.Module):
    """Latent (B, D), goal latent (B, D), proprioception (B, P) → control ticks to go (B,), at least 0.

    The distance of two embeddings, times a factor of 1 ± FACTOR_RANGE: an arm that already moves towards the goal
    arrives sooner than one that moves away. The distance is 0 at the goal, obeys the triangle inequality, and grows
    beyond the longest motion in the training data. Patch tokens are flattened by the caller.
    """

    def __init__(self, latent_dim: int, proprioception_dim: int, width: int, embedding: int, max_ticks: int):
        super().__init__()
        self.max_ticks = max_ticks
        self.embed = nn.Sequential(
            nn.Linear(latent_dim, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, embedding)
        )
        # `haste` is the name of these tensors in checkpoints.
        self.haste = nn.Sequential(
            nn.Linear(2 * latent_dim + proprioception_dim, width), nn.GELU(), nn.Linear(width, 1)
        )

    def forward(self, latent: torch.Tensor, goal: torch.Tensor, proprioception: torch.Tensor) -> torch.Tensor:
        """See the class; a goal (1, D) applies to all B."""
        goal = goal.expand(len(latent), -1)
        both = self.embed(torch.cat([latent, goal]))
        square = (both[: len(latent)] - both[len(latent) :]).square().sum(1)
        # The root has no finite gradient at 0, so a small number is added under it.
        distance = self.max_ticks * ((square + 1e-12).sqrt() - 1e-6)
        return distance * self.speed_factor(latent, goal, proprioception)

    def speed_factor(self, latent: torch.Tensor, goal: torch.Tensor, proprioception: torch.Tensor) -> torch.Tensor:
        """Return the factor (B,) by which the present motion lengthens (> 1) or shortens (< 1) the time to go."""
        logits = self.haste(torch.cat([latent, goal, proprioception], dim=1)).squeeze(1)
        return 1.0 + FACTOR_RANGE * torch.tanh(logits)


JOINTS = "joints"
"""Name of the probe of joint positions."""


@dataclass(frozen=True)
class Probe:
    """Linear probe of a position (k,) in m in the base frame, or of joint positions (k,) in rad.

    It reads latents of shape L; patch tokens are averaged first. weights: (D + 1, k), the last row is the offset.
    error: root mean square on test episodes, of the distance in m, or of one joint in rad.
    """

    name: str
    weights: torch.Tensor
    error: float
    latent_shape: tuple[int, ...]

    @property
    def unit(self) -> str:
        """Unit of the position: m or rad."""
        return "rad" if self.name == JOINTS else "m"

    @property
    def dimension(self) -> int:
        """Number k of values."""
        return self.weights.shape[1]

    def read(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (..., *L) → positions (..., k) in m or rad."""
        if len(self.latent_shape) > 1:
            latents = latents.mean(-2)
        return latents @ self.weights[:-1] + self.weights[-1]


def fit_probe(
    name: str,
    latent_shape: tuple[int, ...],
    train: tuple[torch.Tensor, torch.Tensor],
    test: tuple[torch.Tensor, torch.Tensor],
) -> Probe:
    """Fit a probe by ridge regression of positions (N, k), m or rad, on latents (N, *L).

    test: the pair that its error is measured on. The ridge is a millionth of the mean variance, so that constant
    directions get no weight. Rows with a non-finite position are dropped: the object was not visible. Raises InputError
    where no row is left.
    """
    (z, y), (z_test, y_test) = (_select_finite(name, latent_shape, *pair) for pair in (train, test))
    mean, centre = z.mean(0), y.mean(0)
    covariance = (z - mean).T @ (z - mean) / len(z)
    ridge = 1e-6 * covariance.diagonal().mean().clamp(min=1e-12) * torch.eye(len(covariance), dtype=z.dtype)
    slope = torch.linalg.solve(covariance + ridge, (z - mean).T @ (y - centre) / len(z))
    weights = torch.vstack([slope, centre - mean @ slope])
    residual = z_test @ weights[:-1] + weights[-1] - y_test
    squares = residual.square().mean(1) if name == JOINTS else residual.square().sum(1)
    error = float(squares.mean().sqrt())
    return Probe(name, weights.float(), error, latent_shape)


def _select_finite(
    name: str, shape: tuple[int, ...], latents: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return latents (n, D) and positions (n, k) of the rows that have a position, in double precision."""
    finite = torch.isfinite(positions).all(1)
    if not finite.any():
        raise InputError(f"object {name}: expected positions in training and test episodes, found none in some of them")
    latents = latents[finite]
    return (latents.mean(1) if len(shape) > 1 else latents).double(), positions[finite].double()
