"""Ways through latent space are made straight, so that the distance to a goal says how far it is.

Temporal Straightening for Latent Planning (arXiv 2603.12231): L_curv = 1 - C.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Straightening(nn.Module):
    """1 - cos(z[t+1] - z[t], z[t+2] - z[t+1]), averaged: 0 on a line, 1 at right angles, 2 where the way turns back.

    Where nothing moves the cosine counts as 0 and has no gradient to speak of.
    """

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Scalar loss of latents (B, T, *L), T at least 3; a step is that of all tokens together."""
        if latents.shape[1] < 3:
            raise ValueError(f"latents: expected at least 3 steps in a row, found {latents.shape[1]}")
        velocity = latents.flatten(2).diff(dim=1)
        return (1.0 - F.cosine_similarity(velocity[:, :-1], velocity[:, 1:], dim=-1)).mean()
