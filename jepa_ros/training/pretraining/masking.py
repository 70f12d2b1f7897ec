"""Masks for masked prediction: V-JEPA's tubes and I-JEPA's blocks.

Masks are indexes into a grid of patches, drawn from the caller's generator; images and weights are not needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

MIN_CONTEXT_SHARE = 0.04
"""Least share of the grid in a context: ten patches of 16 x 16 in the code of I-JEPA (arXiv 2301.08243)."""


@dataclass(frozen=True)
class Blocks:
    """`count` rectangles of patches. scale: share of the grid that each covers; aspect: height over width; both are
    (least, most) of a uniform draw."""

    count: int
    scale: tuple[float, float]
    aspect: tuple[float, float] = (0.75, 1.5)


SHORT_RANGE = Blocks(8, (0.15, 0.15))
"""V-JEPA's short-range mask (arXiv 2404.08471, section 3.2)."""
LONG_RANGE = Blocks(2, (0.7, 0.7))
"""V-JEPA's long-range mask (the same section)."""
TARGETS = Blocks(4, (0.15, 0.2))
"""I-JEPA's target blocks (arXiv 2301.08243, section 3)."""
CONTEXT = Blocks(1, (0.85, 1.0), (1.0, 1.0))
"""I-JEPA's context block, from which the targets are removed (the same section)."""


@dataclass(frozen=True)
class Masks:
    """Indexes of tokens for B samples, each row ascending, int64.

    context: (B, C), seen by the encoder. targets: (B, M, K), M groups of K tokens, predicted one group at a time.
    A token's index is (step * grid + row) * grid + column.
    """

    context: np.ndarray
    targets: np.ndarray


def tube_masks(grid: int, steps: int, blocks: Blocks, batch: int, rng: np.random.Generator) -> Masks:
    """Return V-JEPA's masks for clips of `steps` x grid x grid tokens: the union of `blocks`, the same at every step,
    is predicted from the rest, as one group (M = 1).

    The size of the blocks is drawn once per batch, their places for every sample. Rows of a batch must be equally long,
    so random tubes are left out, neither seen nor predicted, down to the length of the shortest row (the published code
    leaves out the last ones, always on the same side of the image).
    """
    height, width = _size(grid, blocks, rng)
    hidden = [_hidden(grid, height, width, blocks.count, rng) for _ in range(batch)]
    seen = _even([np.flatnonzero(~mask) for mask in hidden], rng)
    targets = _even([np.flatnonzero(mask) for mask in hidden], rng)
    return Masks(_over_time(seen, grid, steps), _over_time(targets, grid, steps)[:, None])


def block_masks(grid: int, batch: int, rng: np.random.Generator) -> Masks:
    """Return I-JEPA's masks for single images of grid x grid tokens: four target blocks, and a large block without them
    as context.

    Sizes are drawn once per batch, places for every sample. Targets may overlap one another, never the context, from
    which random tokens are left out down to the length of the shortest row.
    """
    height, width = _size(grid, TARGETS, rng)
    large = _size(grid, CONTEXT, rng)
    contexts, targets = [], []
    for _ in range(batch):
        context, groups = _context_and_targets(grid, large, (height, width), rng)
        contexts.append(context)
        targets.append(groups)
    return Masks(_even(contexts, rng), np.stack(targets))


def _context_and_targets(
    grid: int, large: tuple[int, int], small: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the indexes of one sample's context (C,) and of its targets, a list of (K,)."""
    while True:
        groups = [_block(grid, *small, rng) for _ in range(TARGETS.count)]
        context = _block(grid, *large, rng) & ~np.logical_or.reduce(groups)
        if context.sum() >= _min_context(grid):
            return np.flatnonzero(context), [np.flatnonzero(g) for g in groups]


def _hidden(grid: int, height: int, width: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return the union (grid²,) bool of `count` blocks that leaves a large enough context."""
    while True:
        mask = np.logical_or.reduce([_block(grid, height, width, rng) for _ in range(count)])
        if (~mask).sum() >= _min_context(grid):
            return mask


def _min_context(grid: int) -> int:
    return max(1, int(MIN_CONTEXT_SHARE * grid * grid))


def _size(grid: int, blocks: Blocks, rng: np.random.Generator) -> tuple[int, int]:
    """Draw area and aspect; return height and width in patches, limited by the grid."""
    area = int(grid * grid * rng.uniform(*blocks.scale))
    aspect = rng.uniform(*blocks.aspect)
    sides = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    return tuple(min(grid, max(1, side)) for side in sides)


def _block(grid: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return a rectangle at a random place in the grid as (grid²,) bool."""
    top, left = rng.integers(grid - height + 1), rng.integers(grid - width + 1)
    mask = np.zeros((grid, grid), bool)
    mask[top : top + height, left : left + width] = True
    return mask.ravel()


def _even(rows: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Drop random entries of each row down to the length of the shortest; return (B, shortest), ascending."""
    shortest = min(len(row) for row in rows)
    return np.stack([np.sort(rng.permutation(row)[:shortest]) for row in rows])


def _over_time(places: np.ndarray, grid: int, steps: int) -> np.ndarray:
    """Return the tokens (B, steps * n) of places (B, n) at every step."""
    return (np.arange(steps)[:, None] * grid * grid + places[:, None]).reshape(len(places), -1)
