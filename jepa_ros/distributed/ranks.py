"""Sums and means over all processes that let gradients through.

Each rank computes the same loss from the shared figures and calls backward on it; the gradients of the parameters are
then averaged over ranks, as DistributedDataParallel does. For that average to be the gradient of the one loss on the
whole batch, the backward pass of a sum over ranks is the sum over ranks of what comes back: it collects the gradient of
every rank's copy of the loss, and the average divides by their number.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

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


def join_group(device: torch.device) -> int:
    """Join the group that torchrun set up (gloo on the CPU, nccl on GPUs), if it did; this process's rank. device: what
    this process trains on."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return rank()


def leave_group() -> None:
    """Leave the group."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def own_part(size: int) -> slice:
    """This process's part of a batch of `size`, which the number of processes must divide."""
    share = size // count_ranks()
    return slice(rank() * share, (rank() + 1) * share)


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace gradients by their mean over all processes, in one message."""
    if count_ranks() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= count_ranks()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def average_over_ranks(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Scalars, averaged over all processes."""
    if count_ranks() == 1 or not values:
        return values
    together = torch.stack(list(values.values()))
    dist.all_reduce(together)
    return dict(zip(values, (together / count_ranks()).unbind(), strict=True))


def wait_for_ranks() -> None:
    """Until all processes are here."""
    if count_ranks() > 1:
        dist.barrier()
