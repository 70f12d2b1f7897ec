"""Linear read-outs from the latent: what a frozen model's pixels say of the tool, of an object, or of the joints."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from jepa_ros.errors import InputError

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
