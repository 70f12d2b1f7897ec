"""Runs a function in two processes that torch.distributed joins with gloo."""

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

RANKS = 2


def on_each_rank(function, directory: Path) -> list:
    """Return function(rank) of two processes, by rank. They are forked, because torch takes seconds to import."""
    mp.start_processes(_one, (function, str(directory)), nprocs=RANKS, start_method="fork")
    return [torch.load(directory / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


def _one(rank: int, function, directory: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/meet", rank=rank, world_size=RANKS)
    try:
        torch.save(function(rank), Path(directory) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def averaged_gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Gradients by name, averaged over ranks as DistributedDataParallel does."""
    found = {}
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            mean = parameter.grad.clone()
            if dist.is_initialized():
                dist.all_reduce(mean)
                mean /= dist.get_world_size()
            found[name] = mean
    return found
