"""summary.json of `evaluate bag`: figures of each bag and of all together, the score, and thresholds on metrics.

The threshold `prediction_ratio@3 > 0.5` fails a model whose ratio is above one half.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from jepa_ros.errors import InputError
from jepa_ros.evaluation.bag.metrics.data_quality import QUALITY_KEYS
from jepa_ros.evaluation.bag.metrics.planner_agreement import PLAN_KEYS
from jepa_ros.evaluation.bag.metrics.table import BagResult, summarize_metrics
from jepa_ros.evaluation.bag.reading.recording import EvaluationSpec
from jepa_ros.reporting.summary import finite_or_none
from jepa_ros.text_files import read_yaml

STEP_METRICS = ("prediction_ratio", "shuffled_ratio", "joints_rms_rad")
"""Metrics of each horizon, such as prediction_ratio@3."""
LATENT_METRICS = ("effective_rank", "dead_dimensions", "drift", "drift_max")
TRAINING_METRICS = ("training_distance_mean", "training_distance_p95", "states_out_of_training")
METRIC_PATHS: Mapping[str, tuple[str, ...]] = {
    **{name: ("latents", name) for name in (*LATENT_METRICS, *TRAINING_METRICS)},
    **{
        f"probe_{probe}_{short}_{unit}": ("probes", probe, f"{key}_{unit}")
        for probe, unit in (("tool", "m"), ("joints", "rad"))
        for short, key in (("p50", "error_p50"), ("p95", "error_p95"), ("rms", "rms"))
    },
    **{f"surprise_{name}": ("surprise", name) for name in ("error_p50", "error_p95", "rate", "events")},
    **{f"plan_{name}": ("planner", name) for name in ("states", "without_plan", "limit_violations", *PLAN_KEYS)},
    "score": ("score",),
    **{name: ("quality", name) for name in QUALITY_KEYS},
}
"""Where each other metric of `metrics` is found in the figures of all bags."""
TIMING_PATHS: Mapping[str, tuple[str, ...]] = {
    "times_real_time": ("times_real_time",),
    "deadline_misses": ("deadline_misses",),
    **{f"{name}_p99": (name, "p99") for name in ("decode_ms", "encode_ms", "plan_ms")},
}
"""Where each metric that differs from run to run is found in `timing`."""
PROBE_ERROR_SCALE_M = 0.01
"""Probe error that halves the `sight` part of the score."""
_FORM = re.compile(r"\s*([A-Za-z][\w.@]*)\s*(<=|>=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")
_COMPARE = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}


def summarize(results: Sequence[BagResult], spec: EvaluationSpec) -> dict[str, Any]:
    """Return everything in summary.json that follows from the bags. `timing` is what differs from run to run."""
    together = summarize_metrics(results, spec)
    together |= _score_figures(together)
    metrics = {
        f"{name}@{entry['steps']}": entry[name] for entry in together["prediction"]["horizons"] for name in STEP_METRICS
    }
    metrics |= {name: reduce(getitem, path, together) for name, path in METRIC_PATHS.items()}
    timing = together.pop("timing")
    del together["quality"]  # `bags` has more
    return {
        "model": spec.config.name,
        "model_id": spec.checkpoint.model_id,
        "robot": spec.robot.name,
        "seed": spec.seed,
        "horizon": spec.horizon,
        "model_step_s": spec.config.step,
        "planning": {name: getattr(spec.planning, name) for name in ("solver", "policy", "metric")}
        | {"states_a_bag": spec.plan_states},
        "score": together["score"],
        "metrics": metrics,
        "together": together,
        "bags": [_bag_entry(result, spec) for result in results],
        "problems": [problem for result in results for problem in result.problems],
        "timing": timing,
    }


def timing_metrics(timing: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the metrics of `timing` that thresholds may name."""
    return {name: reduce(getitem, path, timing) for name, path in TIMING_PATHS.items()}


def metric_names(horizon: int) -> list[str]:
    """Return the names of all metrics that thresholds may name."""
    steps = (f"{name}@{k + 1}" for name in STEP_METRICS for k in range(horizon))
    return [*steps, *METRIC_PATHS, *TIMING_PATHS]


def score(prediction_ratio: float | None, probe_error: float | None, gap_ratio: float | None) -> dict[str, Any]:
    """Return `score`, the geometric mean of three `parts`, each between 0 and 1 (best); None if one is unknown.

    prediction = 1 / (1 + √prediction_ratio at the last horizon); the root makes it a ratio of lengths like the others.
    sight = 1 / (1 + median tool probe error / PROBE_ERROR_SCALE_M). planning = 1 / (1 + gap_ratio). No part saturates,
    so better is always more; they are multiplied, so a model that fails at one has a low score.
    """
    given = {"planning": gap_ratio}
    given["prediction"] = None if prediction_ratio is None else math.sqrt(max(prediction_ratio, 0.0))
    given["sight"] = None if probe_error is None else probe_error / PROBE_ERROR_SCALE_M
    parts = {name: None if value is None else 1.0 / (1.0 + max(value, 0.0)) for name, value in given.items()}
    known = [value for value in parts.values() if value is not None]
    return {"score": math.prod(known) ** (1 / 3) if len(known) == 3 else None, "parts": parts}


def _score_figures(found: Mapping[str, Any]) -> dict[str, Any]:
    last, tool = found["prediction"]["horizons"][-1], found["probes"]["tool"]
    return score(last["prediction_ratio"], tool["error_p50_m"], found["planner"]["gap_ratio"])


def _bag_entry(result: BagResult, spec: EvaluationSpec) -> dict[str, Any]:
    """Return the figures of one bag, with every surprise event and every plan."""
    found = summarize_metrics([result], spec)
    found |= _score_figures(found)
    del found["timing"], found["quality"]
    stamps, samples = result.recording.frame_stamps, result.samples
    found["surprise"] |= {"at": [asdict(e) | {"stamp_ns": stamps[e.frame]} for e in samples["surprise"]["events"]]}
    found["planner"] |= {
        "at": [
            {name: finite_or_none(value) for name, value in vars(a).items() if name != "plan"}
            for a in samples["planner"]["agreements"]
        ]
    }
    head = {"name": result.name, "path": result.recording.path, "quality": result.quality}
    return head | found | {"problems": result.problems}


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
