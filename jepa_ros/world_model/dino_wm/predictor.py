"""The predictor of patch tokens: a transformer whose attention is causal by frame, in two published recipes.

concat (DINO-WM, arXiv 2411.04983, section 3.1): a token is [patch feature, proprioception embedding, action embedding],
all of it goes through the transformer, and what comes out in the place of the first two is the prediction.
adaln (JEPA-WMs, arXiv 2512.24497): tokens are patch features; the embeddings of action and proprioception set scale,
shift and gate of every block (AdaLN-zero: arXiv 2212.09748, section 3.2).

Shapes: B situations, T frames, N tokens of D numbers a frame, P proprioception, K numbers of an action block, W numbers
of a token in the transformer (D; with concat D + embeddings).
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from jepa_ros.errors import InputError
from jepa_ros.world_model.config import PatchPredictorConfig


class Attention(nn.Module):
    """Self-attention over the tokens of all frames, with as many numbers a head as one likes."""

    def __init__(self, width: int, heads: int, head_dim: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * heads * head_dim, bias=False)
        self.out = nn.Sequential(nn.Linear(heads * head_dim, width), nn.Dropout(dropout))

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None, rope: tuple[torch.Tensor, torch.Tensor] | None
    ) -> torch.Tensor:
        """Tokens (B, T, N, W) → (B, T, N, W). mask (T * N, T * N): True where a row may see a column, or none."""
        qkv = self.qkv(x.flatten(1, 2)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, T * N, head_dim) each
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        seen = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=self.dropout if self.training else 0.0)
        return self.out(seen.transpose(1, 2).flatten(2)).view_as(x)


class Block(nn.Module):
    """Attention, then an MLP, each on normalised tokens; conditioned: AdaLN-zero, so that it starts as the identity."""

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
        if conditioned:
            nn.init.zeros_(self.modulation[1].weight)
            nn.init.zeros_(self.modulation[1].bias)

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor | None,
        rope: tuple[torch.Tensor, torch.Tensor] | None,
        condition: torch.Tensor | None,
    ) -> torch.Tensor:
        """Tokens (B, T, N, W), condition (B, T, W) where conditioned → (B, T, N, W)."""
        if self.modulation is None:
            x = x + self.attention(self.attention_norm(x), mask, rope)
            return x + self.mlp(self.mlp_norm(x))
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(condition).unsqueeze(2).chunk(6, -1)
        x = x + gate * self.attention(self.attention_norm(x) * (1 + scale) + shift, mask, rope)
        return x + mlp_gate * self.mlp(self.mlp_norm(x) * (1 + mlp_scale) + mlp_shift)


class PatchPredictor(nn.Module):
    """Patch tokens, proprioception and actions of up to `history` frames → those of a model step later."""

    def __init__(
        self, config: PatchPredictorConfig, *, tokens: int, width: int, history: int, actions: int, states: int
    ):
        """tokens N and width D of the encoder, actions K, states P (0: no proprioception).

        Raises InputError where rope does not fit head_dim or the tokens, or concat has no room for the proprioception.
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
        self._start_as_persistence()
        rope = (None, None) if learned else axial_rope(torch.arange(history), *_grid(tokens), config.head_dim)
        for name, table in (("cos", rope[0]), ("sin", rope[1]), ("mask", frame_causal_mask(history, tokens))):
            self.register_buffer(name, table, persistent=False)

    def _start_as_persistence(self):
        """Before training "nothing changes": the state exactly; with adaln the features up to their normalisation."""
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
        states (B, T, P); entry t knows nothing of later entries."""
        tokens = self.transition(*self.embed(latents, states, actions))
        features = tokens[..., : self.width] if self.concat else self.projection(tokens)
        if self.state_change is None:
            return features, states
        # Every token of a frame carries a prediction of the one state: their mean.
        embedding = tokens.mean(2)
        if self.concat:
            embedding = embedding[..., self.width : self.width + self.state_embedding.out_features]
        return features, states + self.state_change(embedding)

    def embed(
        self, latents: torch.Tensor, states: torch.Tensor, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Tokens (B, T, N, W) and condition (B, T, W) (none with concat) of what `forward` takes."""
        # bfloat16 keeps three digits of a joint's position: these embeddings stay in float32.
        with torch.autocast(latents.device.type, enabled=False):
            embeddings = [self.action_embedding(actions.float())]
            if self.state_embedding is not None:
                embeddings.insert(0, self.state_embedding(states.float()))
        if not self.concat:
            return latents, sum(embeddings)
        beside = torch.cat(embeddings, -1).unsqueeze(2).expand(-1, -1, self.tokens, -1)
        return torch.cat([latents, beside], -1), None

    def transition(self, tokens: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        """The transformer: tokens (B, T, N, W), condition (B, T, W) or none → (B, T, N, W)."""
        frames = tokens.shape[1]
        count = frames * self.tokens
        # One frame sees all of itself, and attention without a mask is faster.
        mask = self.mask[:count, :count] if frames > 1 else None
        rope = (self.cos[:count], self.sin[:count]) if self.positions is None else None
        if self.positions is not None:
            tokens = tokens + self.positions[:frames]
        tokens = self.dropout(tokens)
        for block in self.blocks:
            tokens = block(tokens, mask, rope, condition)
        return self.norm(tokens)


def frame_causal_mask(frames: int, tokens: int) -> torch.Tensor:
    """(frames * tokens, frames * tokens): True where the row's frame is the column's or a later one."""
    frame = torch.arange(frames).repeat_interleave(tokens)
    return frame.unsqueeze(1) >= frame.unsqueeze(0)


def _grid(tokens: int) -> tuple[int, int]:
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise InputError(f"predictor.positions rope: expected tokens of a square grid, found {tokens} tokens")
    return side, side


# Grids have 16 to 32 rows and windows a few frames: with the 10,000 of language models most pairs would hardly turn.
_BASE = 100.0


def axial_rope(times: torch.Tensor, rows: int, columns: int, head_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines (T * rows * columns, head_dim // 2) of the tokens of frames at `times` (T,), row by row.

    Raises InputError where head_dim is odd or has no pair for each of the three axes.
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
    """Queries or keys (..., N, head_dim), turned by axial_rope's cosines and sines (N, head_dim // 2)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)
