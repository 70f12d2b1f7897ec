"""SIGReg: latents are regularised towards an isotropic Gaussian.

LeJEPA (arXiv 2511.08544) with the settings of LeWM (arXiv 2603.19312): the Epps-Pulley statistic of random
one-dimensional projections, integrated over 17 knots on [0, 3] by the trapezoid rule with weight exp(-t^2 / 2).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch.autograd.function import once_differentiable

from jepa_ros.distributed import count_ranks, mean_over_ranks
from jepa_ros.world_model.anti_collapse.protocol import AntiCollapse, by_position, full_precision


class SigReg(AntiCollapse):
    """LeWM's method: targets are the latents themselves, without stop-gradient or teacher (eq. 1-3).

    directions: random axes a call (LeWM: 1024).
    """

    weight: ClassVar[float] = 0.1

    def __init__(self, directions: int = 1024):
        super().__init__()
        self.directions = directions

    def loss(self, latents: torch.Tensor, frames: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """See AntiCollapse; of the batch of all ranks."""
        return sigreg(by_position(latents), self.directions, generator)


def sigreg(latents: torch.Tensor, directions: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """Return the loss of latents (T, B, D): the statistic over B, times B, averaged over T and random axes.

    directions: number of axes. With several ranks, B is the batch of all ranks: their characteristic functions are
    averaged, and all draw the same axes. Raises ValueError where they have no generator to draw the same axes from.
    """
    if generator is None and count_ranks() > 1:
        raise ValueError("sigreg: expected a generator of one state on all ranks, found None")
    with torch.autocast(latents.device.type, enabled=False):
        z = full_precision(latents)
        device = z.device if generator is None else generator.device
        axes = torch.randn(z.shape[-1], directions, generator=generator, device=device, dtype=z.dtype).to(z.device)
        axes = axes / axes.norm(dim=0, keepdim=True)
        t = torch.linspace(0.0, 3.0, 17, device=z.device, dtype=z.dtype)
        gaussian = torch.exp(-0.5 * t**2)
        trapezoid = torch.full_like(t, 2 * (t[1] - t[0]).item())  # twice: the integrand is even
        trapezoid[[0, -1]] *= 0.5
        # Real and imaginary part of the empirical characteristic function, each (T, directions, knots).
        local = _CharacteristicFunction.apply(z @ axes, t)
        (real, imaginary), batch = mean_over_ranks(local, z.shape[-2])
        error = (real - gaussian).square() + imaginary.square()
        return (error @ (trapezoid * gaussian)).mean() * batch


class _CharacteristicFunction(torch.autograd.Function):
    """Samples (T, B, M), knots (K,) → mean cosine and mean sine over B, (2, T, M, K).

    Cosine and sine are each other's derivatives: with both saved, the backward pass computes none, which halves the
    time.
    """

    @staticmethod
    def forward(ctx, samples: torch.Tensor, knots: torch.Tensor) -> torch.Tensor:
        angles = samples.unsqueeze(-1) * knots
        cos, sin = angles.cos(), angles.sin_()
        ctx.save_for_backward(cos, sin, knots)
        return torch.stack([cos.mean(-3), sin.mean(-3)])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        cos, sin, knots = ctx.saved_tensors
        real, imaginary = (gradient * knots / cos.shape[-3]).unsqueeze(-3).unbind(0)
        return (imaginary * cos).sum(-1) - (real * sin).sum(-1), None
