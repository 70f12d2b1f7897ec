"""The table of metrics: computing all of them for one recording, and summarizing them over recordings."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import Any, NamedTuple

import numpy as np
import torch

from jepa_ros.evaluation.bag.metrics.data_quality import compute_quality, summarize_quality
from jepa_ros.evaluation.bag.metrics.latents import (
    compute_latents,
    compute_probes,
    summarize_latents,
    summarize_probes,
)
from jepa_ros.evaluation.bag.metrics.planner_agreement import (
    compute_agreement,
    compute_timing,
    summarize_agreement,
    summarize_timing,
)
from jepa_ros.evaluation.bag.metrics.prediction import (
    compute_prediction,
    compute_surprise,
    summarize_prediction,
    summarize_surprise,
)
from jepa_ros.evaluation.bag.reading.recording import EvaluationSpec, Recording
from jepa_ros.evaluation.bag.reading.situations import Situations, find_situations

MetricSamples = dict[str, Any]
"""Arrays or lists by name, with an entry for each sample."""


class Metric(NamedTuple):
    """compute: returns the samples of one recording. summarize: returns the figures; None for what is not measured."""

    compute: Callable[[Recording, Situations], MetricSamples]
    summarize: Callable[[MetricSamples, EvaluationSpec], dict[str, Any]]


METRICS: Mapping[str, Metric] = {
    "prediction": Metric(compute_prediction, summarize_prediction),
    "latents": Metric(compute_latents, summarize_latents),
    "probes": Metric(compute_probes, summarize_probes),
    "surprise": Metric(compute_surprise, summarize_surprise),
    "planner": Metric(compute_agreement, summarize_agreement),
    "quality": Metric(compute_quality, summarize_quality),
    "timing": Metric(compute_timing, summarize_timing),
}
USED_LATER = ("matplotlib.backends.backend_svg", "matplotlib.figure", "PIL.Image")
"""Imported by the report; imported while plans are computed, which takes longer than everything else."""


@dataclass
class BagResult:
    """What was found in one bag. samples: of each metric, by its name in METRICS. problems: one line each."""

    name: str
    situations: Situations
    samples: dict[str, MetricSamples]
    problems: list[str] = field(default_factory=list)

    @property
    def recording(self) -> Recording:
        """The bag as it was read."""
        return self.situations.recording

    @property
    def quality(self) -> dict[str, Any]:
        """Data quality of the bag, for summary.json."""
        return self.samples["quality"]["recordings"][0]


def compute_metrics(
    name: str, recording: Recording, spec: EvaluationSpec, progress: Callable[[int], None] = lambda plans: None
) -> BagResult:
    """Compute every metric of a recording. progress: called with the number of plans made."""
    situations, stop = find_situations(recording, spec), Event()

    def check_stop(plans: int) -> None:
        if stop.is_set():
            raise CancelledError
        progress(plans)

    # Plans are computed in parallel to the other metrics. torch counts threads per thread.
    with ThreadPoolExecutor(1, "plans", torch.set_num_threads, (1,)) as planner:
        plans = planner.submit(compute_agreement, recording, situations, check_stop)
        try:
            others = [key for key in METRICS if key not in ("planner", "timing")]
            samples = {key: METRICS[key].compute(recording, situations) for key in others}
            for module in USED_LATER:
                importlib.import_module(module)
            samples["planner"] = plans.result()
        finally:
            stop.set()
    samples["timing"] = compute_timing(recording, situations)  # while nothing else runs
    return BagResult(name, situations, samples, list(samples["planner"]["problems"]))


def summarize_metrics(results: Sequence[BagResult], spec: EvaluationSpec) -> dict[str, dict[str, Any]]:
    """Return the figures of every metric over these bags together, by the metric's name."""
    return {
        key: metric.summarize(join_samples([result.samples[key] for result in results]), spec)
        for key, metric in METRICS.items()
    }


def join_samples(parts: Sequence[MetricSamples]) -> MetricSamples:
    """Return the samples of several recordings as one; a name need not be in all of them."""
    joined: MetricSamples = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        values = [part[name] for part in parts if name in part]
        if isinstance(values[0], torch.Tensor):
            joined[name] = torch.cat(values)
        elif isinstance(values[0], np.ndarray):
            joined[name] = np.concatenate(values)
        else:
            joined[name] = [item for value in values for item in value]
    return joined
