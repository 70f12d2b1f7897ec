"""LeWM's predictor: a causal transformer over time whose every layer is modulated by the action."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class CausalAttention(nn.Module):
    """Attention of tokens (B, T, width) to themselves and to earlier ones."""

    def __init__(self, width: int, heads: int, head_dim: int, dropout: float):
        super().__init__()
        self.heads, self.head_dim, self.dropout = heads, head_dim, dropout
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * heads * head_dim, bias=False)
        self.output = nn.Sequential(nn.Linear(heads * head_dim, width), nn.Dropout(dropout))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        split = (self.heads, self.head_dim)
        query, key, value = (y.unflatten(-1, split).transpose(1, 2) for y in self.qkv(self.norm(x)).chunk(3, dim=-1))
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        return self.output(mixed.transpose(1, 2).flatten(2))


class ConditionalBlock(nn.Module):
    """Attention and MLP with AdaLN-zero (DiT, arXiv 2212.09748, section 3.2): at first tokens pass unchanged."""

    def __init__(self, width: int, heads: int, head_dim: int, mlp: int, dropout: float):
        super().__init__()
        self.attention = CausalAttention(width, heads, head_dim, dropout)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, mlp),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp, width),
            nn.Dropout(dropout),
        )
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Tokens (B, T, width) and what SiLU made of their conditions, (B, T, width) → (B, T, width)."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(condition).chunk(6, dim=-1)
        x = torch.addcmul(x, gate, self.attention(modulate(_normed(x), shift, scale)))
        return torch.addcmul(x, mlp_gate, self.mlp(modulate(_normed(x), mlp_shift, mlp_scale)))


class CausalPredictor(nn.Module):
    """Tokens and conditions (B, T, inputs), T ≤ frames → (B, T, outputs), entry t from the entries up to t alone.

    LeWM (arXiv 2603.19312), section 4 and its reference implementation. Projections to and from `width` are there
    only where the widths differ; outputs is `width` where it is None.
    """

    def __init__(
        self,
        frames: int,
        inputs: int,
        width: int = 192,
        depth: int = 6,
        heads: int = 16,
        head_dim: int = 64,
        mlp: int = 2048,
        dropout: float = 0.1,
        embedding_dropout: float = 0.0,
        outputs: int | None = None,
    ):
        super().__init__()
        self.outputs = outputs or width
        self.positions = nn.Parameter(torch.randn(1, frames, inputs))
        self.dropout = nn.Dropout(embedding_dropout)
        self.input_projection = _projection(inputs, width)
        self.condition_projection = _projection(inputs, width)
        self.blocks = nn.ModuleList(ConditionalBlock(width, heads, head_dim, mlp, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.output_projection = _projection(width, self.outputs)

    def forward(self, tokens: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
        condition = F.silu(self.condition_projection(conditions))
        x = self.input_projection(self.dropout(tokens + self.positions[:, : tokens.shape[1]]))
        for block in self.blocks:
            x = block(x, condition)
        return self.output_projection(self.norm(x))


def _normed(x: torch.Tensor) -> torch.Tensor:
    """LayerNorm without weights, which the modulation takes the place of."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """x * (1 + scale) + shift, all (B, T, width)."""
    return torch.addcmul(x + shift, x, scale)


def _projection(inputs: int, outputs: int) -> nn.Module:
    return nn.Identity() if inputs == outputs else nn.Linear(inputs, outputs)


class Projector(nn.Module):
    """(..., inputs) → (..., outputs): Linear, BatchNorm over all that is not the last axis, GELU, Linear.

    LeWM (arXiv 2603.19312), section 4: a LayerNorm in place of the BatchNorm keeps SIGReg from shaping the
    distribution of latents, because every latent then has the same norm.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.outputs = outputs
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.GELU(), nn.Linear(hidden, outputs)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x.flatten(0, -2)).view(*x.shape[:-1], self.outputs)


class ActionEncoder(nn.Module):
    """(B, T, K) action blocks → (B, T, width), each block for itself.

    LeWM's reference implementation begins with a convolution over time of kernel 1: that is the layer `smoothing`.
    """

    def __init__(self, inputs: int, smoothed: int, width: int, scale: int = 4):
        super().__init__()
        self.smoothing = nn.Linear(inputs, smoothed)
        self.layers = nn.Sequential(nn.Linear(smoothed, scale * width), nn.SiLU(), nn.Linear(scale * width, width))

    def forward(self, actions: torch.Tensor) -> torch.Tensor:
        return self.layers(self.smoothing(actions))
