"""Rotary positions (RoFormer, arXiv 2104.09864, section 3.2) of a grid of tokens, an axis at a time: time, row, column.

A head's numbers are taken as pairs, number i with number i + head_dim / 2. A third of the pairs turns with each axis;
what is left of them does not turn.
"""

from __future__ import annotations

import torch

from jepa_ros.errors import InputError

# Grids have 16 to 32 rows and windows a few frames: with the 10,000 of language models most pairs would hardly turn.
_BASE = 100.0


def axial_rope(times: torch.Tensor, rows: int, columns: int, head_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines (T * rows * columns, head_dim // 2) of the tokens of frames at `times` (T,), row by row.

    Raises InputError where head_dim is odd or has no pair for each of the three axes.
    """
    if head_dim % 2 or head_dim < 6:
        raise InputError(f"predictor.head_dim: expected an even number of at least 6 for rope, found {head_dim}")
    per_axis = head_dim // 6
    speeds = _BASE ** (-torch.arange(per_axis, device=times.device) / per_axis)
    row, column = (torch.arange(count, device=times.device) for count in (rows, columns))
    grid = torch.stack(torch.meshgrid(times.float(), row.float(), column.float(), indexing="ij"), -1).flatten(0, 2)
    angles = (grid.unsqueeze(-1) * speeds).flatten(1)
    still = angles.new_zeros(len(angles), head_dim // 2 - 3 * per_axis)
    angles = torch.cat([angles, still], 1)
    return angles.cos(), angles.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Queries or keys (..., N, head_dim), turned by axial_rope's cosines and sines (N, head_dim // 2)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)
