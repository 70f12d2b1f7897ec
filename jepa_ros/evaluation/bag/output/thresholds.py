"""Thresholds on metrics: `prediction_ratio@3 > 0.5` fails a model whose ratio is above one half."""

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
    """A model fails if `metric sign value` is true."""

    metric: str
    sign: str
    value: float

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.value:g}"

    def check(self, metrics: Mapping[str, float | None]) -> str:
        """Return one line that says how it fails, "" where it does not. A metric that was not measured fails."""
        found = metrics[self.metric]
        if found is None:
            return f"threshold {self}: {self.metric} could not be measured"
        return f"threshold {self}: {self.metric} is {found:.4g}" if _COMPARE[self.sign](found, self.value) else ""


def parse_threshold(text: str) -> Threshold:
    """Parse one --fail-if option. Raises InputError."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise InputError(f"threshold '{text}': give METRIC, one of < > <= >=, and a number, such as 'score<0.3'")
    return Threshold(found[1], found[2], float(found[3]))


def read_thresholds(path: Path) -> list[Threshold]:
    """Read those of a YAML file: `fail_if`, a list of texts. Raises InputError."""
    content = read_yaml(path, "thresholds")
    if not isinstance(content, dict) or set(content) != {"fail_if"} or not isinstance(content["fail_if"], list):
        raise InputError(f"--thresholds {path}: must have one key, fail_if, with a list of thresholds")
    return [parse_threshold(str(text)) for text in content["fail_if"]]


def gather_thresholds(texts: Sequence[str], file: Path | None, known: Sequence[str]) -> list[Threshold]:
    """Return all thresholds. known: names of metrics. Raises InputError for an unknown name."""
    found = [*(parse_threshold(text) for text in texts), *(read_thresholds(file) if file is not None else ())]
    for threshold in found:
        if threshold.metric not in known:
            near = difflib.get_close_matches(threshold.metric, known, 4, 0.4) or list(known)[:4]
            raise InputError(f"threshold '{threshold}': no metric has this name; similar: {', '.join(near)}")
    return found
