"""Check of the model's view: how far the live image is from the training data, and where the model sees the tool.

Both are measured for the image as it is and turned by 180°, to detect a camera that is mounted upside down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jepa_ros.doctor.finding import Finding, error, ok, warning
from jepa_ros.doctor.finding import FindingCode as Code
from jepa_ros.images import preprocess
from jepa_ros.world_model.checkpoint import Checkpoint

LATENT_DISTANCE = (2.5, 3.5)
"""Distances from the training data (1 is its average): warning, error."""
TOOL_DISTANCE = (8.0, 20.0)
"""Distance of the tool from where the joints put it, in multiples of the probe's own error: warning, error."""
TURNED_TOOL_RATIO, TURNED_DISTANCE_RATIO, USUAL_DISTANCE = 0.5, 0.7, 1.5
"""If the tool error, or the distance, of the turned image is less than this share of the original's, the image is
upside down. Distances up to USUAL_DISTANCE are usual in any case."""
TOOL_PROBE = "tool"


@dataclass(frozen=True)
class ModelView:
    """distance: from the training data, see BatchEncoder; tool_m: m between the tool as the model sees it and as the
    joints put it; each for the image as it is and turned by 180°, None if the model cannot tell. error_m: the probe's
    own error."""

    distance: float | None
    distance_turned: float | None
    tool_m: float | None
    tool_m_turned: float | None
    error_m: float | None


def measure_view(checkpoint: Checkpoint, images: list[np.ndarray], tool: np.ndarray | None) -> ModelView:
    """Encode the live images. images: (H, W, 3) uint8 RGB, one for each camera of the model. tool: (3,) m in the base
    frame, None if unknown."""
    import torch

    from jepa_ros.evaluation.bag.reading.images import BatchEncoder

    size = checkpoint.config.preprocessing.size
    frames = [
        np.stack([preprocess(np.ascontiguousarray(p), size) for p in turned])
        for turned in (images, [p[::-1, ::-1] for p in images])
    ]
    latents, distances = BatchEncoder(checkpoint.model).encode([f[0] if len(f) == 1 else f for f in frames])
    known = [float(d) if np.isfinite(d) else None for d in distances]
    probe = checkpoint.probes.get(TOOL_PROBE)
    if probe is None or tool is None:
        return ModelView(*known, None, None, None)
    observed = probe.read(torch.from_numpy(latents)).numpy()
    away = np.linalg.norm(observed - tool[: probe.dimension], axis=1)
    return ModelView(*known, float(away[0]), float(away[1]), probe.error)


def check(view: ModelView, topic: str) -> list[Finding]:
    """Return the findings on a view; upside down explains all others."""
    what = f"view of {topic}"
    if is_upside_down(view):
        found = f"one that fits better turned by 180° ({_compare(view)})"
        advice = "Turn the camera, or its driver's image."
        return [error(Code.UPSIDE_DOWN, what, "the training camera's orientation", found, advice)]
    if view.distance is None:
        return [ok("latent", what, "this model cannot measure the distance from its training data")]
    found = [_check_distance(what, view.distance)]
    if view.tool_m is not None and not found[0].level:
        found.append(_check_tool(what, view.tool_m, view.error_m))
    return found


def is_upside_down(view: ModelView) -> bool:
    """Decide by the tool, or by the distances if they differ enough and the tool does not contradict."""
    if view.tool_m is not None:
        far = TOOL_DISTANCE[0] * view.error_m
        if view.tool_m > far and view.tool_m_turned < min(far, TURNED_TOOL_RATIO * view.tool_m):
            return True
        if view.tool_m < view.tool_m_turned:
            return False
    return (
        view.distance is not None
        and view.distance > USUAL_DISTANCE
        and view.distance_turned < TURNED_DISTANCE_RATIO * view.distance
    )


def _compare(view: ModelView) -> str:
    if view.tool_m is not None:
        return f"the tool is observed {100 * view.tool_m:.0f} cm off, turned {100 * view.tool_m_turned:.0f} cm"
    return f"distance {view.distance:.2g} from the training data, turned {view.distance_turned:.2g}"


def _check_distance(what: str, distance: float) -> Finding:
    shown = f"{distance:.2g} from the training data"
    if distance <= LATENT_DISTANCE[0]:
        return ok("latent", what, f"{shown} (1 is usual)")
    advice = "Check the overlay: camera pose, light, background or arm differ from training. Train on this view."
    return (error if distance > LATENT_DISTANCE[1] else warning)(Code.LATENT_FAR, what, "about 1", shown, advice)


def _check_tool(what: str, away: float, own: float) -> Finding:
    shown = f"{100 * away:.1f} cm from where the joints put it"
    if away <= TOOL_DISTANCE[0] * own:
        return ok(Code.TOOL_ELSEWHERE, what, f"the model sees the tool {shown}")
    expected = f"the tool within {100 * TOOL_DISTANCE[0] * own:.1f} cm of where the joints put it"
    advice = "The camera has moved since training, or zeros or description are another arm's. Check the overlay."
    return (error if away > TOOL_DISTANCE[1] * own else warning)(Code.TOOL_ELSEWHERE, what, expected, shown, advice)
