"""BatchNorm over the whole batch of all processes, on any device.

torch.nn.SyncBatchNorm has kernels for GPUs alone; this one is made of ordinary operations and a differentiable
all-reduce, so that it also serves on the CPU with gloo.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from jepa_ros.distributed.ranks import count_ranks, mean_over_ranks


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
