"""The published search on a GPU: every round's roll-out is one CUDA graph, recorded once."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from jepa_ros.bench.same_work import our_plan
from jepa_ros.bench.twins import Search, Twins, final_costs
from jepa_ros.errors import InputError

SEARCH = Search(iterations=30)


def check_device(device: str) -> None:
    """Raise InputError where `device` is not cpu, or cuda on a machine that has it."""
    if device not in ("cpu", "cuda"):
        raise InputError(f"--device: expected cpu or cuda, found '{device}'")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: expected a GPU that torch can use, found none")


def plan_ms(twins: Twins, rounds: int, seed: int, search: Search = SEARCH) -> list[float]:
    """ms of each of `rounds` plans in bfloat16, from a latent on the GPU to actions in the computer's memory."""
    cost = _recorded(twins, search)
    our_plan(cost, twins, search._replace(iterations=2), seed)
    found = []
    for _ in range(rounds):
        begin = time.perf_counter()
        our_plan(cost, twins, search, seed)
        found.append(1e3 * (time.perf_counter() - begin))
    return found


@torch.inference_mode()
def _recorded(twins: Twins, search: Search) -> Callable[[torch.Tensor], torch.Tensor]:
    model = twins.rounded.cuda()
    latent, goal = twins.latent.cuda(), twins.goal[0, 0].cuda()
    actions = torch.zeros(search.samples, search.horizon, twins.sizes.actions, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # kernels are chosen before anything is recorded
        for _ in range(3):
            final_costs(model, latent, goal, actions)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        costs = final_costs(model, latent, goal, actions)

    def cost(candidates: torch.Tensor) -> torch.Tensor:
        actions.copy_(candidates)
        graph.replay()
        return costs.cpu()

    return cost
