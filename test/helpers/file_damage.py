"""Damage to files: their bytes, and the values in what they say."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np

ODD = (None, True, -1, 0, 1e308, -0.5, 10**12, "", "x", "\ud800", "a\nb\x00", [], {}, [[]], [None], {"a": 1}, 1e-320)
"""Values in place of others; each can be written as JSON and YAML."""


class Marker:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Bits flipped, a piece cut out, doubled, zeroed or replaced, the end cut off or more put behind it."""
    out = bytearray(data)
    how, at = int(rng.integers(0, 7)), int(rng.integers(0, max(len(out), 1)))
    size = int(rng.integers(1, 40))
    if how == 0:
        for _ in range(int(rng.integers(1, 9))):
            at = int(rng.integers(0, max(len(out), 1)))
            out[at : at + 1] = bytes([(out[at] if out else 0) ^ (1 << int(rng.integers(0, 8)))])
    elif how == 1:
        del out[at:]
    elif how == 2:
        del out[at : at + size]
    elif how == 3:
        out[at:at] = out[at : at + size]
    elif how == 4:
        out[at : at + size] = bytes(len(out[at : at + size]))
    elif how == 5:
        out[at : at + 8] = rng.choice([b"\xff" * 8, b"\x00\x00\x00\x80" * 2, rng.bytes(8)])
    else:
        out += rng.bytes(size)
    return bytes(out)


def changed(tree, rng: np.random.Generator):
    """A tree of mappings and lists with one to three of its values replaced, removed, doubled or renamed."""
    tree = copy.deepcopy(tree)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(tree))
        if not places:
            return tree
        parent, key = places[int(rng.integers(0, len(places)))]
        how = int(rng.integers(0, 8))
        if how == 0:
            del parent[key]
        elif how == 1 and isinstance(parent, dict):
            parent[f"{key}_"] = parent.pop(key)
        elif how == 2 and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        elif how == 3 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
            parent[key] = parent[key] * float(rng.choice([-1.0, 0.0, 1e6, 1e-6, 2.0]))
        elif how == 4 and isinstance(parent[key], int):
            parent[key] = parent[key] * 10 ** int(rng.integers(1, 9))
        else:
            parent[key] = copy.deepcopy(ODD[int(rng.integers(0, len(ODD)))])
    return tree


def _places(tree):
    """(container, key) of every value in a tree."""
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def pickled(marker: Path) -> bytes:
    """A pickle that leaves `marker` behind where somebody loads it."""
    return pickle.dumps({"model": Marker(marker)})
