"""V-JEPA 2-AC's predictor: a transformer over steps of [action, state, patches] (arXiv 2506.09985, section 3.1).

Every token sees all tokens of its own step and of earlier ones, so one pass predicts the next frame from each step. The
names of the weights are those of the official checkpoints.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

EXTRA = 2  # tokens of a step before its patches: action, state
EPSILON = 1e-6  # of the layer norms


class BlockCausalPredictor(nn.Module):
    """Next patch features from patch features, states and actions.

    latent_width: numbers D of a patch's feature. grid: patches of an image's side. width, depth, heads, mlp_ratio: of
    the transformer; width is a multiple of heads. numbers: of an action and of a state.
    """

    def __init__(
        self,
        latent_width: int,
        grid: int,
        width: int = 1024,
        depth: int = 24,
        heads: int = 16,
        mlp_ratio: float = 4.0,
        numbers: int = 7,
    ):
        super().__init__()
        self.grid, self.head_dim = grid, width // heads
        self.predictor_embed = nn.Linear(latent_width, width)
        self.action_encoder = nn.Linear(numbers, width)
        self.state_encoder = nn.Linear(numbers, width)
        # Official checkpoints hold it, though the published model takes no extrinsics: no gradient ever reaches it.
        self.extrinsics_encoder = nn.Linear(numbers - 1, width).requires_grad_(False)
        self.predictor_blocks = nn.ModuleList(
            Block(width, heads, round(width * mlp_ratio), layer) for layer in range(1, depth + 1)
        )
        self.predictor_norm = nn.LayerNorm(width, eps=EPSILON)
        self.predictor_proj = nn.Linear(width, latent_width)
        for layer in self.children():
            if isinstance(layer, nn.Linear):
                _initialise(layer)

    def forward(self, latents: torch.Tensor, actions: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """Latents (B, T, grid², D), actions and states (B, T, numbers) → the next latents (B, T, grid², D); entry t
        depends on the entries up to t alone."""
        b, steps, patches, _ = latents.shape
        extra = torch.stack([self.action_encoder(actions), self.state_encoder(states)], dim=2)
        x = torch.cat([extra, self.predictor_embed(latents)], dim=2).flatten(1, 2)
        angles = rotation(self._positions(steps, x.device), self.head_dim)
        mask = None if steps == 1 else block_causal_mask(steps, EXTRA + patches, x.device)
        for block in self.predictor_blocks:
            x = block(x, angles, mask)
        x = x.view(b, steps, EXTRA + patches, -1)[:, :, EXTRA:]
        return self.predictor_proj(self.predictor_norm(x))

    def _positions(self, steps: int, device: torch.device) -> torch.Tensor:
        """Time, row and column (steps · (2 + grid²), 3) of every token; action and state have a time alone."""
        rows, columns = torch.meshgrid(
            torch.arange(self.grid, device=device), torch.arange(self.grid, device=device), indexing="ij"
        )
        place = torch.stack([rows.flatten(), columns.flatten()], dim=1)
        place = torch.cat([place.new_zeros(EXTRA, 2), place])
        time = torch.arange(steps, device=device).repeat_interleave(len(place))
        return torch.cat([time[:, None], place.repeat(steps, 1)], dim=1)


class Block(nn.Module):
    """Attention and MLP, each after a layer norm and added to its input. layer: from 1 on, for the first weights."""

    def __init__(self, width: int, heads: int, hidden: int, layer: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = Mlp(width, hidden)
        for linear in (self.attn.qkv, self.attn.proj, self.mlp.fc1, self.mlp.fc2):
            _initialise(linear)
        with torch.no_grad():
            for linear in (self.attn.proj, self.mlp.fc2):
                linear.weight.div_(math.sqrt(2.0 * layer))

    def forward(
        self, x: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Tokens (B, N, width) → (B, N, width)."""
        x = x + self.attn(self.norm1(x), angles, mask)
        return x + self.mlp(self.norm2(x))


class Attention(nn.Module):
    """Multi-head attention with rotary positions."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, x: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Tokens (B, N, width); angles: cosines and sines (N, head_dim); mask (N, N), true where a token may look."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        angles = tuple(table.to(x.dtype) for table in angles)
        mixed = F.scaled_dot_product_attention(rotate(q, *angles), rotate(k, *angles), v, attn_mask=mask)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers with a GELU between them."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (B, N, width) → (B, N, width)."""
        return self.fc2(F.gelu(self.fc1(x)))


def block_causal_mask(steps: int, tokens: int, device: torch.device | None = None) -> torch.Tensor:
    """(steps · tokens, steps · tokens), true where the row's token sees the column's: of its step or an earlier one."""
    step = torch.arange(steps, device=device).repeat_interleave(tokens)
    return step[:, None] >= step[None, :]


def _initialise(linear: nn.Linear) -> None:
    nn.init.trunc_normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)


BASE = 10000.0


def axis_width(head_dim: int) -> int:
    """Numbers of a head that each of the three axes takes: an even part of a third."""
    return 2 * (head_dim // 3 // 2)


def rotation(positions: torch.Tensor, head_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions (N, 3) in time, rows, columns → cosines and sines (N, head_dim) for `rotate`.

    A position of 0 leaves its part as it is: a token without a place in the image has 0 for its row and column.
    """
    width = axis_width(head_dim)
    exponents = torch.arange(width // 2, dtype=torch.float32, device=positions.device) / (width / 2)
    angles = positions.float()[..., None] / BASE**exponents  # (N, 3, width / 2)
    laid_out = torch.cat([angles, angles], dim=-1).flatten(-2)  # the oversight: not repeat_interleave
    rest = torch.zeros(*laid_out.shape[:-1], head_dim - 3 * width, device=positions.device)
    laid_out = torch.cat([laid_out, rest], dim=-1)
    return laid_out.cos(), laid_out.sin()


def rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Queries or keys (..., N, head_dim), turned by the angles of `rotation`."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((-odd, even), dim=-1).flatten(-2)
    return x * cosines + turned * sines
