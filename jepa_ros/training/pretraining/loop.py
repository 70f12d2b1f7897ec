"""The pre-training loop and its clips: seeded, resumable to the same losses, stopped if features collapse."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from jepa_ros.bags.cameras import FrameRun
from jepa_ros.errors import InputError
from jepa_ros.training.pretraining.models import TUBELET, MaskedPredictor
from jepa_ros.training.trainer import ResumableTrainer, descend
from jepa_ros.world_model.device import CPU
from jepa_ros.world_model.frozen_encoder import IMAGE_MEAN, IMAGE_STD
from jepa_ros.world_model.protocol import as_images

HELD_OUT_SHARE = 0.1  # share of the frames that are held out for validation
PIECE_CLIPS = 16
"""Frame runs longer than this many clips are cut, so that one long recording can be split into two sets."""
HELD_OUT_CLIPS = 64
MIN_CURVE_POINTS = 1000  # points of the loss curve that are kept; at most twice as many
MIN_RANK = 2.0
MIN_SPREAD = 0.05
PATIENCE = 3  # validations in a row that must look collapsed: early in training the rank falls, and recovers
CLIPS, MASKS, CROPS, HELD_OUT = range(4)
"""Purposes of random generators: every update seeds new ones, so that a resumed run needs no generator state."""


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

    def __init__(self, runs: Sequence[FrameRun], frames: int, stride: int):
        span = (frames - 1) * stride + 1
        self.runs = [run for run in runs if len(run.frames) >= span]
        self._starts = np.cumsum([0, *(len(run.frames) - span + 1 for run in self.runs)])
        self._offsets = np.arange(frames) * stride

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def frames(self) -> int:
        """Return the number of different frames."""
        return sum(len(run.frames) for run in self.runs)

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Return clips (B, T, size, size, 3) uint8 of the given numbers (B,), below len(self)."""
        which = np.searchsorted(self._starts, numbers, side="right") - 1
        at = (numbers - self._starts[which])[:, None] + self._offsets
        return np.stack([self.runs[w].frames[i] for w, i in zip(which, at, strict=True)])

    def draw(self, batch: int, rng: np.random.Generator) -> np.ndarray:
        """Draw clips (B, T, size, size, 3) uint8 uniformly."""
        return self.take(rng.integers(len(self), size=batch))

    def spread(self, count: int) -> np.ndarray:
        """Return at most `count` clips, evenly spread; always the same ones."""
        return self.take(np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int)))


def split_clips(
    runs: Sequence[FrameRun], frames: int, stride: int, rng: np.random.Generator
) -> tuple[list[FrameRun], list[FrameRun]]:
    """Return the frame runs to train on and the held-out ones; no frame is in both.

    Long runs are cut into pieces of PIECE_CLIPS clips; pieces are drawn until they hold HELD_OUT_SHARE of the frames.
    Raises InputError if there are not two clips without a common frame.
    """
    span = (frames - 1) * stride + 1
    longest = max((len(run.frames) for run in runs), default=0)
    pieces = [piece for run in runs for piece in _pieces(run, PIECE_CLIPS * span, span)]
    if len(pieces) == 1:
        count = len(pieces[0].frames)
        pieces = _pieces(pieces[0], max(span, count - max(span, count // 5)), span)
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


def _pieces(run: FrameRun, length: int, least: int) -> list[FrameRun]:
    """Cut a run into pieces of `length` frames; the last one is dropped if it has fewer than `least`."""
    starts = range(0, len(run.frames) - least + 1, length)
    return [FrameRun(run.frames[i : i + length], run.stamps[i : i + length], run.source) for i in starts]


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


@dataclass(frozen=True)
class PretrainingSchedule:
    """updates of `batch` clips. The learning rate rises over `warm_up` updates, then falls by a cosine to a hundredth.

    momentum: of the teacher; rises linearly to 1 over the updates (V-JEPA 0.998, I-JEPA 0.996 over hundreds of
    thousands). weight_decay: of all parameters but gains and biases. Validation every `every` updates. Both methods
    were published with a peak of about 1e-3 at batches of 2048 or more; with tens of clips so high a rate lowers the
    rank of the features.
    """

    updates: int = 4000
    batch: int = 32
    learning_rate: float = 2e-4
    weight_decay: float = 0.04
    warm_up: int = 400
    momentum: float = 0.998
    every: int = 200
    crops: Crops = Crops()


class Pretrainer(ResumableTrainer):
    """Trains one masked predictor on clips; `held` are the clips of its validation."""

    def __init__(
        self,
        model: MaskedPredictor,
        train: Clips,
        held: Clips,
        schedule: PretrainingSchedule,
        seed: int,
        device: torch.device = CPU,
    ):
        super().__init__(schedule.updates, schedule.every, max(1, schedule.updates // MIN_CURVE_POINTS), device)
        self.model, self.train, self.schedule, self.seed = model.to(device), train, schedule, seed
        self.held = held.spread(HELD_OUT_CLIPS)
        self.learnt = [p for part in (model.encoder, model.predictor) for p in part.parameters() if p.requires_grad]
        matrices, vectors = ([p for p in self.learnt if (p.ndim > 1) == is_matrix] for is_matrix in (True, False))
        groups = [{"params": matrices, "weight_decay": schedule.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=schedule.learning_rate)

    def run(self, *arguments, **options) -> None:
        if not self.progress.validation:  # figures of the untrained features, to compare with
            self.validate()
        super().run(*arguments, **options)

    def _update(self) -> dict[str, float]:
        s, p = self.schedule, self.progress
        started = time.monotonic()
        clips = self.train.draw(s.batch, self._rng(CLIPS))
        clips = crop_randomly(normalize_clips(clips, self.device), s.crops, self._rng(CROPS))
        p.loading += time.monotonic() - started
        self.model.encoder.train()
        self.model.predictor.train()
        losses = self.model.losses(clips, self.model.draw_masks(s.batch, self._rng(MASKS)))
        values = self._named(losses)
        self.check_finite(values["loss"])
        rate = s.learning_rate * pretraining_rate_factor(p.update, s.updates, s.warm_up)
        descend(torch.stack(losses).mean(), self.optimizer, rate, self.learnt)
        self.model.update_teacher(s.momentum + (1 - s.momentum) * p.update / s.updates)
        p.frames += clips.shape[0] * clips.shape[1]
        return values

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return losses and feature health on the held-out clips: always the same ones, uncropped, same masks."""
        self.model.eval()
        clips = normalize_clips(self.held, self.device)
        rng = np.random.default_rng([self.seed, HELD_OUT])
        parts, tokens = [], []
        for batch in clips.split(self.schedule.batch):
            parts.append(self._named(self.model.losses(batch, self.model.draw_masks(len(batch), rng))))
            tokens.append(self.model.features(batch))
        values = {key: float(np.mean([part[key] for part in parts])) for key in parts[0]}
        self.check_finite(values["loss"])
        steps, p = max(1, clips.shape[1] // TUBELET), self.progress
        values |= feature_health(torch.cat(tokens), steps) | {"update": p.update}
        p.validation.append(values)
        p.stopped = describe_collapse(p.validation)
        return values

    def state(self) -> dict:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def set_state(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _rng(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, purpose, self.progress.update])

    def _named(self, losses: list[torch.Tensor]) -> dict[str, float]:
        """Return the loss of each kind of mask, and `loss`, their mean."""
        values = [float(loss.detach()) for loss in losses]
        return {"loss": float(np.mean(values)), **dict(zip(self.model.groups, values, strict=True))}


def pretraining_rate_factor(update: int, updates: int, warm_up: int, last: float = 0.01) -> float:
    """Return a share of the peak learning rate at update 0..updates - 1: linear up to 1, then a cosine to `last`."""
    if update < warm_up:
        return (update + 1) / warm_up
    done = (update - warm_up) / max(1, updates - warm_up)
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def effective_rank(rows: torch.Tensor) -> float:
    """Return RankMe of centred rows (N, D): the exponential of the entropy of singular values (arXiv 2210.02885)."""
    values = torch.linalg.svdvals((rows - rows.mean(0)).double())
    share = (values / values.sum().clamp(min=1e-30)).clamp(min=1e-12)
    return float(torch.exp(-(share * share.log()).sum()))


def feature_health(tokens: torch.Tensor, steps: int) -> dict[str, float]:
    """Return how different the tokens (B, steps * places, D) of B clips are from each other.

    effective_rank: of all tokens. pooled_rank: of their means over the places of a step (B * steps rows), which probes
    read. dead_dimensions: share of the D dimensions whose std is below a tenth of the median's. spread: std of the
    tokens, each normalized over its D dimensions as in the loss; 0 if all are equal, at most 1.
    """
    rows = tokens.flatten(0, 1)
    pooled = tokens.unflatten(1, (steps, -1)).mean(2).flatten(0, 1)
    std = rows.std(0)
    spread = F.layer_norm(rows, rows.shape[-1:]).var(0).mean().sqrt()
    return {
        "effective_rank": effective_rank(rows),
        "pooled_rank": effective_rank(pooled),
        "dead_dimensions": float((std < 0.1 * std.median()).float().mean()),
        "spread": float(spread),
    }


def describe_collapse(validations: list[dict]) -> str:
    """Return one sentence if the last PATIENCE of the validations, oldest first, show a collapse; otherwise ""."""
    last = validations[-PATIENCE:]
    for name, least, what in (
        ("spread", MIN_SPREAD, "the spread of the tokens"),
        ("effective_rank", MIN_RANK, "the effective rank of the features"),
    ):
        if len(last) == PATIENCE and all(v[name] < least for v in last):
            return (
                f"stopped at update {last[-1]['update']}: the features have collapsed: {what} is {last[-1][name]:.2g}, "
                f"below {least:g}, in {PATIENCE} validations in a row"
            )
    return ""
