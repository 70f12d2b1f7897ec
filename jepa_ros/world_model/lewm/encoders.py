"""LeWM's encoders, built for one image size and trained from scratch: a vision transformer and a small CNN."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from jepa_ros.errors import InputError
from jepa_ros.world_model.config import VitEncoderConfig

# As in transformers' ViT, with which LeWM's checkpoints are trained; torch's default is 1e-5.
LAYER_NORM_EPS = 1e-12


class VitBlock(nn.Module):
    """Pre-norm attention and MLP with residual connections, on tokens (B, N, width)."""

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
    """Normalised images (B, 3, size, size) → the class token (B, width) of the last layer after the final LayerNorm.

    Dosovitskiy et al. (arXiv 2010.11929); sizes in LeWM (arXiv 2603.19312, section 4).
    """

    def __init__(self, size: int, config: VitEncoderConfig):
        """Raises InputError where heads do not divide the width, or patches the size."""
        super().__init__()
        patch, width, heads = config.patch, config.width, config.heads
        if width % heads:
            raise InputError(f"encoder: expected a width that {heads} heads divide, found {width}")
        if size % patch:
            raise InputError(f"encoder: expected images of a multiple of {patch} pixels, the patch, found {size}")
        self.width = width
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + (size // patch) ** 2, width))
        self.blocks = nn.ModuleList(VitBlock(width, heads, config.mlp) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        for parameter in (self.class_token, self.positions):
            nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]


class ConvEncoder(nn.Module):
    """Normalised images (B, 3, size, size) → the flattened features (B, width) of the last stage.

    The first stage reduces the side to a quarter, since it would otherwise take two thirds of a training step's time;
    each further one halves it. Raises InputError for more stages than the size allows.
    """

    def __init__(self, size: int, channels: Sequence[int]):
        super().__init__()
        stages: list[nn.Module] = []
        inputs, side = 3, size
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
