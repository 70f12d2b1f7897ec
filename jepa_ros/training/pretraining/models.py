"""V-JEPA and I-JEPA as modules to train: masks, transformers' own encoders, a predictor, and a teacher.

The encoder reads only the tokens that a mask leaves visible. A narrow predictor predicts the hidden tokens of the
teacher, the encoder's exponential moving average, which reads everything. The teacher is saved, as a directory that
`VJEPA2Model.from_pretrained` or `IJepaModel.from_pretrained` loads.
"""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from jepa_ros.world_model.frozen_encoder import IMAGE_MEAN, IMAGE_STD, import_transformers

MIN_CONTEXT_SHARE = 0.04
"""Least share of the grid in a context: ten patches of 16 x 16 in the code of I-JEPA (arXiv 2301.08243)."""
TUBELET = 2  # frames per token (V-JEPA)


@dataclass(frozen=True)
class Blocks:
    """`count` rectangles of patches. scale: share of the grid that each covers; aspect: height over width; both are
    (least, most) of a uniform draw."""

    count: int
    scale: tuple[float, float]
    aspect: tuple[float, float] = (0.75, 1.5)


SHORT_RANGE = Blocks(8, (0.15, 0.15))  # V-JEPA's short-range mask (arXiv 2404.08471, section 3.2)
LONG_RANGE = Blocks(2, (0.7, 0.7))  # V-JEPA's long-range mask (the same section)
TARGETS = Blocks(4, (0.15, 0.2))  # I-JEPA's target blocks (arXiv 2301.08243, section 3)
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

    The size of the blocks is drawn once per batch, their places for every sample. Rows of a batch must have equal
    lengths, so random tubes of the longer rows are dropped, neither seen nor predicted (the published code drops the
    last ones, always on the same side of the image).
    """
    height, width = _size(grid, blocks, rng)
    hidden = [_hidden(grid, height, width, blocks.count, rng) for _ in range(batch)]
    seen = _equalise_lengths([np.flatnonzero(~mask) for mask in hidden], rng)
    targets = _equalise_lengths([np.flatnonzero(mask) for mask in hidden], rng)
    return Masks(_over_time(seen, grid, steps), _over_time(targets, grid, steps)[:, None])


def block_masks(grid: int, batch: int, rng: np.random.Generator) -> Masks:
    """Return I-JEPA's masks for single images of grid x grid tokens: four target blocks, and a large block without them
    as context.

    Sizes are drawn once per batch, places for every sample. Targets may overlap each other, but not the context. Random
    tokens of longer contexts are dropped, so that all have the length of the shortest.
    """
    height, width = _size(grid, TARGETS, rng)
    large = _size(grid, CONTEXT, rng)
    contexts, targets = [], []
    while len(contexts) < batch:
        groups = [_block(grid, height, width, rng) for _ in range(TARGETS.count)]
        context = _block(grid, *large, rng) & ~np.logical_or.reduce(groups)
        if context.sum() >= _min_context(grid):
            contexts.append(np.flatnonzero(context))
            targets.append([np.flatnonzero(group) for group in groups])
    return Masks(_equalise_lengths(contexts, rng), np.stack(targets))


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


def _equalise_lengths(rows: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Drop random entries of each row down to the length of the shortest; return (B, shortest), ascending."""
    shortest = min(len(row) for row in rows)
    return np.stack([np.sort(rng.permutation(row)[:shortest]) for row in rows])


def _over_time(places: np.ndarray, grid: int, steps: int) -> np.ndarray:
    """Return the tokens (B, steps * n) of places (B, n) at every step."""
    return (np.arange(steps)[:, None] * grid * grid + places[:, None]).reshape(len(places), -1)


@dataclass(frozen=True)
class EncoderSizes:
    """size, patch: pixels. frames: of a clip, 1 for I-JEPA. width, depth, heads: of the encoder; the predictor has
    about half the width and depth, and as many heads."""

    method: Literal["vjepa", "ijepa"] = "vjepa"
    size: int = 64
    patch: int = 8
    frames: int = 8
    width: int = 192
    depth: int = 6
    heads: int = 3

    @property
    def grid(self) -> int:
        """Return the number of patches a side."""
        return self.size // self.patch

    @property
    def predictor_width(self) -> int:
        """Return half the width, in heads of a multiple of four and at least eight, as rotary positions need."""
        return self.heads * max(8, self.width // (2 * self.heads) // 4 * 4)

    @property
    def predictor_depth(self) -> int:
        """Return the number of layers of the predictor."""
        return max(1, self.depth // 2)


class MaskedPredictor(nn.Module):
    """Base of both methods: encoder, predictor and teacher. `losses` and `features` take normalized images."""

    groups: tuple[str, ...]
    """Names of the kinds of masks; each has a loss."""

    def __init__(self, sizes: EncoderSizes, encoder: nn.Module, predictor: nn.Module):
        super().__init__()
        self.sizes = sizes
        self.encoder, self.predictor = encoder, predictor
        self.teacher = copy.deepcopy(encoder).requires_grad_(False).eval()

    def draw_masks(self, batch: int, rng: np.random.Generator) -> list[Masks]:
        """Return masks for each of `groups`."""
        raise NotImplementedError

    def losses(self, clips: torch.Tensor, masks: list[Masks]) -> list[torch.Tensor]:
        """Return the prediction loss of clips (B, T, 3, S, S) for each of the masks."""
        targets, embedded = self.targets(clips), self.embed(clips)
        return [self._loss(embedded, targets, mask, kind) for kind, mask in enumerate(masks)]

    def embed(self, clips: torch.Tensor) -> torch.Tensor:
        """Return all patches (B, N, D) of clips (B, T, 3, S, S) as they enter the encoder's first layer."""
        raise NotImplementedError

    def _loss(self, embedded: torch.Tensor, targets: torch.Tensor, masks: Masks, kind: int) -> torch.Tensor:
        raise NotImplementedError

    @torch.no_grad()
    def targets(self, clips: torch.Tensor) -> torch.Tensor:
        """Return the prediction targets: the teacher's tokens (B, N, D), each normalized over its features."""
        tokens = self.features(clips)
        return F.layer_norm(tokens, tokens.shape[-1:])

    def features(self, clips: torch.Tensor) -> torch.Tensor:
        """Return the teacher's tokens (B, N, D) of clips (B, T, 3, S, S)."""
        raise NotImplementedError

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Move the teacher's weights towards the encoder's; they keep the share `momentum` of themselves."""
        torch._foreach_lerp_(list(self.teacher.parameters()), list(self.encoder.parameters()), 1.0 - momentum)

    def to_transformers(self) -> nn.Module:
        """Return the teacher as a transformers model."""
        raise NotImplementedError


class VideoJepa(MaskedPredictor):
    """V-JEPA (arXiv 2404.08471, section 3) with V-JEPA 2's rotary positions (arXiv 2506.09985): L1 to the teacher's
    tokens; one mask token for short-range and one for long-range masks."""

    groups = ("short_range", "long_range")

    def __init__(self, sizes: EncoderSizes):
        model = _video_model(sizes)
        super().__init__(sizes, model.encoder, model.predictor)

    def draw_masks(self, batch: int, rng: np.random.Generator) -> list[Masks]:
        steps = self.sizes.frames // TUBELET
        return [tube_masks(self.sizes.grid, steps, blocks, batch, rng) for blocks in (SHORT_RANGE, LONG_RANGE)]

    def features(self, clips: torch.Tensor) -> torch.Tensor:
        return self.teacher(clips).last_hidden_state

    def embed(self, clips: torch.Tensor) -> torch.Tensor:
        return self.encoder.embeddings(clips)

    def encode_visible(self, embedded: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Return the encoder's tokens (B, C, D) if it reads only the embedded patches `seen` (B, C)."""
        tokens = gather_tokens(embedded, seen)
        for layer in self.encoder.layer:
            tokens = layer(tokens, seen)[0]
        return self.encoder.layernorm(tokens)

    def predict(self, context: torch.Tensor, seen: torch.Tensor, hidden: torch.Tensor, kind: int) -> torch.Tensor:
        """Predict tokens (B, K, D) at places `hidden` (B, K) from the context (B, C, D) of places `seen` (B, C).

        transformers' predictor sorts tokens by place first; attention with rotary positions needs no order.
        """
        tokens, places = self.predictor.embeddings(context, [seen], [hidden], mask_index=kind)
        for layer in self.predictor.layer:
            tokens = layer(tokens, places)[0]
        return self.predictor.proj(self.predictor.layernorm(tokens[:, context.shape[1] :]))

    def _loss(self, embedded: torch.Tensor, targets: torch.Tensor, masks: Masks, kind: int) -> torch.Tensor:
        seen, hidden = (torch.from_numpy(x).to(embedded.device) for x in (masks.context, masks.targets[:, 0]))
        predicted = self.predict(self.encode_visible(embedded, seen), seen, hidden, kind)
        return F.l1_loss(predicted, gather_tokens(targets, hidden))

    def to_transformers(self) -> nn.Module:
        model = _video_model(self.sizes)
        model.encoder.load_state_dict(self.teacher.state_dict())
        model.predictor.load_state_dict(self.predictor.state_dict())
        return model


class ImageJepa(MaskedPredictor):
    """I-JEPA (arXiv 2301.08243, section 3): smooth L1 to the teacher's tokens of four blocks, one block at a time;
    fixed sine-cosine positions."""

    groups = ("blocks",)

    def __init__(self, sizes: EncoderSizes):
        encoder = import_transformers().IJepaModel(_image_config(sizes))
        with torch.no_grad():
            encoder.embeddings.position_embeddings.copy_(sine_cosine(sizes.grid, sizes.width))
        encoder.embeddings.position_embeddings.requires_grad_(False)
        super().__init__(sizes, encoder, BlockPredictor(sizes))

    def draw_masks(self, batch: int, rng: np.random.Generator) -> list[Masks]:
        return [block_masks(self.sizes.grid, batch, rng)]

    def features(self, clips: torch.Tensor) -> torch.Tensor:
        return self.teacher(clips[:, 0]).last_hidden_state

    def embed(self, clips: torch.Tensor) -> torch.Tensor:
        return self.encoder.embeddings(clips[:, 0])

    def encode_visible(self, embedded: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Return the encoder's tokens (B, C, D) if it reads only the embedded patches `seen` (B, C)."""
        tokens = gather_tokens(embedded, seen)
        for layer in self.encoder.layers:
            tokens = layer(tokens)
        return self.encoder.layernorm(tokens)

    def _loss(self, embedded: torch.Tensor, targets: torch.Tensor, masks: Masks, kind: int) -> torch.Tensor:
        seen, hidden = (torch.from_numpy(x).to(embedded.device) for x in (masks.context, masks.targets))
        predicted = self.predictor(self.encode_visible(embedded, seen), seen, hidden)
        return F.smooth_l1_loss(predicted, gather_tokens(targets, hidden.flatten(1)).view_as(predicted))

    def to_transformers(self) -> nn.Module:
        return self.teacher


class BlockPredictor(nn.Module):
    """I-JEPA's predictor: a narrow transformer over the context's tokens and, at the requested places, mask tokens."""

    def __init__(self, sizes: EncoderSizes):
        super().__init__()
        from transformers.models.ijepa.modeling_ijepa import IJepaLayer

        config = _image_config(sizes, sizes.predictor_width, sizes.predictor_depth)
        self.input = nn.Linear(sizes.width, sizes.predictor_width)
        self.mask = nn.Parameter(torch.zeros(sizes.predictor_width))
        self.register_buffer("places", sine_cosine(sizes.grid, sizes.predictor_width)[0], persistent=False)
        self.layers = nn.ModuleList(IJepaLayer(config) for _ in range(sizes.predictor_depth))
        self.norm = nn.LayerNorm(sizes.predictor_width, eps=config.layer_norm_eps)
        self.output = nn.Linear(sizes.predictor_width, sizes.width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=config.initializer_range)
                nn.init.zeros_(module.bias)

    def forward(self, context: torch.Tensor, seen: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Predict tokens (B, M, K, D) at places hidden (B, M, K) from the context (B, C, D) of places seen (B, C).

        The M groups are predicted independently.
        """
        groups = hidden.shape[1]
        context = (self.input(context) + self.places[seen]).repeat_interleave(groups, dim=0)
        tokens = torch.cat([context, self.mask + self.places[hidden.flatten(0, 1)]], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        predicted = self.output(self.norm(tokens[:, context.shape[1] :]))
        return predicted.unflatten(0, (-1, groups))


def build_masked_predictor(sizes: EncoderSizes, seed: int) -> MaskedPredictor:
    """Return a model whose weights are initialised from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {"vjepa": VideoJepa, "ijepa": ImageJepa}[sizes.method](sizes)


def save_encoder(model: MaskedPredictor, directory: Path) -> None:
    """Write the encoder in transformers' format into a new folder, which then replaces `directory`."""
    partial, old = (directory.with_name(f".{directory.name}.{kind}{os.getpid()}") for kind in ("new", "old"))
    try:
        model.to_transformers().save_pretrained(partial)
        (partial / "preprocessor_config.json").write_text(json.dumps(_preparation(model.sizes), indent=2) + "\n")
        if directory.exists():
            os.replace(directory, old)
        os.replace(partial, directory)
    finally:
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)


def gather_tokens(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return the tokens (B, K, D) at index (B, K) of tokens (B, N, D)."""
    return torch.take_along_dim(tokens, index[..., None], dim=1)


def sine_cosine(grid: int, width: int) -> torch.Tensor:
    """Return the fixed positions (1, grid², width) of I-JEPA and MAE: half encodes the row, half the column."""
    quarter = width // 4
    omega = 1.0 / 10000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * omega
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns, rows = axis.repeat(grid, 1), axis.repeat_interleave(grid, dim=0)
    return torch.cat([columns, rows], dim=1).float()[None]


def _video_model(sizes: EncoderSizes) -> nn.Module:
    """Return transformers' VJEPA2Model with new weights."""
    transformers = import_transformers()
    config = transformers.VJEPA2Config(
        crop_size=sizes.size,
        patch_size=sizes.patch,
        frames_per_clip=sizes.frames,
        tubelet_size=TUBELET,
        hidden_size=sizes.width,
        num_hidden_layers=sizes.depth,
        num_attention_heads=sizes.heads,
        pred_hidden_size=sizes.predictor_width,
        pred_num_hidden_layers=sizes.predictor_depth,
        pred_num_attention_heads=sizes.heads,
        pred_num_mask_tokens=len(VideoJepa.groups),
    )
    return transformers.VJEPA2Model(config)


def _image_config(sizes: EncoderSizes, width: int | None = None, depth: int | None = None):
    """Return transformers' IJepaConfig of the encoder, or of layers of another width and depth."""
    width = width or sizes.width
    config = import_transformers().IJepaConfig(
        image_size=sizes.size,
        patch_size=sizes.patch,
        hidden_size=width,
        num_hidden_layers=depth or sizes.depth,
        num_attention_heads=sizes.heads,
        intermediate_size=4 * width,
        layer_norm_eps=1e-6,
    )
    config._attn_implementation = "sdpa"
    return config


def _preparation(sizes: EncoderSizes) -> dict:
    """Return the contents of preprocessor_config.json: how an image must be prepared."""
    side = {"height": sizes.size, "width": sizes.size}
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": side,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
    }
