"""SIGReg: latents are kept from collapsing by asking that they look like an isotropic Gaussian.

LeJEPA (arXiv 2511.08544) with the settings of LeWM (arXiv 2603.19312): the Epps-Pulley statistic of random
one-dimensional projections, integrated over 17 knots on [0, 3] by the trapezoid rule with weight exp(-t^2 / 2).
"""

from __future__ import annotations

import torch


def sigreg(latents: torch.Tensor, directions: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """Scalar loss of latents (T, B, D): the statistic over B, times B, averaged over T and `directions` random axes."""
    batch, dim = latents.shape[-2:]
    axes = torch.randn(dim, directions, generator=generator, device=latents.device, dtype=latents.dtype)
    axes = axes / axes.norm(dim=0, keepdim=True)
    t = torch.linspace(0.0, 3.0, 17, device=latents.device, dtype=latents.dtype)
    gaussian = torch.exp(-0.5 * t**2)
    trapezoid = torch.full_like(t, 2 * (t[1] - t[0]).item())  # twice: the integrand is even
    trapezoid[[0, -1]] *= 0.5
    angles = (latents @ axes).unsqueeze(-1) * t
    error = (angles.cos().mean(-3) - gaussian).square() + angles.sin().mean(-3).square()
    return (error @ (trapezoid * gaussian)).mean() * batch
