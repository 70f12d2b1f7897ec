"""Random, extreme and mutated ROS messages of any type, and damage to their bytes (CDR)."""

from __future__ import annotations

import copy
import functools
import importlib
import json
import math
import re
import struct
import time
from base64 import b64decode, b64encode
from pathlib import Path

import numpy as np

_INTEGERS = {f"int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)}
_INTEGERS |= {f"uint{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)}
_INTEGERS["char"] = (0, 255)
_FLOATS = {"float": 3.4028234e38, "double": 1.7976931348623157e308}
_ODD_FLOATS = (math.nan, math.inf, -math.inf, 5e-324, 1e-40, -0.0, 0.0, 1e9, -1e9)
_ODD_STRINGS = (
    "",
    " ",
    "/",
    "..",
    "../../etc/passwd",
    "%s%n",
    "\x00",
    "\n\r\t",
    "é" * 40,
    "\U0001f600",
    "a" * 300,
    "~",
    "0",
)
_HUGE = {"scalar": 100_000, "string": 3_000, "message": 500}


@functools.cache
def message_type(name: str) -> type:
    """The class of `pkg/Type` or `pkg/msg/Type`, and of a service or of an action's services by its full name."""
    package, *kind, last = name.split("/")
    for folder in kind or ("msg", "srv", "action"):
        module = importlib.import_module(f"{package}.{folder}")
        if hasattr(module, last):
            return getattr(module, last)
    action, _, part = last.rpartition("_")  # jepa_msgs/action/ReachGoal_SendGoal, jepa_msgs/ReachGoal_Goal
    action = getattr(module, action)
    return getattr(action, part, None) or getattr(action.Impl, f"{part}Service")


class Fuzzer:
    """rng: of everything that is drawn. words: strings that mean something to the nodes (joints, parameters, ids)."""

    def __init__(self, rng: np.random.Generator, words: list[str]) -> None:
        self.rng, self._words = rng, words

    def message(self, kind: type, valid: list):
        """A message of this type: invented, or one of `valid` with some fields replaced; stamps mostly of now."""
        if valid and self._chance(0.7):
            out = copy.deepcopy(self._pick(valid))
            for _ in range(int(self.rng.integers(0, 4))):
                self._mutate(out)
        else:
            out = self.invent(kind)
        if self._chance(0.7):
            self._refresh(out)
        return out

    def invent(self, kind: type):
        """Every field drawn."""
        out = kind()
        for name, text in kind.get_fields_and_field_types().items():
            setattr(out, name, self._value(text))
        return out

    def damage(self, raw: bytes) -> bytes:
        """The bytes of a message with bits flipped, cut, extended, or a length made absurd."""
        data, rng = bytearray(raw), self.rng
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(0, max(len(data), 1)))
            how = int(rng.integers(0, 6))
            if how == 0 and data:
                data[at] ^= 1 << int(rng.integers(0, 8))
            elif how == 1:
                del data[at:]
            elif how == 2:
                data += rng.bytes(int(rng.integers(1, 64)))
            elif how == 3 and len(data) >= 8:  # where lengths are: CDR aligns them to 4 bytes behind its header
                at = 4 + 4 * int(rng.integers(0, (len(data) - 4) // 4))
                struct.pack_into(
                    "<I", data, at, self._pick((0, 1, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(data)))
                )
            elif how == 4:
                data[at : at + 16] = rng.bytes(16)
            elif how == 5:
                data[at:at] = data[at : at + int(rng.integers(1, 32))]
        return bytes(data)

    # -- values --------------------------------------------------------------------------------------------------------

    def _value(self, text: str, length: int | None = None):
        """A value of a field's type as get_fields_and_field_types spells it."""
        if match := re.fullmatch(r"sequence<(.+?)(?:, (\d+))?>", text):
            count = self._length(match[1]) if length is None else length
            return self._array(match[1], min(count, int(match[2] or count)))
        if match := re.fullmatch(r"(.+)\[(\d+)\]", text):
            return self._array(match[1], int(match[2]))
        if text.startswith(("string", "wstring")):
            limit = re.search(r"<(\d+)>", text)
            return self._string()[: int(limit[1]) if limit else None]
        if text == "boolean":
            return self._chance(0.5)
        if text in _FLOATS:
            return self._float(text)
        if text in ("octet", "byte"):
            return bytes([int(self.rng.integers(0, 256))])
        if text in _INTEGERS:
            return self._integer(text)
        return self.invent(message_type(text))

    def _array(self, text: str, count: int) -> list:
        if count <= 32 or "string" in text or "/" in text:
            return [self._value(text) for _ in range(count)]
        fill = [self._value(text) for _ in range(16)]  # long ones repeat themselves: drawing is what takes time
        return (fill * (count // 16 + 1))[:count]

    def _length(self, text: str) -> int:
        if self._chance(0.002):
            return _HUGE["string" if "string" in text else "message" if "/" in text else "scalar"]
        nested = "/" in text
        return int(self._pick((0, 0, 1, 2, 3) if nested else (0, 0, 1, 2, 7, 9, 14, 18, 32, 192)))

    def _string(self) -> str:
        draw = self.rng.random()
        if draw < 0.6 and self._words:
            return self._pick(self._words)
        if draw < 0.9:
            return self._pick(_ODD_STRINGS)
        if draw < 0.903:
            return "x" * 100_000
        return bytes(self.rng.integers(1, 256, int(self.rng.integers(1, 40))).tolist()).decode("latin-1")

    def _float(self, text: str) -> float:
        draw = self.rng.random()
        if draw < 0.4:
            return float(self.rng.normal())
        if draw < 0.5:
            return float(self._pick((_FLOATS[text], -_FLOATS[text])))
        if draw < 0.7:
            return float(self.rng.normal() * 10.0 ** self.rng.integers(-6, 7))
        return self._pick(_ODD_FLOATS)

    def _integer(self, text: str) -> int:
        low, high = _INTEGERS[text]
        draw = self.rng.random()
        if draw < 0.5:
            return min(high, int(self.rng.integers(0, 12)))
        if draw < 0.7:
            return self._pick((low, high, high // 2, high // 2 + 1))
        return low + int.from_bytes(self.rng.bytes(8), "little") % (high - low + 1)

    # -- mutation ------------------------------------------------------------------------------------------------------

    def _mutate(self, message) -> None:
        """Replace one field, somewhere in it."""
        while True:
            fields = message.get_fields_and_field_types()
            name = self._pick(list(fields))
            held, text = getattr(message, name), fields[name]
            nested = held if hasattr(held, "get_fields_and_field_types") else None
            if nested is None and "/" in text and len(held):
                nested = self._pick(list(held))
            if nested is None or self._chance(0.1):
                break
            message = nested
        long = not isinstance(held, (str, bytes)) and hasattr(held, "__len__") and not text.endswith("]") and len(held)
        if long and self._chance(0.5):  # as many as there were, so that more than its length is looked at
            if "/" not in text and "string" not in text:
                held = copy.copy(held)
                held[int(self.rng.integers(0, len(held)))] = self._value(re.split(r"[<,>]", text)[1])
                setattr(message, name, held)
            elif len(held) > 1:
                setattr(message, name, list(held)[:: int(self._pick((-1, 2)))])
            return
        setattr(message, name, self._value(text))

    def _refresh(self, message, depth: int = 0) -> None:
        """Stamps near now, so that more than staleness is looked at."""
        for name, text in message.get_fields_and_field_types().items():
            held = getattr(message, name)
            if text == "builtin_interfaces/Time":
                ns = time.time_ns() + int(self._pick((0, 0, 0, -20_000_000, 100_000_000, -400_000_000)))
                held.sec, held.nanosec = divmod(ns, 10**9)
            elif hasattr(held, "get_fields_and_field_types") and depth < 3:
                self._refresh(held, depth + 1)

    def _chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def _pick(self, items):
        return items[int(self.rng.integers(0, len(items)))]


def save(path: Path, sent: list[tuple[str, str, bytes]]) -> None:
    """What was sent last, as JSON lines of endpoint, type and bytes, for a replay."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"to": to, "type": kind, "cdr": b64encode(raw).decode()}) for to, kind, raw in sent]
    path.write_text("\n".join(lines) + "\n")


def read(path: Path) -> list[tuple[str, str, bytes]]:
    """What `save` wrote."""
    return [(e["to"], e["type"], b64decode(e["cdr"])) for e in map(json.loads, path.read_text().splitlines())]
