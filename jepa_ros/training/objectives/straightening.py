"""Straightening loss: straight trajectories in latent space, so that latent distance grows with the way to a goal.

Temporal Straightening for Latent Planning (arXiv 2603.12231): L_curv = 1 - C.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from jepa_ros.errors import InputError

MIN_LATENT_MOTION = 1e-2
"""A latent that moves by less has no direction: its gradient would be rounding noise divided by almost zero."""


class Straightening(nn.Module):
    """1 - cos(z[t+1] - z[t], z[t+2] - z[t+1]), averaged: 0 on a line, 1 at right angles, 2 on a reversal.

    Where a latent moves less than MIN_LATENT_MOTION, the cosine counts as 0 and has no gradient.
    """

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of latents (B, T, *L), over all tokens together. Raises InputError if T < 3."""
        if latents.shape[1] < 3:
            raise InputError(f"straightening loss: needs at least 3 consecutive latents, found {latents.shape[1]}")
        velocity = latents.flatten(2).diff(dim=1)
        moves = velocity.detach().norm(dim=-1) > MIN_LATENT_MOTION
        both = moves[:, :-1] & moves[:, 1:]
        cosine = F.cosine_similarity(velocity[:, :-1][both], velocity[:, 1:][both], dim=-1)
        return 1.0 - cosine.sum() / both.numel()
