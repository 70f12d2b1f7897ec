"""Errors of the model's probes: tool position against kinematics, joint positions against measured joints.

Probes are part of the checkpoint and were fitted on the training data; nothing is fitted on the evaluated bag.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from jepa_ros.evaluation.bag.reading.recording import EvaluationSpec, Recording
from jepa_ros.evaluation.bag.reading.situations import Situations
from jepa_ros.world_model.heads import JOINTS

TOOL = "tool"
UNITS = {TOOL: "m", JOINTS: "rad"}


def compute(recording: Recording, situations: Situations) -> dict[str, np.ndarray]:
    """Return for each probe of the model the error (n,) of every frame and the true value (n, d), NaN where unknown.

    tool_error: distance in m; tool_truth (n, 3): position in the base frame in m. joints_error: root mean square in
    rad; joints_truth (n, J): positions in rad.
    """
    spec, found = situations.spec, {}
    truths = {JOINTS: situations.frame_states[:, : len(spec.config.proprioception.joints)]}
    if TOOL in spec.checkpoint.probes and (tool := situations.tool_positions()) is not None:
        truths[TOOL] = tool
    for name, truth in truths.items():
        found |= read_probe(spec, recording, name, truth)
    return found


@torch.inference_mode()
def read_probe(spec: EvaluationSpec, recording: Recording, name: str, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Return error and truth of one probe as `compute` does; nothing where the model has no such probe."""
    probe = spec.checkpoint.probes.get(name)
    if probe is None or truth.shape[1] < probe.dimension:
        return {}
    rows = [np.arange(begin, min(begin + 256, len(truth))) for begin in range(0, len(truth), 256)]
    read = [probe.read(recording.latents.rows(some)).numpy() for some in rows]
    difference = (np.concatenate(read) if read else 0.0) - truth[:, : probe.dimension]
    return {f"{name}_error": np.sqrt(_squares(name, difference)), f"{name}_truth": truth[:, : probe.dimension]}


def summarize(samples: dict[str, np.ndarray], spec: EvaluationSpec) -> dict[str, Any]:
    """Return the figures of each probe; `spread` is the error of always predicting the mean."""
    result: dict[str, Any] = {}
    for name, unit in UNITS.items():
        error = samples.get(f"{name}_error", np.zeros(0))
        good = np.isfinite(error)
        entry = dict.fromkeys((f"error_p50_{unit}", f"error_p95_{unit}", f"rms_{unit}", f"spread_{unit}"))
        if good.any():
            truth, error = samples[f"{name}_truth"][good], error[good]
            spread = _squares(name, truth - truth.mean(0)).mean()
            values = (np.median(error), np.percentile(error, 95), np.sqrt(np.square(error).mean()), np.sqrt(spread))
            entry = dict(zip(entry, map(float, values), strict=True))
        probe = spec.checkpoint.probes.get(name)
        trained = None if probe is None else probe.error
        result[name] = {"frames": int(good.sum()), **entry, f"on_test_data_{unit}": trained}
    return result


def _squares(name: str, difference: np.ndarray) -> np.ndarray:
    """Squared lengths (n,) of differences (n, d): their sum for the tool, their mean for joints."""
    squares = np.square(difference)
    return squares.sum(1) if name == TOOL else squares.mean(1)
