"""Files of named tensors from other code bases: what torch.save or safetensors wrote, without running what is in it."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from jepa_ros.errors import InputError

SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors")
# Where training code puts the tensors when it saves more than them.
WRAPPERS = ("state_dict", "model_state_dict", "model")


def find_state_dict(path: Path) -> Path:
    """The one file of tensors that `path` is, or that the directory `path` holds. Raises InputError."""
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
    """Tensors by name, on the CPU. Raises InputError where the file is truncated, foreign, or holds other objects."""
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
    """The tensors of the model that has one named `anchor`, without what wrappers (DistributedDataParallel, compile,
    Lightning) put before or into the names. Raises InputError where there is not exactly one such model."""
    names = {key.replace("_orig_mod.", ""): value for key, value in tensors.items()}
    ends = [key for key in names if key == anchor or key.endswith(f".{anchor}")]
    if len(ends) != 1:
        raise InputError(f"{path}: expected one tensor {anchor}, found {len(ends) or 'none'} of that name")
    prefix = ends[0].removesuffix(anchor)
    return {key.removeprefix(prefix): value for key, value in names.items() if key.startswith(prefix)}


def shape(path: Path, tensors: dict[str, torch.Tensor], key: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor that must be there. Raises InputError."""
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
    """What torch.save wrote, if that is tensors and plain containers, on the CPU; their bytes stay in the file until
    they are used, where its format allows. Raises InputError where it is truncated, foreign, or holds other objects."""
    expected = f"{path}: expected a file of tensors that torch.save wrote"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: what matters of them is an exception
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        unsafe = re.search(r"GLOBAL (\S+)", str(error))
        found = f"an object {unsafe[1]}, which is not unpickled: save a state dict" if unsafe else "another pickle"
        raise InputError(f"{expected}, found {found}") from None
    except Exception as error:  # on what is no checkpoint nearly any type is raised
        reason = str(error).split(". ")[0][:160]
        raise InputError(f"{expected}, found one that cannot be read: {type(error).__name__} {reason}") from None


def _describe(value: object) -> str:
    return "nothing" if isinstance(value, Mapping) else f"an object of type {type(value).__name__}"
