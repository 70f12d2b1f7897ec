"""V-JEPA 2-AC's predictor: a transformer over steps of [action, state, patches] (arXiv 2506.09985, section 3.1).

A token attends to all tokens of its own and of earlier steps, so one pass predicts the next frame of each step. The
weights have the names of the official checkpoints.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from jepa_ros.world_model.protocol import frame_causal_mask

EXTRA = 2  # tokens of a step before its patches: action and state
NUMBERS = 7  # of an action and of a state
EPSILON = 1e-6  # of the layer norms


class BlockCausalPredictor(nn.Module):
    """Predicts the next patch features from patch features, states and actions.

    latent_width: D of a patch feature. grid: patches along an image side. width, depth, heads, mlp_ratio: of the
    transformer; width is a multiple of heads.
    """

    def __init__(
        self,
        latent_width: int,
        grid: int,
        width: int = 1024,
        depth: int = 24,
        heads: int = 16,
        mlp_ratio: float = 4.0,
    ):
        super().__init__()
        self.grid, self.head_dim = grid, width // heads
        self.predictor_embed = nn.Linear(latent_width, width)
        self.action_encoder = nn.Linear(NUMBERS, width)
        self.state_encoder = nn.Linear(NUMBERS, width)
        # In official checkpoints, but not used: the published model takes no extrinsics.
        self.extrinsics_encoder = nn.Linear(NUMBERS - 1, width).requires_grad_(False)
        self.predictor_blocks = nn.ModuleList(
            Block(width, heads, round(width * mlp_ratio), layer) for layer in range(1, depth + 1)
        )
        self.predictor_norm = nn.LayerNorm(width, eps=EPSILON)
        self.predictor_proj = nn.Linear(width, latent_width)
        for layer in self.children():
            if isinstance(layer, nn.Linear):
                _initialise(layer)

    def forward(self, latents: torch.Tensor, actions: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """Latents (B, T, grid², D), actions and states (B, T, 7) → the next latents (B, T, grid², D). Entry t
        depends on the entries up to t only."""
        b, steps, patches, _ = latents.shape
        extra = torch.stack([self.action_encoder(actions), self.state_encoder(states)], dim=2)
        x = torch.cat([extra, self.predictor_embed(latents)], dim=2).flatten(1, 2)
        angles = rotation(self._positions(steps, x.device), self.head_dim)
        mask = None if steps == 1 else frame_causal_mask(steps, EXTRA + patches, x.device)
        for block in self.predictor_blocks:
            x = block(x, angles, mask)
        x = x.view(b, steps, EXTRA + patches, -1)[:, :, EXTRA:]
        return self.predictor_proj(self.predictor_norm(x))

    def _positions(self, steps: int, device: torch.device) -> torch.Tensor:
        """Return time, row and column (steps · (2 + grid²), 3) of every token; action and state have only a time."""
        rows, columns = torch.meshgrid(
            torch.arange(self.grid, device=device), torch.arange(self.grid, device=device), indexing="ij"
        )
        place = torch.stack([rows.flatten(), columns.flatten()], dim=1)
        place = torch.cat([place.new_zeros(EXTRA, 2), place])
        time = torch.arange(steps, device=device).repeat_interleave(len(place))
        return torch.cat([time[:, None], place.repeat(steps, 1)], dim=1)


class Block(nn.Module):
    """Pre-norm attention and MLP. layer: number from 1, which scales the initial weights."""

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
        """Tokens (B, N, width). angles: cosines and sines (N, head_dim). mask (N, N): True where a row attends."""
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


def _initialise(linear: nn.Linear) -> None:
    nn.init.trunc_normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)


BASE = 10000.0


def axis_width(head_dim: int) -> int:
    """Return the even number of a head's dimensions that each of the three axes gets, at most a third."""
    return 2 * (head_dim // 3 // 2)


def rotation(positions: torch.Tensor, head_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions (N, 3) in time, row, column → cosines and sines (N, head_dim) for `rotate`.

    Position 0 does not rotate: a token without a place in the image has row and column 0.
    """
    width = axis_width(head_dim)
    exponents = torch.arange(width // 2, dtype=torch.float32, device=positions.device) / (width / 2)
    angles = positions.float()[..., None] / BASE**exponents  # (N, 3, width / 2)
    # The official code repeats the angles as a whole where pairs would need repeat_interleave; its weights need that.
    laid_out = torch.cat([angles, angles], dim=-1).flatten(-2)
    rest = torch.zeros(*laid_out.shape[:-1], head_dim - 3 * width, device=positions.device)
    laid_out = torch.cat([laid_out, rest], dim=-1)
    return laid_out.cos(), laid_out.sin()


def rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Rotate queries or keys (..., N, head_dim) by the angles of `rotation`."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((-odd, even), dim=-1).flatten(-2)
    return x * cosines + turned * sines
