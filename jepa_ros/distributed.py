"""Training in several processes (torchrun) with the results of one process on the whole batch.

Each rank computes the same loss from the shared figures and calls backward on it; the gradients of the parameters are
then averaged over ranks, as DistributedDataParallel does. For that average to be the gradient of the one loss on the
whole batch, the backward pass of a sum over ranks is the sum over ranks of the incoming gradients.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


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


class _DistributedBatchNorm(_BatchNorm):
    """Arithmetic of BatchNorm (arXiv 1502.03167, algorithm 1) with mean and variance of all ranks' entries."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        uses_batch = self.training or self.running_mean is None
        if count_ranks() == 1 or not uses_batch:
            return super().forward(x)
        self._check_input_dim(x)
        value = x if x.dtype == torch.float64 else x.float()  # sums of halves lose digits
        dims = [dim for dim in range(x.dim()) if dim != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        entries = value.numel() // value.shape[1]
        mean, count = mean_over_ranks(value.mean(dims), entries)
        centred = value - mean.view(shape)
        variance, _ = mean_over_ranks(centred.square().mean(dims), entries)
        if self.training and self.track_running_stats:
            self._remember(mean.detach(), variance.detach() * (count / (count - 1)))
        normed = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normed = normed * self.weight.view(shape) + self.bias.view(shape)
        return normed.to(x.dtype)

    def _remember(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Move the running statistics; momentum None asks for the average of all batches so far, as torch has it."""
        self.num_batches_tracked += 1
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


class DistributedBatchNorm1d(_DistributedBatchNorm, nn.BatchNorm1d):
    """nn.BatchNorm1d of the whole batch; alone in its process, it is nn.BatchNorm1d."""


class DistributedBatchNorm2d(_DistributedBatchNorm, nn.BatchNorm2d):
    """nn.BatchNorm2d of the whole batch; alone in its process, it is nn.BatchNorm2d."""


_PEERS = {nn.BatchNorm1d: DistributedBatchNorm1d, nn.BatchNorm2d: DistributedBatchNorm2d}


def convert_batch_norm(module: nn.Module) -> nn.Module:
    """Make each BatchNorm1d and BatchNorm2d in `module` one of the whole batch, in place; returns the module.

    Parameters and buffers stay the same objects under the same names, so optimisers and checkpoints are not touched.
    Returns the new module where `module` itself is a BatchNorm.
    """
    if type(module) in _PEERS:
        return _converted(module)
    for name, child in module.named_children():
        module.add_module(name, convert_batch_norm(child))
    return module


def _converted(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> _DistributedBatchNorm:
    made = _PEERS[type(norm)](norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    made.weight, made.bias = norm.weight, norm.bias
    made.running_mean, made.running_var = norm.running_mean, norm.running_var
    made.num_batches_tracked = norm.num_batches_tracked
    return made.train(norm.training)
