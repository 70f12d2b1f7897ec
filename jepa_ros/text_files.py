"""Small text files from outside, JSON and YAML: bounded in size, and whatever is wrong with one is one InputError."""

from __future__ import annotations

import json
import math
from pathlib import Path

import yaml

from jepa_ros.errors import InputError

LARGEST = 4_000_000
"""Bytes; a configuration larger than this is none."""
MOST_NODES = 100_000


def read_json(path: Path, what: str) -> object:
    """The JSON in a file. what: names the input in the error, e.g. "model". Raises InputError."""
    return _parsed(path, what, "JSON", json.loads)


def read_yaml(path: Path, what: str) -> object:
    """The YAML in a file; tags that would make objects are refused. Raises InputError."""
    return _parsed(path, what, "YAML", lambda text: yaml.load(text, Loader=_Loader))


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """yaml's safe loader, with a bound on what aliases unfold to: ten lines of them can stand for gigabytes."""

    def get_single_node(self):
        node = super().get_single_node()
        if node is not None and _unfolded(node, {}) > MOST_NODES:
            raise yaml.YAMLError(f"aliases (*name) that unfold to more than {MOST_NODES} values")
        return node


def _unfolded(node: yaml.Node, known: dict[int, float]) -> float:
    """Number of values in a node where each alias counts as all that it stands for; inf where one holds itself."""
    if id(node) not in known:
        known[id(node)] = math.inf  # until it is counted: met again in here, it holds itself
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        children = [c for part in parts for c in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(_unfolded(child, known) for child in children)
    return known[id(node)]


def _parsed(path: Path, what: str, kind: str, parse) -> object:
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise InputError(f"{what} {path}: expected {kind} of at most {LARGEST} bytes, found {size}")
        return parse(path.read_text(encoding="utf-8"))
    except InputError:
        raise
    except RecursionError:
        raise InputError(f"{what} {path}: expected {kind}, found one nested too deeply") from None
    except (ValueError, OSError, yaml.YAMLError, OverflowError) as error:  # yaml raises ValueError for a 13th month
        raise InputError(f"{what} {path}: expected {kind}, found {error}") from None
