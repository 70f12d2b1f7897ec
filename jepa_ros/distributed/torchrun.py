"""The processes of a training under torchrun. In a single process everything here does nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import distributed

from jepa_ros.distributed.ranks import count_ranks


def start(device: torch.device) -> int:
    """Join the group that torchrun set up (gloo on the CPU, nccl on GPUs), if it did; this process's rank. device: what
    this process trains on."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return rank()


def stop() -> None:
    """Leave the group."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


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
    distributed.all_reduce(flat)
    flat /= count_ranks()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def average(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Scalars, averaged over all processes."""
    if count_ranks() == 1 or not values:
        return values
    together = torch.stack(list(values.values()))
    distributed.all_reduce(together)
    return dict(zip(values, (together / count_ranks()).unbind(), strict=True))


def wait() -> None:
    """Until all processes are here."""
    if count_ranks() > 1:
        distributed.barrier()
