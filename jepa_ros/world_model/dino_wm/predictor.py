"""Predictor of patch tokens: a transformer with frame-causal attention, conditioned in one of two published ways.

concat (DINO-WM, arXiv 2411.04983, section 3.1): a token is [patch feature, proprioception embedding, action embedding];
the transformer's output in the place of the first two is the prediction.
adaln (JEPA-WMs, arXiv 2512.24497): tokens are patch features; the embeddings of action and proprioception set scale,
shift and gate of every block (AdaLN-zero: arXiv 2212.09748, section 3.2).

Shapes: B situations, T frames, N tokens of width D a frame, P proprioception, K action block, W width of a token in the
transformer (D; with concat D + embeddings).
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from jepa_ros.errors import InputError
from jepa_ros.world_model.config import PatchPredictorConfig
from jepa_ros.world_model.protocol import frame_causal_mask


class Attention(nn.Module):
    """Self-attention over the tokens of all frames; head_dim does not depend on the width."""

    def __init__(self, width: int, heads: int, head_dim: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * heads * head_dim, bias=False)
        self.out = nn.Sequential(nn.Linear(heads * head_dim, width), nn.Dropout(dropout))

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None, rope: tuple[torch.Tensor, torch.Tensor] | None
    ) -> torch.Tensor:
        """Tokens (B, T, N, W) → (B, T, N, W). mask (T * N, T * N): True where a row attends to a column; None: all."""
        qkv = self.qkv(x.flatten(1, 2)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, T * N, head_dim) each
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        seen = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=self.dropout if self.training else 0.0)
        return self.out(seen.transpose(1, 2).flatten(2)).view_as(x)


class Block(nn.Module):
    """Pre-norm attention and MLP; if conditioned, with AdaLN-zero, which starts as the identity."""

    def __init__(self, width: int, config: PatchPredictorConfig, conditioned: bool):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, elementwise_affine=not conditioned)
        self.attention = Attention(width, config.heads, config.head_dim, config.dropout)
        self.mlp_norm = nn.LayerNorm(width, elementwise_affine=not conditioned)
        self.mlp = nn.Sequential(
            nn.Linear(width, config.mlp),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.mlp, width),
            nn.Dropout(config.dropout),
        )
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width)) if conditioned else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation[1].weight)
            nn.init.zeros_(self.modulation[1].bias)

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor | None,
        rope: tuple[torch.Tensor, torch.Tensor] | None,
        condition: torch.Tensor | None,
    ) -> torch.Tensor:
        """Tokens (B, T, N, W), condition (B, T, W) or None → (B, T, N, W)."""
        if self.modulation is None:
            x = x + self.attention(self.attention_norm(x), mask, rope)
            return x + self.mlp(self.mlp_norm(x))
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(condition).unsqueeze(2).chunk(6, -1)
        x = x + gate * self.attention(self.attention_norm(x) * (1 + scale) + shift, mask, rope)
        return x + mlp_gate * self.mlp(self.mlp_norm(x) * (1 + mlp_scale) + mlp_shift)


class PatchPredictor(nn.Module):
    """Predicts patch tokens and proprioception one model step later, from those and the actions of `history` frames."""

    def __init__(
        self, config: PatchPredictorConfig, *, tokens: int, width: int, history: int, actions: int, states: int
    ):
        """tokens N and width D of the encoder, actions K, states P (0: no proprioception).

        Raises InputError where rope does not fit head_dim or the tokens, or concat has no width for the proprioception.
        """
        super().__init__()
        self.tokens, self.width, self.history, self.actions, self.states = tokens, width, history, actions, states
        self.concat = config.conditioning == "concat"
        if self.concat and states and not config.state_width:
            raise InputError(
                f"predictor.state_width: expected at least 1 for {states} numbers of proprioception, found 0"
            )
        action_width = config.action_width if self.concat else width
        state_width = (config.state_width if self.concat else width) if states else 0
        inner = width + state_width + action_width if self.concat else width
        self.action_embedding = nn.Linear(actions, action_width)
        self.state_embedding = nn.Linear(states, state_width) if states else None
        learned = config.positions == "learned"
        self.positions = nn.Parameter(torch.randn(history, tokens, inner)) if learned else None
        self.dropout = nn.Dropout(config.embedding_dropout)
        self.blocks = nn.ModuleList(Block(inner, config, not self.concat) for _ in range(config.depth))
        self.norm = nn.LayerNorm(inner)
        self.projection = None if self.concat else nn.Linear(width, width)
        self.state_change = nn.Linear(state_width, states) if states else None
        self._initialise_as_persistence()
        rope = (None, None) if learned else axial_rope(torch.arange(history), *_grid(tokens), config.head_dim)
        for name, table in (("cos", rope[0]), ("sin", rope[1]), ("mask", frame_causal_mask(history, tokens))):
            self.register_buffer(name, table, persistent=False)

    def _initialise_as_persistence(self) -> None:
        """Predict "nothing changes" before training: the state exactly, features (adaln) up to normalisation."""
        if self.projection is not None:
            nn.init.eye_(self.projection.weight)
            nn.init.zeros_(self.projection.bias)
        if self.state_change is not None:
            nn.init.zeros_(self.state_change.weight)
            nn.init.zeros_(self.state_change.bias)

    def forward(
        self, latents: torch.Tensor, states: torch.Tensor, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (B, T, N, D), states (B, T, P), actions (B, T, K), T ≤ history → the next latents (B, T, N, D) and
        states (B, T, P). Entry t depends on the entries up to t only."""
        tokens = self.run_blocks(*self.embed(latents, states, actions))
        features = tokens[..., : self.width] if self.projection is None else self.projection(tokens)
        if self.state_change is None or self.state_embedding is None:
            return features, states
        # Every token of a frame predicts the same state: take their mean.
        embedding = tokens.mean(2)
        if self.concat:
            embedding = embedding[..., self.width : self.width + self.state_embedding.out_features]
        return features, states + self.state_change(embedding)

    def embed(
        self, latents: torch.Tensor, states: torch.Tensor, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return tokens (B, T, N, W) and condition (B, T, W), None with concat."""
        # bfloat16 keeps three digits of a joint position: these embeddings stay in float32.
        with torch.autocast(latents.device.type, enabled=False):
            embeddings = [self.action_embedding(actions.float())]
            if self.state_embedding is not None:
                embeddings.insert(0, self.state_embedding(states.float()))
        if not self.concat:
            return latents, sum(embeddings)
        beside = torch.cat(embeddings, -1).unsqueeze(2).expand(-1, -1, self.tokens, -1)
        return torch.cat([latents, beside], -1), None

    def run_blocks(self, tokens: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        """Tokens (B, T, N, W), condition (B, T, W) or None → (B, T, N, W)."""
        frames = tokens.shape[1]
        count = frames * self.tokens
        # One frame needs no mask, and attention without one is faster.
        mask = self.mask[:count, :count] if frames > 1 else None
        rope = (self.cos[:count], self.sin[:count]) if self.positions is None else None
        if self.positions is not None:
            tokens = tokens + self.positions[:frames]
        tokens = self.dropout(tokens)
        for block in self.blocks:
            tokens = block(tokens, mask, rope, condition)
        return self.norm(tokens)


def _grid(tokens: int) -> tuple[int, int]:
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise InputError(f"predictor.positions rope: expected tokens of a square grid, found {tokens} tokens")
    return side, side


# Grids have 16 to 32 rows and windows a few frames: with the 10,000 of language models most angles would be near 0.
_BASE = 100.0


def axial_rope(times: torch.Tensor, rows: int, columns: int, head_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines (T * rows * columns, head_dim // 2) of the tokens of frames at `times` (T,), row by row.

    Raises InputError where head_dim is odd or too small for a pair of each of the three axes.
    """
    if head_dim % 2 or head_dim < 6:
        raise InputError(f"predictor.head_dim: expected an even number of at least 6 for rope, found {head_dim}")
    per_axis = head_dim // 6
    speeds = _BASE ** (-torch.arange(per_axis, device=times.device) / per_axis)
    row, column = (torch.arange(count, device=times.device) for count in (rows, columns))
    grid = torch.stack(torch.meshgrid(times.float(), row.float(), column.float(), indexing="ij"), -1).flatten(0, 2)
    angles = (grid.unsqueeze(-1) * speeds).flatten(1)
    still = angles.new_zeros(len(angles), head_dim // 2 - 3 * per_axis)
    angles = torch.cat([angles, still], 1)
    return angles.cos(), angles.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate queries or keys (..., N, head_dim) by axial_rope's cosines and sines (N, head_dim // 2)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)
