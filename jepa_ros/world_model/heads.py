"""The fast policy (System 1): goal-conditioned inverse dynamics on frozen latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from jepa_ros.errors import InputError


class GoalPolicy(nn.Module):
    """Latent (B, D), goal latent (B, D), proprioception (B, P), time to go (B,) in ticks → actions (B, block * A).

    Trained to give the actions that led from one moment of play to a later one, and none from there on; asked with a
    time to go, it answers what play did on its way there. max_ticks: longest time to go that it knows.
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
        """See the class."""
        time = (ticks.clamp(0, self.max_ticks) / self.max_ticks).unsqueeze(1)
        return self.layers(torch.cat([latent, goal, proprioception, time], dim=1))


FACTOR_RANGE = 0.5
"""Share by which what the arm is doing now may lengthen or shorten the way."""


class Reachability(nn.Module):
    """Latent (B, D), goal latent (B, D), proprioception (B, P) -> control ticks to go (B,), at least 0.

    The distance of two embeddings, times a factor of 1 ± FACTOR_RANGE by latent, goal and proprioception: an arm that
    already moves towards the goal arrives sooner than one that moves away from it. The distance is 0 at the goal, obeys
    the triangle inequality, and keeps growing beyond the longest motion in the training data. Patch tokens are
    flattened by the caller.
    """

    def __init__(self, latent_dim: int, proprioception_dim: int, width: int, embedding: int, max_ticks: int):
        super().__init__()
        self.max_ticks = max_ticks
        self.embed = nn.Sequential(
            nn.Linear(latent_dim, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, embedding)
        )
        # Checkpoints hold these tensors under the name `haste`.
        self.haste = nn.Sequential(
            nn.Linear(2 * latent_dim + proprioception_dim, width), nn.GELU(), nn.Linear(width, 1)
        )

    def forward(self, latent: torch.Tensor, goal: torch.Tensor, proprioception: torch.Tensor) -> torch.Tensor:
        """See the class; a goal (1, D) applies to all B."""
        goal = goal.expand(len(latent), -1)
        both = self.embed(torch.cat([latent, goal]))
        square = (both[: len(latent)] - both[len(latent) :]).square().sum(1)
        # The root has no gradient at 0; adding a millionth of a tick under it keeps gradients finite.
        distance = self.max_ticks * ((square + 1e-12).sqrt() - 1e-6)
        return distance * self.speed_factor(latent, goal, proprioception)

    def speed_factor(self, latent: torch.Tensor, goal: torch.Tensor, proprioception: torch.Tensor) -> torch.Tensor:
        """Return (B,) by how much the present motion lengthens (> 1) or shortens (< 1) the time to go."""
        logits = self.haste(torch.cat([latent, goal, proprioception], dim=1)).squeeze(1)
        return 1.0 + FACTOR_RANGE * torch.tanh(logits)


JOINTS = "joints"
"""The probe of this name reads the positions of the model's joints."""


@dataclass(frozen=True)
class Probe:
    """Reads a position (k,) in m in the base frame, or joint positions (k,) in rad, off latents of shape L, patch
    tokens averaged first.

    weights: (D + 1, k), the last row the offset. error: on test episodes, the root mean square of the distance in m, of
    joints that of one of them in rad.
    """

    name: str
    weights: torch.Tensor
    error: float
    latent_shape: tuple[int, ...]

    @property
    def unit(self) -> str:
        """Of what it reads: m or rad."""
        return "rad" if self.name == JOINTS else "m"

    @property
    def dimension(self) -> int:
        """Numbers k that it reads."""
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
    """The probe of least squares on latents (N, *L) and positions (N, k) in m or rad; `test` gives its error.

    Latents are whitened and a millionth of their variance is added (ridge), so that directions in which they do not
    vary get no weight. Rows whose position is not finite are left out: the object was not seen there. Raises InputError
    where no row is left.
    """
    (z, y), (z_test, y_test) = (_seen(name, latent_shape, *pair) for pair in (train, test))
    mean, centre = z.mean(0), y.mean(0)
    covariance = (z - mean).T @ (z - mean) / len(z)
    ridge = 1e-6 * covariance.diagonal().mean().clamp(min=1e-12) * torch.eye(len(covariance), dtype=z.dtype)
    slope = torch.linalg.solve(covariance + ridge, (z - mean).T @ (y - centre) / len(z))
    weights = torch.vstack([slope, centre - mean @ slope])
    residual = z_test @ weights[:-1] + weights[-1] - y_test
    squares = residual.square().mean(1) if name == JOINTS else residual.square().sum(1)
    error = float(squares.mean().sqrt())
    return Probe(name, weights.float(), error, latent_shape)


def _seen(
    name: str, shape: tuple[int, ...], latents: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors (n, D) and positions (n, k), in double precision, of the rows that have a position."""
    seen = torch.isfinite(positions).all(1)
    if not seen.any():
        raise InputError(f"object {name}: expected positions in training and test episodes, found none in some of them")
    latents = latents[seen]
    return (latents.mean(1) if len(shape) > 1 else latents).double(), positions[seen].double()
