"""VICReg: each dimension of the latent must vary over the batch, and no two may be correlated.

arXiv 2105.04906, equations 1, 3 and 4, applied to the latents, in which the planner measures distances, not to an
expander's output. PLDM (arXiv 2502.14819) trains world models with it.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch.nn import functional as F

from jepa_ros.distributed import mean_over_ranks
from jepa_ros.world_model.anti_collapse.protocol import AntiCollapse, by_position, full_precision


class VicReg(AntiCollapse):
    """Targets are the latents themselves, with gradients on both sides (the paper's invariance term).

    variance, covariance: weights of the two terms. The paper weights invariance, variance and covariance by 25, 25 and
    1; here the prediction error has weight 1, so all are divided by 25.
    """

    weight: ClassVar[float] = 1.0

    def __init__(self, variance: float = 1.0, covariance: float = 1.0 / 25.0):
        super().__init__()
        self.variance, self.covariance = variance, covariance

    def loss(self, latents: torch.Tensor, frames: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """See AntiCollapse; of the batch of all ranks."""
        variance, covariance = variance_and_covariance(by_position(latents))
        return self.variance * variance + self.covariance * covariance


def variance_and_covariance(latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two scalar losses of latents (T, B, D), of the batch of all ranks and averaged over T.

    Variance: hinge of the standard deviations at 1 (epsilon 1e-4), averaged over D. Covariance: squares of the
    covariances off the diagonal, summed and divided by D.
    """
    with torch.autocast(latents.device.type, enabled=False):
        z = full_precision(latents)
        batch, dim = z.shape[-2:]
        mean, count = mean_over_ranks(z.mean(-2, keepdim=True), batch)
        centred = z - mean
        second, _ = mean_over_ranks(centred.mT @ centred / batch, batch)  # (T, D, D)
        matrix = second * (count / (count - 1))
        diagonal = matrix.diagonal(dim1=-2, dim2=-1)
        hinge = F.relu(1.0 - (diagonal + 1e-4).sqrt()).mean()
        off = matrix.square().sum((-2, -1)) - diagonal.square().sum(-1)
        return hinge, off.mean() / dim
