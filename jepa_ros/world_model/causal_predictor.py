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

    def forward(self, x: torch.Tensor, last_only: bool = False) -> torch.Tensor:
        """→ (B, T, width), or (B, 1, width): the last token's."""
        x = self.norm(x)
        inner = self.heads * self.head_dim
        split = (self.heads, self.head_dim)
        if last_only and not self.training:
            query = F.linear(x[:, -1:], self.qkv.weight[:inner]).unflatten(-1, split)
            key, value = F.linear(x, self.qkv.weight[inner:]).unflatten(-1, (2, *split)).unbind(2)
            # One query and a few keys: sums of products cost less than a call of the attention kernel.
            share = (query * key).sum(-1, keepdim=True).mul(self.head_dim**-0.5).softmax(1)
            return self.output[0]((share * value).sum(1, keepdim=True).flatten(2))
        query, key, value = (y.unflatten(-1, split).transpose(1, 2) for y in self.qkv(x).split(inner, dim=-1))
        mixed = F.scaled_dot_product_attention(
            query, key, value, dropout_p=self.dropout if self.training else 0.0, is_causal=True
        ).transpose(1, 2)
        return self.output((mixed[:, -1:] if last_only else mixed).flatten(2))


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

    def forward(self, x: torch.Tensor, modulation: torch.Tensor, last_only: bool = False) -> torch.Tensor:
        """Tokens (B, T, width), modulation (B, T, 6 width) → (B, T, width), or (B, 1, width): the last token's."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation.chunk(6, dim=-1)
        attended = self.attention(modulate(_normed(x), shift, scale), last_only)
        if last_only:
            x, gate, mlp_shift, mlp_scale, mlp_gate = (y[:, -1:] for y in (x, gate, mlp_shift, mlp_scale, mlp_gate))
        x = torch.addcmul(x, gate, attended)
        return torch.addcmul(x, mlp_gate, self._mlp(modulate(_normed(x), mlp_shift, mlp_scale)))

    def _mlp(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            return self.mlp(x)
        norm, rise, activation, _, fall, _ = self.mlp  # a dropout that does nothing still costs a call
        return fall(activation(rise(norm(x))))


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
        return self.advance(tokens, self.modulations(conditions))

    def modulations(self, conditions: torch.Tensor) -> list[torch.Tensor]:
        """What conditions (B, T, inputs) ask of each layer, (B, T, 6 width): the same wherever they are in a window."""
        condition = F.silu(self.condition_projection(conditions))
        return [block.modulation(condition) for block in self.blocks]

    def advance(self, tokens: torch.Tensor, modulations: list[torch.Tensor], last_only: bool = False) -> torch.Tensor:
        """As forward; with `last_only` the last entry alone, (B, 1, outputs): what no one asks for is not computed."""
        x = self.input_projection(self.dropout(tokens + self.positions[:, : tokens.shape[1]]))
        last = len(self.blocks) - 1
        for number, (block, modulation) in enumerate(zip(self.blocks, modulations, strict=True)):
            x = block(x, modulation, last_only and number == last)
        return self.output_projection(self.norm(x))


def _normed(x: torch.Tensor) -> torch.Tensor:
    """LayerNorm without weights, which the modulation takes the place of."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """x * (1 + scale) + shift, all (B, T, width)."""
    return torch.addcmul(x + shift, x, scale)


def _projection(inputs: int, outputs: int) -> nn.Module:
    return nn.Identity() if inputs == outputs else nn.Linear(inputs, outputs)
