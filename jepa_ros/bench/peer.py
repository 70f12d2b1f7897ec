"""The reference implementation of LeWM and of its planning: stable-worldmodel, which is installed for tests only.

Its packages import simulators, data formats and gymnasium; what is compared needs torch, einops and transformers. So
its modules are imported without the packages above them, and of gymnasium only the name of a class is there.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import io
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from unittest import mock

import torch

from jepa_ros.errors import InputError

PEERS = ("stable-worldmodel",)
_PACKAGES = ("", ".wm", ".wm.lewm", ".solver", ".solver.callbacks")
_EXECUTED = (".solver.callbacks",)
"""Packages whose own __init__ is run, as others import from it."""


@dataclass(frozen=True)
class Peer:
    """Its modules: lewm (the model), parts (its layers), loss, cem (the search); and its version."""

    lewm: ModuleType
    parts: ModuleType
    loss: ModuleType
    cem: ModuleType
    version: str


def load_peer(name: str) -> Peer:
    """The peer called `name`. Raises InputError where it is not known or not installed."""
    if name not in PEERS:
        raise InputError(f"--against: expected one of {', '.join(PEERS)}, found '{name}'")
    for module, package in (("stable_worldmodel", name), ("einops", "einops"), ("transformers", "transformers")):
        if importlib.util.find_spec(module) is None:
            raise InputError(
                f"--against {name}: expected the Python package {package} (requirements/parity.txt), found none"
            )
    return _load()


@functools.cache
def _load() -> Peer:
    folder = importlib.util.find_spec("stable_worldmodel").submodule_search_locations[0]
    with mock.patch.dict(sys.modules):
        sys.modules |= _stand_ins()
        for package in _PACKAGES:
            if package not in _EXECUTED:
                made = sys.modules[f"stable_worldmodel{package}"] = ModuleType(f"stable_worldmodel{package}")
                made.__path__ = [folder + package.replace(".", "/")]
        modules = [
            importlib.import_module(f"stable_worldmodel.{name}")
            for name in ("wm.lewm.lewm", "wm.lewm.module", "wm.loss", "solver.cem")
        ]
    return Peer(*modules, importlib.metadata.version("stable-worldmodel"))


def _stand_ins() -> dict[str, ModuleType]:
    """Modules in place of gymnasium and loguru, where they are not installed."""
    made: dict[str, ModuleType] = {}
    if importlib.util.find_spec("gymnasium") is None:
        gym, spaces = ModuleType("gymnasium"), ModuleType("gymnasium.spaces")
        gym.Space = spaces.Space = type("Space", (), {})
        spaces.Box = type(
            "Box", (gym.Space,), {"__init__": lambda self, low, high, shape: self.__dict__.update(shape=shape)}
        )
        gym.spaces = spaces
        made |= {"gymnasium": gym, "gymnasium.spaces": spaces}
    if importlib.util.find_spec("loguru") is None:
        made["loguru"] = ModuleType("loguru")
        made["loguru"].logger = logging.getLogger("stable_worldmodel")
    return made


class ReferenceCem:
    """The peer's CEMSolver on one situation. model: has its get_cost(info, candidates (1, S, H, K)) → (1, S)."""

    def __init__(
        self,
        peer: Peer,
        model: object,
        horizon: int,
        action: int,
        samples: int,
        iterations: int,
        elites: int,
        seed: int,
    ):
        self._solver = peer.cem.CEMSolver(
            model, num_samples=samples, n_steps=iterations, topk=elites, seed=seed, device="cpu"
        )
        space = peer.cem.Box(-1.0, 1.0, shape=(1, action))
        self._solver.configure(action_space=space, n_envs=1, config=SimpleNamespace(horizon=horizon, action_block=1))

    def solve(self, info: dict[str, torch.Tensor], start: torch.Tensor | None = None) -> torch.Tensor:
        """The mean (H, K) that it ends with. info: batches of 1. start: (1, ≤ H, K), in place of zeros."""
        with contextlib.redirect_stdout(io.StringIO()):  # it prints how long it took
            return self._solver.solve(info, start)["actions"][0]


class Costs:
    """A model for ReferenceCem that is a function of candidates (S, H, K) → (S,)."""

    def __init__(self, cost: Callable[[torch.Tensor], torch.Tensor]):
        self._cost = cost

    def get_cost(self, info: dict[str, torch.Tensor], candidates: torch.Tensor) -> torch.Tensor:
        """See the peer's Costable."""
        return self._cost(candidates[0])[None]
