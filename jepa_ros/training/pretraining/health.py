"""Health of pre-trained features: whether they still distinguish images, and when to stop a collapsed run."""

from __future__ import annotations

import torch
import torch.nn.functional as F

MIN_RANK = 2.0
MIN_SPREAD = 0.05
PATIENCE = 3
"""Validations in a row that must look collapsed: early in training the rank falls, and recovers."""


def effective_rank(rows: torch.Tensor) -> float:
    """Return RankMe of centred rows (N, D): the exponential of the entropy of singular values (arXiv 2210.02885)."""
    values = torch.linalg.svdvals((rows - rows.mean(0)).double())
    share = (values / values.sum().clamp(min=1e-30)).clamp(min=1e-12)
    return float(torch.exp(-(share * share.log()).sum()))


def feature_health(tokens: torch.Tensor, steps: int) -> dict[str, float]:
    """Return how much the tokens (B, steps * places, D) of B clips distinguish.

    effective_rank: of all tokens. pooled_rank: of their means over each step, which probes read: of B * steps rows.
    dead_dimensions: share of the D dimensions whose std is below a tenth of the median's. spread: std of the tokens,
    each normalized over its D dimensions as in the loss; 0 if all are alike, at most 1.
    """
    rows = tokens.flatten(0, 1)
    pooled = tokens.unflatten(1, (steps, -1)).mean(2).flatten(0, 1)
    std = rows.std(0)
    spread = F.layer_norm(rows, rows.shape[-1:]).var(0).mean().sqrt()
    return {
        "effective_rank": effective_rank(rows),
        "pooled_rank": effective_rank(pooled),
        "dead_dimensions": float((std < 0.1 * std.median()).float().mean()),
        "spread": float(spread),
    }


def describe_collapse(validations: list[dict]) -> str:
    """Return one sentence if the last PATIENCE of the validations, oldest first, show a collapse; otherwise ""."""
    last = validations[-PATIENCE:]
    for name, least, what in (
        ("spread", MIN_SPREAD, "the spread of the tokens"),
        ("effective_rank", MIN_RANK, "the effective rank of the features"),
    ):
        if len(last) == PATIENCE and all(v[name] < least for v in last):
            return (
                f"stopped at update {last[-1]['update']}: the features have collapsed: {what} is {last[-1][name]:.2g}, "
                f"below {least:g}, in {PATIENCE} validations in a row"
            )
    return ""
