"""A vision transformer, built for one image size and trained from scratch; its latent is the class token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from jepa_ros.errors import InputError

# transformers' ViT, with which LeWM's checkpoints are trained, has this one; torch's default is 1e-5.
LAYER_NORM_EPS = 1e-12


class VitBlock(nn.Module):
    """Pre-norm attention and MLP, both added to tokens (B, N, width)."""

    def __init__(self, width: int, heads: int, mlp: int):
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(width, mlp), nn.GELU(), nn.Linear(mlp, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, count, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        x = x + self.attention_output(mixed.transpose(1, 2).reshape(batch, count, width))
        return x + self.mlp(self.mlp_norm(x))


class VitEncoder(nn.Module):
    """(B, 3, size, size) normalised images → (B, width), the last layer's class token after the final LayerNorm.

    Dosovitskiy et al. (arXiv 2010.11929). The defaults are ViT-Tiny with patches of 14 pixels as in LeWM (arXiv
    2603.19312, section 4). Raises InputError where heads do not divide the width, or patches the size.
    """

    def __init__(
        self, size: int = 224, patch: int = 14, width: int = 192, depth: int = 12, heads: int = 3, mlp: int = 768
    ):
        super().__init__()
        if width % heads:
            raise InputError(f"encoder: expected a width that {heads} heads divide, found {width}")
        if size % patch:
            raise InputError(f"encoder: expected images of a multiple of {patch} pixels, the patch, found {size}")
        self.size, self.width = size, width
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + (size // patch) ** 2, width))
        self.blocks = nn.ModuleList(VitBlock(width, heads, mlp) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self._initialise()

    def _initialise(self) -> None:
        for parameter in (self.class_token, self.positions):
            nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def tokens(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, size, size) → (B, 1 + patches, width): the class token, then the patches row by row."""
        patches = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.tokens(images)[:, 0]


class ConvEncoder(nn.Module):
    """(B, 3, size, size) normalised images → (B, width), the last stage's features in a row.

    The first stage takes the side to a quarter, each further one halves it: two thirds of the time of a training step
    would otherwise go into the first.
    """

    def __init__(self, size: int = 64, channels: Sequence[int] = (48, 96, 128)):
        super().__init__()
        stages, inputs, side = [], 3, size
        for outputs in channels:
            kernel, stride = (3, 2) if stages else (6, 4)
            stages += [nn.Conv2d(inputs, outputs, kernel, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.GELU()]
            inputs, side = outputs, (side + 2 - kernel) // stride + 1
            if side < 1:
                raise InputError(
                    f"encoder.channels: expected fewer stages for images of {size} pixels, found {len(channels)}"
                )
        self.width = inputs * side * side
        self.stages = nn.Sequential(*stages)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.stages(images).flatten(1)
