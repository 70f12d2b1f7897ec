"""Rotary positions in time, rows and columns as V-JEPA 2 has them (arXiv 2506.09985, section 2.1).

A head's numbers are divided into three equal parts of even width, for time, rows and columns; what is left over keeps
no position. In each part, pair i turns by position / 10000^(2i / width).

The published models carry an oversight that their weights are trained with: numbers 2i and 2i + 1 are turned as a pair,
but the angles are laid out as (angle 0 ... angle w/2 - 1, angle 0 ... angle w/2 - 1), so the two numbers of a pair turn
by different angles. It is kept here: without it the official weights give other features.
"""

from __future__ import annotations

import torch

BASE = 10000.0


def axis_width(head_dim: int) -> int:
    """Numbers of a head that each of the three axes takes: an even part of a third."""
    return 2 * (head_dim // 3 // 2)


def rotation(positions: torch.Tensor, head_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions (N, 3) in time, rows, columns → cosines and sines (N, head_dim) for `rotate`.

    A position of 0 leaves its part as it is: a token without a place in the image has 0 for its row and column.
    """
    width = axis_width(head_dim)
    exponents = torch.arange(width // 2, dtype=torch.float32, device=positions.device) / (width / 2)
    angles = positions.float()[..., None] / BASE**exponents  # (N, 3, width / 2)
    laid_out = torch.cat([angles, angles], dim=-1).flatten(-2)  # the oversight: not repeat_interleave
    rest = torch.zeros(*laid_out.shape[:-1], head_dim - 3 * width, device=positions.device)
    laid_out = torch.cat([laid_out, rest], dim=-1)
    return laid_out.cos(), laid_out.sin()


def rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Queries or keys (..., N, head_dim), turned by the angles of `rotation`."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((-odd, even), dim=-1).flatten(-2)
    return x * cosines + turned * sines
