"""What the machine can multiply."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

import torch

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
