"""Models on a GPU, asked by code that knows of none."""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

import numpy as np
import torch

from jepa_ros.errors import InputError
from jepa_ros.world_model.protocol import Context, PredictiveModel, WorldModel

CPU = torch.device("cpu")


def choose_device(name: str) -> torch.device:
    """The device called `name`: cpu, cuda, or cuda:N; auto: a GPU where torch can use one. Under torchrun a GPU without
    a number is the process's own (LOCAL_RANK). Raises InputError where torch cannot use it."""
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
    """A WorldModel that lies on `device` and answers where it was asked: frames and contexts may be anywhere, and what
    comes back is where they are. Whatever else is asked of it is the model's own."""

    def __init__(self, model: PredictiveModel, device: torch.device):
        self._model, self.device = model.to(device), device

    def __getattr__(self, name: str):
        return getattr(self._model, name)

    def encode(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """See WorldModel."""
        latents = self._model.encode(frames)
        return latents.to(frames.device if isinstance(frames, torch.Tensor) else CPU)

    def predict(
        self, latents: torch.Tensor, states: torch.Tensor, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See WorldModel."""
        predicted = self._model.predict(*(x.to(self.device) for x in (latents, states, actions)))
        return tuple(x.to(latents.device) for x in predicted)

    def rollout(self, context: Context, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See WorldModel."""
        imagined = self._model.rollout(context.to(self.device), actions.to(self.device))
        return tuple(x.to(context.latents.device) for x in imagined)


def on_device(model: PredictiveModel, device: torch.device) -> WorldModel:
    """The model on `device`, to be asked from anywhere; on the CPU that is the model as it is."""
    return model if device == CPU else DeviceProxy(model, device)


BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")  # x86, x86, Arm


@functools.cache
def processor_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """What the processor's kernel calls its flags or features; empty where there is no such file."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(x.split(":")[1].split()) for x in lines if x.startswith(("flags", "Features"))), frozenset())


@functools.cache
def processor_name(path: Path = Path("/proc/cpuinfo")) -> str:
    """As its maker calls it."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), platform.machine())


@functools.cache
def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has units for products of bfloat16 that torch uses; a GPU is taken to have them."""
    return device.type != "cpu" or not processor_flags().isdisjoint(BFLOAT16_FLAGS)
