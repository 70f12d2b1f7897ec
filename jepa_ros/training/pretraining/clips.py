"""Clips of frames for pre-training: which are held out, which are drawn, and the crops that training sees of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from jepa_ros.bags.frame_runs import FrameRun
from jepa_ros.errors import InputError
from jepa_ros.world_model.device import CPU
from jepa_ros.world_model.frozen_encoder import IMAGE_MEAN, IMAGE_STD
from jepa_ros.world_model.protocol import as_images

HELD_OUT = 0.1
"""Share of the frames that validation keeps to itself."""
PIECE = 16
"""Stretches longer than this many clips are cut, so that one long recording can be divided into two sets."""


@dataclass(frozen=True)
class Crops:
    """Random rectangles that training sees in place of the picture, stretched to its size; one a clip.

    scale: share of the picture's area, aspect: width over height, both (least, most) of a draw; those of V-JEPA (arXiv
    2404.08471, appendix) and I-JEPA. A scale of (1, 1) with an aspect of (1, 1) is the picture as it is.
    """

    scale: tuple[float, float] = (0.3, 1.0)
    aspect: tuple[float, float] = (0.75, 1.35)


class Clips:
    """All clips of `frames` frames, `stride` apart, of some stretches; a clip is known by its number."""

    def __init__(self, stretches: Sequence[FrameRun], frames: int, stride: int):
        span = (frames - 1) * stride + 1
        self.stretches = [s for s in stretches if len(s.frames) >= span]
        self._starts = np.cumsum([0, *(len(s.frames) - span + 1 for s in self.stretches)])
        self._offsets = np.arange(frames) * stride

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def frames(self) -> int:
        """Number of different frames."""
        return sum(len(s.frames) for s in self.stretches)

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Clips (B, T, size, size, 3) uint8 of numbers (B,) below len(self)."""
        which = np.searchsorted(self._starts, numbers, side="right") - 1
        at = (numbers - self._starts[which])[:, None] + self._offsets
        return np.stack([self.stretches[w].frames[i] for w, i in zip(which, at, strict=True)])

    def draw(self, batch: int, rng: np.random.Generator) -> np.ndarray:
        """Clips (B, T, size, size, 3) uint8, uniform over all there are."""
        return self.take(rng.integers(len(self), size=batch))

    def spread(self, count: int) -> np.ndarray:
        """At most `count` clips, evenly over all there are; always the same ones."""
        return self.take(np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int)))


def divide(
    stretches: Sequence[FrameRun], frames: int, stride: int, rng: np.random.Generator
) -> tuple[list[FrameRun], list[FrameRun]]:
    """Stretches to train on, and those held out: no frame is in both.

    Long stretches are cut in pieces of PIECE clips; pieces are drawn until they hold HELD_OUT of the frames. Raises
    InputError where there are not two clips without a common frame.
    """
    span = (frames - 1) * stride + 1
    longest = max((len(s.frames) for s in stretches), default=0)
    pieces = [p for s in stretches for p in _pieces(s, PIECE * span) if len(p.frames) >= span]
    if len(pieces) == 1:
        pieces = _pieces(pieces[0], max(span, len(pieces[0].frames) - max(span, len(pieces[0].frames) // 5)))
        pieces = [p for p in pieces if len(p.frames) >= span]
    if len(pieces) < 2:
        raise InputError(
            f"pictures: expected two clips of {frames} frames, {stride} apart, without a gap ({span} frames each, one "
            f"to train on and one to hold out), found {len(pieces)}; the longest stretch has {longest} frames"
        )
    total, kept, held = sum(len(p.frames) for p in pieces), [], []
    for i in rng.permutation(len(pieces)):
        full = bool(held) and sum(len(p.frames) for p in held) + len(pieces[i].frames) > HELD_OUT * total
        (kept if full else held).append(pieces[i])
    return kept, held


def _pieces(stretch: FrameRun, length: int) -> list[FrameRun]:
    cuts = range(0, len(stretch.frames), length)
    return [FrameRun(stretch.frames[i : i + length], stretch.stamps[i : i + length], stretch.source) for i in cuts]


def normalize_clips(clips: np.ndarray, device: torch.device = CPU) -> torch.Tensor:
    """Clips (B, T, S, S, 3) uint8 → (B, T, 3, S, S) float on a device, by the mean and deviation that both methods came
    with."""
    frames = clips.reshape(-1, *clips.shape[2:])
    mean, std = (torch.tensor(values, device=device) for values in (IMAGE_MEAN, IMAGE_STD))
    return as_images(frames, mean, std).unflatten(0, clips.shape[:2])


def crop_randomly(clips: torch.Tensor, crops: Crops, rng: np.random.Generator) -> torch.Tensor:
    """A random crop of each clip (B, T, 3, S, S), the same in all its frames, resampled to S x S bilinearly."""
    batch = len(clips)
    area = rng.uniform(*crops.scale, size=batch)
    ratio = np.exp(rng.uniform(*np.log(crops.aspect), size=batch))
    sides = np.minimum(1.0, np.sqrt(np.stack([area * ratio, area / ratio], axis=1)))  # (B, 2): width, height
    centres = rng.uniform(-1.0, 1.0, size=(batch, 2)) * (1.0 - sides)
    theta = np.zeros((batch, 2, 3))
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = sides[:, 0], sides[:, 1], centres
    flat = clips.flatten(1, 2)
    grid = F.affine_grid(torch.from_numpy(theta).to(clips), list(flat.shape), align_corners=False)
    return F.grid_sample(flat, grid, padding_mode="border", align_corners=False).view_as(clips)
