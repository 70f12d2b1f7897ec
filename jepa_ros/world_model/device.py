"""Devices: choice of CPU or GPU, models on a GPU behind the interface of the CPU, native bfloat16 support."""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

import numpy as np
import torch
from torch import nn

from jepa_ros.errors import InputError
from jepa_ros.world_model.protocol import Context, WorldModel

CPU = torch.device("cpu")


def choose_device(name: str) -> torch.device:
    """Return the device called `name`: cpu, cuda, cuda:N, or auto (a GPU if torch can use one).

    Under torchrun a GPU without a number is that of the process (LOCAL_RANK). Raises InputError where torch cannot use
    the device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"device: expected auto, cpu, cuda, or cuda:N, found '{name}'")
    if device.type == "cpu":
        return CPU
    index = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= count:
        raise InputError(f"device: expected {name} to be a GPU that torch can use, found {count} of them")
    return torch.device("cuda", index)


class DeviceProxy:
    """A WorldModel on `device` whose inputs may be on any device; outputs are on the device of the inputs.

    Other attributes are those of the model.
    """

    def __init__(self, model: nn.Module, device: torch.device):
        self._model, self.device = model.to(device), device

    def __getattr__(self, name: str):
        return getattr(self._model, name)

    def encode(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        latents = self._model.encode(frames)
        return latents.to(frames.device if isinstance(frames, torch.Tensor) else CPU)

    def predict(
        self, latents: torch.Tensor, states: torch.Tensor, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        predicted = self._model.predict(*(x.to(self.device) for x in (latents, states, actions)))
        return tuple(x.to(latents.device) for x in predicted)

    def rollout(self, context: Context, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        imagined = self._model.rollout(context.to(self.device), actions.to(self.device))
        return tuple(x.to(context.latents.device) for x in imagined)


def on_device(model: WorldModel, device: torch.device) -> WorldModel:
    """Return a WorldModel on `device` that takes tensors of any device; on the CPU the model itself."""
    return model if device == CPU else DeviceProxy(model, device)


BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")  # x86, x86, Arm


@functools.cache
def processor_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the CPU flags or features that the kernel lists; empty where there is no such file."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(x.split(":")[1].split()) for x in lines if x.startswith(("flags", "Features"))), frozenset())


@functools.cache
def processor_name(path: Path = Path("/proc/cpuinfo")) -> str:
    """Return the CPU's model name."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), platform.machine())


@functools.cache
def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether torch multiplies bfloat16 natively on the device; on a GPU it is assumed."""
    return device.type != "cpu" or not processor_flags().isdisjoint(BFLOAT16_FLAGS)
