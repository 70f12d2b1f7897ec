"""Training in several processes (torchrun) with the results of one process on the whole batch.

All ranks compute the same loss from sums over ranks, and each calls backward on it; then the parameters' gradients are
averaged over ranks, as DistributedDataParallel does. That average is the gradient of the loss on the whole batch if the
backward pass of a sum over ranks adds up the incoming gradients of all ranks.

`DistributedBatchNorm1d` and `DistributedBatchNorm2d` normalise over the whole batch. torch.nn.SyncBatchNorm runs on
GPUs only; these consist of ordinary operations and a differentiable all-reduce, and run on CPUs (gloo) too.
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
    """Return the number of processes; 1 if torch.distributed is not initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def join_group(device: torch.device) -> int:
    """Join torchrun's group of processes, if there is one (gloo on CPUs, nccl on GPUs); return this process's rank.

    device: that this process trains on.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return rank()


def leave_group() -> None:
    """Leave the group, if this process is in one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def wait_for_ranks() -> None:
    """Wait until all processes have called this."""
    if count_ranks() > 1:
        dist.barrier()


def rank_slice(size: int) -> slice:
    """Return this process's part of a batch of `size`, a multiple of the number of processes."""
    share = size // count_ranks()
    return slice(rank() * share, (rank() + 1) * share)


class _Sum(torch.autograd.Function):
    """Sum over ranks, forward and backward."""

    @staticmethod
    def forward(ctx, value: torch.Tensor) -> torch.Tensor:
        total = value.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return _Sum.forward(ctx, gradient)


def mean_over_ranks(mean: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor | int]:
    """Return the mean over the entries of all ranks, and the number of these entries. Gradients flow through the mean.

    mean, count: of this rank's entries; `count` may differ between ranks.
    """
    if count_ranks() == 1:
        return mean, count
    total = _Sum.apply(torch.cat([(mean * count).flatten(), mean.new_tensor([count])]))  # one message, not two
    entries = total[-1].detach()
    return total[:-1].view_as(mean) / entries, entries


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace the gradients by their mean over all processes, in one message."""
    if count_ranks() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= count_ranks()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def average_over_ranks(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return scalars by name, averaged over all processes, without gradient."""
    if count_ranks() == 1 or not values:
        return values
    together = torch.stack(list(values.values()))
    dist.all_reduce(together)
    return dict(zip(values, (together / count_ranks()).unbind(), strict=True))


class _DistributedBatchNorm(_BatchNorm):
    """BatchNorm (arXiv 1502.03167, algorithm 1) with the mean and variance of the whole batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        uses_batch = self.training or self.running_mean is None
        if count_ranks() == 1 or not uses_batch:
            return super().forward(x)
        self._check_input_dim(x)
        value = x if x.dtype == torch.float64 else x.float()  # sums of 16-bit floats lose digits
        dims = [dim for dim in range(x.dim()) if dim != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        entries = value.numel() // value.shape[1]
        mean, count = mean_over_ranks(value.mean(dims), entries)
        centred = value - mean.view(shape)
        variance, _ = mean_over_ranks(centred.square().mean(dims), entries)
        if self.training and self.track_running_stats:
            self.num_batches_tracked += 1
            # As in torch, momentum None is the average of all batches so far.
            share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), share)
            unbiased = variance.detach() * (count / (count - 1))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)
        normed = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normed = normed * self.weight.view(shape) + self.bias.view(shape)
        return normed.to(x.dtype)


class DistributedBatchNorm1d(_DistributedBatchNorm, nn.BatchNorm1d):
    """nn.BatchNorm1d over the whole batch; with one process it equals nn.BatchNorm1d."""


class DistributedBatchNorm2d(_DistributedBatchNorm, nn.BatchNorm2d):
    """nn.BatchNorm2d over the whole batch; with one process it equals nn.BatchNorm2d."""


def convert_batch_norm(module: nn.Module) -> nn.Module:
    """Replace each BatchNorm1d and BatchNorm2d in `module` by one over the whole batch, in place; return the module.

    Parameters and buffers stay the same objects under the same names, so that optimisers and checkpoints still fit. If
    `module` itself is a BatchNorm, its replacement is returned.
    """
    kind = {nn.BatchNorm1d: DistributedBatchNorm1d, nn.BatchNorm2d: DistributedBatchNorm2d}.get(type(module))
    if kind is None:
        for name, child in module.named_children():
            module.add_module(name, convert_batch_norm(child))
        return module
    made = kind(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats)
    made.weight, made.bias = module.weight, module.bias
    made.running_mean, made.running_var = module.running_mean, module.running_var
    made.num_batches_tracked = module.num_batches_tracked
    return made.train(module.training)
