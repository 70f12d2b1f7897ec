"""Parts of the importers: read files of tensors without running code in them, and write a checkpoint whole or not."""

from __future__ import annotations

import os
import pickle
import re
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from jepa_ros.errors import InputError, first_problem
from jepa_ros.world_model.config import ModelConfig

SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors")
WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training code saves the tensors beside other things."""
UNCALIBRATED = {
    "distance": {"tolerance": sys.float_info.min, "far": sys.float_info.max},
    "surprise": {"levels": (), "errors": (), "threshold": sys.float_info.max},
}
"""Scales of a model that was not measured on held-out episodes: no goal counts as reached, no error as a surprise."""


@contextmanager
def staged_checkpoint(out: Path) -> Iterator[Path]:
    """Yield a new folder that becomes the directory `out` if the block succeeds.

    Raises InputError where `out` exists and is not an empty directory.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: expected a directory that is new or empty, found one with files in it")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as partial:
        yield Path(partial, "checkpoint")
        os.replace(Path(partial, "checkpoint"), out)


def make_config(path: Path, values: dict[str, Any]) -> ModelConfig:
    """Return the configuration of an uncalibrated model. Raises InputError that names the imported file."""
    try:
        return ModelConfig.model_validate(values | UNCALIBRATED)
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}") from None


def count_layers(tensors: Mapping[str, torch.Tensor], prefix: str) -> int:
    """Return how many numbers follow `prefix` in the names of the tensors."""
    return len({key.removeprefix(prefix).split(".")[0] for key in tensors if key.startswith(prefix)})


def find_state_dict(path: Path) -> Path:
    """Return the file of tensors at `path`, or the only one in the directory `path`. Raises InputError."""
    if path.is_file():
        return path
    expected = f"{path}: expected a file of weights ({', '.join(SUFFIXES)}) or a directory with one"
    if not path.is_dir():
        raise InputError(f"{expected}, found no such file")
    found = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
    if len(found) != 1:
        raise InputError(f"{expected}, found {', '.join(p.name for p in found) or 'none'}")
    return found[0]


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Return tensors by name, on the CPU. Raises InputError for a truncated or foreign file or other objects in it."""
    held = _read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    while isinstance(held, Mapping) and (inner := [k for k in WRAPPERS if isinstance(held.get(k), Mapping)]):
        held = held[inner[0]]
    if not isinstance(held, Mapping) or not held:
        raise InputError(f"{path}: expected tensors by name, found {_describe(held)}")
    for key, value in held.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise InputError(f"{path}: expected tensors by name, found {_describe(value)} under {str(key)[:80]!r}")
    return dict(held)


def strip_prefix(path: Path, tensors: dict[str, torch.Tensor], anchor: str) -> dict[str, torch.Tensor]:
    """Return the tensors of the model that has a tensor `anchor`, without the prefixes of its wrappers.

    Wrappers are DistributedDataParallel, torch.compile and Lightning. Raises InputError where not exactly one model has
    such a tensor.
    """
    names = {key.replace("_orig_mod.", ""): value for key, value in tensors.items()}
    ends = [key for key in names if key == anchor or key.endswith(f".{anchor}")]
    if len(ends) != 1:
        raise InputError(f"{path}: expected one tensor {anchor}, found {len(ends) or 'none'} of that name")
    prefix = ends[0].removesuffix(anchor)
    return {key.removeprefix(prefix): value for key, value in names.items() if key.startswith(prefix)}


def shape(path: Path, tensors: dict[str, torch.Tensor], key: str, dimensions: int) -> tuple[int, ...]:
    """Return the shape of a tensor. Raises InputError where it is missing or has another number of dimensions."""
    if key not in tensors:
        raise InputError(f"{path}: expected a tensor {key}, found none of that name")
    found = tuple(tensors[key].shape)
    if len(found) != dimensions:
        raise InputError(f"{path}: {key}: expected {dimensions} dimensions, found the shape {found}")
    return found


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: expected a safetensors file, found one that cannot be read: {error}") from None


def read_torch(path: Path) -> object:
    """Return the tensors and plain containers that torch.save wrote, on the CPU, memory-mapped where possible.

    Raises InputError for a truncated or foreign file or other objects in it.
    """
    expected = f"{path}: expected a file of tensors that torch.save wrote"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        unsafe = re.search(r"GLOBAL (\S+)", str(error))
        found = f"an object {unsafe[1]}, which is not unpickled: save a state dict" if unsafe else "another pickle"
        raise InputError(f"{expected}, found {found}") from None
    except Exception as error:  # torch raises many types for a file that is no checkpoint
        reason = str(error).split(". ")[0][:160]
        raise InputError(f"{expected}, found one that cannot be read: {type(error).__name__} {reason}") from None


def _describe(value: object) -> str:
    return "nothing" if isinstance(value, Mapping) else f"an object of type {type(value).__name__}"
