"""The reference implementation of LeWM and of its planning: stable-worldmodel, which is installed for tests only.

Its packages import simulators, data formats and gymnasium, but the compared code needs only torch, einops and
transformers. So its modules are imported without their parent packages, and gymnasium is replaced by a stub.
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
from typing import NamedTuple
from unittest import mock

import torch

from jepa_ros.errors import InputError

REFERENCES = ("stable-worldmodel",)
_PACKAGES = ("", ".wm", ".wm.lewm", ".solver", ".solver.callbacks")
_EXECUTED = (".solver.callbacks",)
"""Packages whose own __init__ is executed, because other modules import from it."""


@dataclass(frozen=True)
class Reference:
    """Modules of the reference: lewm (the model), parts (its layers), loss, cem (the search); and its version."""

    lewm: ModuleType
    parts: ModuleType
    loss: ModuleType
    cem: ModuleType
    version: str


def load_reference(name: str) -> Reference:
    """Import the reference called `name`. Raises InputError where it is unknown or not installed."""
    if name not in REFERENCES:
        raise InputError(f"--against {name}: give one of {', '.join(REFERENCES)}")
    for module, package in (("stable_worldmodel", name), ("einops", "einops"), ("transformers", "transformers")):
        if importlib.util.find_spec(module) is None:
            raise InputError(
                f"--against {name}: the Python package {package} is not installed (see requirements/parity.txt)"
            )
    return _load()


@functools.cache
def _load() -> Reference:
    folder = importlib.util.find_spec("stable_worldmodel").submodule_search_locations[0]
    with mock.patch.dict(sys.modules):
        sys.modules |= _stubs()
        for package in _PACKAGES:
            if package not in _EXECUTED:
                made = sys.modules[f"stable_worldmodel{package}"] = ModuleType(f"stable_worldmodel{package}")
                made.__path__ = [folder + package.replace(".", "/")]
        modules = [
            importlib.import_module(f"stable_worldmodel.{name}")
            for name in ("wm.lewm.lewm", "wm.lewm.module", "wm.loss", "solver.cem")
        ]
    return Reference(*modules, importlib.metadata.version("stable-worldmodel"))


def _stubs() -> dict[str, ModuleType]:
    """Return stub modules for gymnasium and loguru where they are not installed."""
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


class CemSettings(NamedTuple):
    """Settings of the cross-entropy method: samples a round, rounds, elites, horizon in model steps."""

    samples: int = 300
    iterations: int = 10
    elites: int = 30
    horizon: int = 5


class ReferenceCem:
    """The reference's CEMSolver for one situation. model: has get_cost(info, candidates (1, S, H, K)) → (1, S)."""

    def __init__(self, reference: Reference, model: object, search: CemSettings, action: int, seed: int):
        self._solver = reference.cem.CEMSolver(
            model,
            num_samples=search.samples,
            n_steps=search.iterations,
            topk=search.elites,
            seed=seed,
            device="cpu",
        )
        space = reference.cem.Box(-1.0, 1.0, shape=(1, action))
        config = SimpleNamespace(horizon=search.horizon, action_block=1)
        self._solver.configure(action_space=space, n_envs=1, config=config)

    def solve(self, info: dict[str, torch.Tensor], start: torch.Tensor | None = None) -> torch.Tensor:
        """Return the final mean (H, K). info: batches of 1. start: (1, ≤ H, K), instead of zeros."""
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its duration
            return self._solver.solve(info, start)["actions"][0]


class CostModel:
    """A model for ReferenceCem whose cost is a function of candidates (S, H, K) → (S,)."""

    def __init__(self, cost: Callable[[torch.Tensor], torch.Tensor]):
        self._cost = cost

    def get_cost(self, info: dict[str, torch.Tensor], candidates: torch.Tensor) -> torch.Tensor:
        """Implement the reference's Costable protocol."""
        return self._cost(candidates[0])[None]
