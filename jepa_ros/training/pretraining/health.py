"""Whether features still tell pictures apart, and when to end a pre-training that has collapsed."""

from __future__ import annotations

import torch
import torch.nn.functional as F

LEAST_RANK = 2.0
LEAST_SPREAD = 0.05
PATIENCE = 3
"""Validations in a row that must look collapsed: at the start the rank falls, and comes back."""


def effective_rank(rows: torch.Tensor) -> float:
    """RankMe of rows (N, D), centred: the exponential of the entropy of the singular values (arXiv 2210.02885)."""
    values = torch.linalg.svdvals((rows - rows.mean(0)).double())
    share = (values / values.sum().clamp(min=1e-30)).clamp(min=1e-12)
    return float(torch.exp(-(share * share.log()).sum()))


def feature_health(tokens: torch.Tensor, steps: int) -> dict[str, float]:
    """How much tokens (B, steps * places, D) of B clips tell.

    effective_rank: of all tokens. pooled_rank: of their means over each step, which is what a probe reads, so of B *
    steps rows. dead_dimensions: share of the D whose std is under a tenth of the median's. spread: std of the tokens
    once each is normalized over its D numbers, as the loss sees them; 0 where all are alike, at most 1.
    """
    rows = tokens.flatten(0, 1)
    pooled = tokens.unflatten(1, (steps, -1)).mean(2).flatten(0, 1)
    std = rows.std(0)
    alike = F.layer_norm(rows, rows.shape[-1:]).var(0).mean().sqrt()
    return {
        "effective_rank": effective_rank(rows),
        "pooled_rank": effective_rank(pooled),
        "dead_dimensions": float((std < 0.1 * std.median()).float().mean()),
        "spread": float(alike),
    }


def collapse(validations: list[dict]) -> str | None:
    """One sentence that says why to stop, or None; of the figures of all validations so far, oldest first."""
    last = validations[-PATIENCE:]
    if len(last) < PATIENCE:
        return None
    for name, least, what in (
        ("spread", LEAST_SPREAD, "tokens differ from one another by a spread of"),
        ("effective_rank", LEAST_RANK, "the features' effective rank is"),
    ):
        if all(v[name] < least for v in last):
            return (
                f"stopped at update {last[-1]['update']}: the features have collapsed: {what} {last[-1][name]:.2g}, "
                f"expected {least:g} or more, in {PATIENCE} validations in a row"
            )
    return None
