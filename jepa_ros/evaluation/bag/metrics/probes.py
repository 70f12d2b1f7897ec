"""What the probes that come with a model read off the latents, against kinematics and measured joints.

Probes are part of the checkpoint, fitted on the training data; nothing is ever fitted on the bag that is judged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from jepa_ros.evaluation.bag.reading.records import Recorded
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.heads import JOINTS

TOOL = "tool"


def truths(joints: np.ndarray, tool: np.ndarray | None) -> dict[str, np.ndarray]:
    """What probes by name should read: tool (n, 3) m in the base frame, joint positions (n, J) rad; NaN where
    unknown."""
    return {JOINTS: joints} | ({TOOL: tool} if tool is not None else {})


@torch.inference_mode()
def read(checkpoint: Checkpoint, recorded: Recorded, wanted: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Errors (n,) of every frame by probe: m (distance) for the tool, rad (root mean square) for joints; NaN where the
    truth is unknown."""
    found = {}
    for name, truth in wanted.items():
        probe = checkpoint.probes.get(name)
        if probe is None or truth.shape[1] < probe.dimension:
            continue
        read = []
        for begin in range(0, len(truth), 256):
            rows = np.arange(begin, min(begin + 256, len(truth)))
            read.append(probe.read(recorded.latents.rows(rows)).numpy())
        apart = np.concatenate(read) - truth[:, : probe.dimension] if read else truth[:, : probe.dimension]
        squares = np.square(apart)
        found[name] = np.sqrt(squares.sum(1) if name == TOOL else squares.mean(1))
    return found


def measure(errors: dict[str, np.ndarray], wanted: dict[str, np.ndarray], checkpoint: Checkpoint) -> dict[str, Any]:
    """Figures of each probe; `spread` is the error of always reading the mean. None where there is no such probe."""
    result: dict[str, Any] = {}
    for name, unit in ((TOOL, "m"), (JOINTS, "rad")):
        error = errors.get(name, np.zeros(0))
        good = np.isfinite(error)
        entry = dict.fromkeys((f"error_p50_{unit}", f"error_p95_{unit}", f"rms_{unit}", f"spread_{unit}"))
        if good.any():
            truth = wanted[name][good][:, : checkpoint.probes[name].dimension]
            around = np.square(truth - truth.mean(0))
            around = np.sqrt((around.sum(1) if name == TOOL else around.mean(1)).mean())
            error = error[good]
            values = (np.median(error), np.percentile(error, 95), np.sqrt(np.square(error).mean()), around)
            entry = dict(zip(entry, map(float, values), strict=True))
        probe = checkpoint.probes.get(name)
        trained = None if probe is None else probe.error
        result[name] = {"frames": int(good.sum()), **entry, f"on_test_data_{unit}": trained}
    return result
