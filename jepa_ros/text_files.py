"""Text files: reading bounded JSON and YAML from outside, and writing any file in one step."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import yaml

from jepa_ros.errors import InputError

MAX_BYTES = 4_000_000
MAX_NODES = 100_000
"""Values in a YAML file, with aliases expanded."""


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a path beside `path` to write to; at the end of the block that file replaces `path`.

    A reader sees the old file or the whole new one. If the block raises, `path` stays as it was and nothing is left
    behind; if it writes nothing, nothing changes. Missing folders are created. The suffix is that of `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield partial
        if partial.exists():
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike, content: str | bytes) -> Path:
    """Write text (as UTF-8) or bytes to `path` in one step, as `atomic_path` does; returns the path."""
    with atomic_path(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
    return Path(path)


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
        if node is not None and _unfolded(node, {}) > MAX_NODES:
            raise yaml.YAMLError(f"aliases (*name) that unfold to more than {MAX_NODES} values")
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
        if size > MAX_BYTES:
            raise InputError(f"{what} {path}: expected {kind} of at most {MAX_BYTES} bytes, found {size}")
        return parse(path.read_text(encoding="utf-8"))
    except InputError:
        raise
    except RecursionError:
        raise InputError(f"{what} {path}: expected {kind}, found one nested too deeply") from None
    except (ValueError, OSError, yaml.YAMLError, OverflowError) as error:  # yaml raises ValueError for a 13th month
        raise InputError(f"{what} {path}: expected {kind}, found {error}") from None
