"""Ways through latent space are made straight, so that the distance to a goal says how far it is.

Temporal Straightening for Latent Planning (arXiv 2603.12231): L_curv = 1 - C.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from jepa_ros.errors import InputError

STILL = 1e-2
"""A latent that moves by less has no direction: its gradient would be rounding noise divided by next to nothing."""


class Straightening(nn.Module):
    """1 - cos(z[t+1] - z[t], z[t+2] - z[t+1]), averaged: 0 on a line, 1 at right angles, 2 where the way turns back.

    Where nothing moves (STILL) the cosine counts as 0 and has no gradient.
    """

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Scalar loss of latents (B, T, *L); a way is that of all tokens together. Raises InputError where T < 3."""
        if latents.shape[1] < 3:
            raise InputError(f"loss straightening: expected at least 3 steps in a row, found {latents.shape[1]}")
        velocity = latents.flatten(2).diff(dim=1)
        moves = velocity.detach().norm(dim=-1) > STILL
        both = moves[:, :-1] & moves[:, 1:]
        cosine = F.cosine_similarity(velocity[:, :-1][both], velocity[:, 1:][both], dim=-1)
        return 1.0 - cosine.sum() / both.numel()
