"""Thresholds on figures: `prediction_ratio@3 > 0.5` fails a model whose ratio is above one half."""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jepa_ros.errors import InputError
from jepa_ros.text_files import read_yaml

_FORM = re.compile(r"\s*([A-Za-z][\w.@]*)\s*(<=|>=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")
_COMPARE = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Threshold:
    """Fails where `metric` compares to `value` as `sign` says."""

    metric: str
    sign: str
    value: float

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.value:g}"

    def broken(self, metrics: Mapping[str, float | None]) -> str:
        """In one line how it fails; "" where it does not. A figure that was not measured fails."""
        found = metrics[self.metric]
        if found is None:
            return f"threshold {self}: {self.metric} could not be measured"
        return f"threshold {self}: found {found:.4g}" if _COMPARE[self.sign](found, self.value) else ""


def parse(text: str) -> Threshold:
    """One of --fail-if. Raises InputError."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise InputError(f"threshold '{text}': expected FIGURE, one of < > <= >=, and a number, found another form")
    return Threshold(found[1], found[2], float(found[3]))


def read(path: Path) -> list[Threshold]:
    """Those of a YAML file: `fail_if`, a list of texts. Raises InputError."""
    content = read_yaml(path, "thresholds")
    if not isinstance(content, dict) or set(content) != {"fail_if"} or not isinstance(content["fail_if"], list):
        raise InputError(f"thresholds {path}: expected one key fail_if with a list, found another form")
    return [parse(str(text)) for text in content["fail_if"]]


def gather(texts: Sequence[str], file: Path | None, known: Sequence[str]) -> list[Threshold]:
    """All of them. known: the names of figures. Raises InputError for a name that is none of these."""
    found = [*(parse(text) for text in texts), *(read(file) if file is not None else ())]
    for threshold in found:
        if threshold.metric not in known:
            near = difflib.get_close_matches(threshold.metric, known, 4, 0.4) or list(known)[:4]
            raise InputError(f"threshold '{threshold}': expected a figure such as {', '.join(near)}, found no such one")
    return found
