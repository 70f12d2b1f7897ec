"""Clips of frames for pre-training: splitting off held-out clips, drawing, and random crops."""

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

HELD_OUT_SHARE = 0.1
"""Share of the frames that are held out for validation."""
PIECE_CLIPS = 16
"""Frame runs longer than this many clips are cut, so that one long recording can be split into two sets."""


@dataclass(frozen=True)
class Crops:
    """Random rectangles, one for each clip, that are scaled to the size of the image for training.

    scale: share of the image's area; aspect: width over height; both (least, most) of a uniform draw, as in V-JEPA
    (arXiv 2404.08471, appendix) and I-JEPA. With both (1, 1) the image stays as it is.
    """

    scale: tuple[float, float] = (0.3, 1.0)
    aspect: tuple[float, float] = (0.75, 1.35)


class Clips:
    """All clips of `frames` frames, `stride` apart, of some frame runs; clips are numbered from 0."""

    def __init__(self, stretches: Sequence[FrameRun], frames: int, stride: int):
        span = (frames - 1) * stride + 1
        self.stretches = [s for s in stretches if len(s.frames) >= span]
        self._starts = np.cumsum([0, *(len(s.frames) - span + 1 for s in self.stretches)])
        self._offsets = np.arange(frames) * stride

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def frames(self) -> int:
        """Return the number of different frames."""
        return sum(len(s.frames) for s in self.stretches)

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Return clips (B, T, size, size, 3) uint8 of the given numbers (B,), below len(self)."""
        which = np.searchsorted(self._starts, numbers, side="right") - 1
        at = (numbers - self._starts[which])[:, None] + self._offsets
        return np.stack([self.stretches[w].frames[i] for w, i in zip(which, at, strict=True)])

    def draw(self, batch: int, rng: np.random.Generator) -> np.ndarray:
        """Draw clips (B, T, size, size, 3) uint8 uniformly."""
        return self.take(rng.integers(len(self), size=batch))

    def spread(self, count: int) -> np.ndarray:
        """Return at most `count` clips, evenly spread; always the same ones."""
        return self.take(np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int)))


def split_clips(
    stretches: Sequence[FrameRun], frames: int, stride: int, rng: np.random.Generator
) -> tuple[list[FrameRun], list[FrameRun]]:
    """Return the frame runs to train on and the held-out ones; no frame is in both.

    Long runs are cut into pieces of PIECE_CLIPS clips; pieces are drawn until they hold HELD_OUT_SHARE of the frames.
    Raises InputError if there are not two clips without a common frame.
    """
    span = (frames - 1) * stride + 1
    longest = max((len(s.frames) for s in stretches), default=0)
    pieces = [p for s in stretches for p in _pieces(s, PIECE_CLIPS * span) if len(p.frames) >= span]
    if len(pieces) == 1:
        pieces = _pieces(pieces[0], max(span, len(pieces[0].frames) - max(span, len(pieces[0].frames) // 5)))
        pieces = [p for p in pieces if len(p.frames) >= span]
    if len(pieces) < 2:
        raise InputError(
            f"images: too few for training and validation: two clips of {frames} frames, {stride} apart, need two runs "
            f"of {span} frames without a gap, found {len(pieces)}; the longest run has {longest} frames"
        )
    total, kept, held = sum(len(p.frames) for p in pieces), [], []
    for i in rng.permutation(len(pieces)):
        full = bool(held) and sum(len(p.frames) for p in held) + len(pieces[i].frames) > HELD_OUT_SHARE * total
        (kept if full else held).append(pieces[i])
    return kept, held


def _pieces(stretch: FrameRun, length: int) -> list[FrameRun]:
    cuts = range(0, len(stretch.frames), length)
    return [FrameRun(stretch.frames[i : i + length], stretch.stamps[i : i + length], stretch.source) for i in cuts]


def normalize_clips(clips: np.ndarray, device: torch.device = CPU) -> torch.Tensor:
    """Return clips (B, T, S, S, 3) uint8 as (B, T, 3, S, S) float on a device, normalized with the mean and standard
    deviation of both published methods."""
    frames = clips.reshape(-1, *clips.shape[2:])
    mean, std = (torch.tensor(values, device=device) for values in (IMAGE_MEAN, IMAGE_STD))
    return as_images(frames, mean, std).unflatten(0, clips.shape[:2])


def crop_randomly(clips: torch.Tensor, crops: Crops, rng: np.random.Generator) -> torch.Tensor:
    """Return a random crop of each clip (B, T, 3, S, S), the same in all its frames, resampled to S x S bilinearly."""
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
