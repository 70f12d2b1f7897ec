"""LeWM's predictor (a causal transformer over time, modulated by the action), its projectors and action encoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from jepa_ros.world_model.config import CausalPredictorConfig


class CausalAttention(nn.Module):
    """Attention of tokens (B, T, width) to themselves and earlier tokens."""

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
    """Attention and MLP with AdaLN-zero (DiT, arXiv 2212.09748, section 3.2), which starts as the identity."""

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
        """Tokens (B, T, width) and SiLU of their conditions (B, T, width) → (B, T, width)."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(condition).chunk(6, dim=-1)
        x = torch.addcmul(x, gate, self.attention(_modulate(x, shift, scale)))
        return torch.addcmul(x, mlp_gate, self.mlp(_modulate(x, mlp_shift, mlp_scale)))


class CausalPredictor(nn.Module):
    """Tokens and conditions (B, T, inputs), T ≤ frames → (B, T, width). Entry t depends on the entries up to t only.

    LeWM (arXiv 2603.19312), section 4 and its reference implementation: inputs are projected only where their width is
    another.
    """

    def __init__(self, frames: int, inputs: int, config: CausalPredictorConfig):
        super().__init__()
        width = config.width
        self.positions = nn.Parameter(torch.randn(1, frames, inputs))
        self.dropout = nn.Dropout(config.embedding_dropout)
        self.input_projection = _projection(inputs, width)
        self.condition_projection = _projection(inputs, width)
        self.blocks = nn.ModuleList(
            ConditionalBlock(width, config.heads, config.head_dim, config.mlp, config.dropout)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
        condition = F.silu(self.condition_projection(conditions))
        x = self.input_projection(self.dropout(tokens + self.positions[:, : tokens.shape[1]]))
        for block in self.blocks:
            x = block(x, condition)
        return self.norm(x)


def _modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return norm * (1 + scale) + shift, all (B, T, width), with a LayerNorm without weights."""
    norm = F.layer_norm(x, x.shape[-1:], eps=1e-6)
    return torch.addcmul(norm + shift, norm, scale)


def _projection(inputs: int, outputs: int) -> nn.Module:
    return nn.Identity() if inputs == outputs else nn.Linear(inputs, outputs)


class Projector(nn.Module):
    """(..., inputs) → (..., outputs): Linear, BatchNorm over all axes but the last, GELU, Linear.

    LeWM (arXiv 2603.19312), section 4: with a LayerNorm all latents would have the same norm, and SIGReg could not
    shape their distribution.
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
    """Action blocks (B, T, K) → embeddings (B, T, width), each block on its own.

    The layer `smoothing` is the convolution over time with kernel 1 of LeWM's reference implementation.
    """

    def __init__(self, inputs: int, smoothed: int, width: int, scale: int = 4):
        super().__init__()
        self.smoothing = nn.Linear(inputs, smoothed)
        self.layers = nn.Sequential(nn.Linear(smoothed, scale * width), nn.SiLU(), nn.Linear(scale * width, width))

    def forward(self, actions: torch.Tensor) -> torch.Tensor:
        return self.layers(self.smoothing(actions))
