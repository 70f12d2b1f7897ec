"""Sums and means over all processes that let gradients through.

Each rank computes the same loss from the shared figures and calls backward on it; the gradients of the parameters are
then averaged over ranks, as DistributedDataParallel does. For that average to be the gradient of the one loss on the
whole batch, the backward pass of a sum over ranks is the sum over ranks of what comes back: it collects the gradient of
every rank's copy of the loss, and the average divides by their number.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable


def count_ranks() -> int:
    """Processes of the default group; 1 where torch.distributed is not initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value: torch.Tensor) -> torch.Tensor:
        total = value.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def sum_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """The sum of `value`, of one shape everywhere, over all ranks."""
    return _Sum.apply(value) if count_ranks() > 1 else value


def mean_over_ranks(mean: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor | int]:
    """Each rank's `mean` of `count` entries → the mean of all ranks' entries and how many those are.

    Ranks may hold unequal numbers of entries.
    """
    if count_ranks() == 1:
        return mean, count
    parts = torch.cat([(mean * count).flatten(), mean.new_tensor([count])])  # one message, not two
    total = sum_over_ranks(parts)
    entries = total[-1].detach()
    return total[:-1].view_as(mean) / entries, entries
