"""What the model makes of the live picture: how far it is from the training data, and where it sees the tool.

Both are asked of the picture as it is and of the picture turned by 180°, for a camera that is mounted upside down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jepa_ros.doctor.finding import Finding, error, fine, warning
from jepa_ros.images import preprocess
from jepa_ros.world_model.checkpoint import Checkpoint

STRANGE = (2.5, 3.5)
"""Distances from the training data (1 on average over it) that are a warning, and an error."""
SEES_TOOL = (8.0, 20.0)
"""Times the probe's own error at which the tool counts as seen elsewhere: warning, error."""
BETTER, NEARER, LOOK = 0.5, 0.7, 1.5
"""Of the tool's error, and of the distance, as they are: where the turned picture's is less than this, the picture is
upside down. Distances up to LOOK are usual whatever the other one is."""
TOOL = "tool"


@dataclass(frozen=True)
class View:
    """distance: from the training data, see BatchEncoder; tool_m: m between where the model sees the tool and where the
    joints say that it is; each as it is and turned by 180°, None where the model cannot tell.
    error_m: the probe's own."""

    distance: float | None
    distance_turned: float | None
    tool_m: float | None
    tool_m_turned: float | None
    error_m: float | None


def look(checkpoint: Checkpoint, pictures: list[np.ndarray], tool: np.ndarray | None) -> View:
    """pictures: (H, W, 3) uint8 rgb, one a camera of the model. tool: (3,) m in the base frame, None where unknown."""
    import torch

    from jepa_ros.evaluation.bag.reading.latents import BatchEncoder

    size = checkpoint.config.preprocessing.size
    frames = [np.stack([preprocess(np.ascontiguousarray(p), size) for p in turned]) for turned in _both(pictures)]
    latents, distances = BatchEncoder(checkpoint.model).encode([f[0] if len(f) == 1 else f for f in frames])
    known = [float(d) if np.isfinite(d) else None for d in distances]
    probe = checkpoint.probes.get(TOOL)
    if probe is None or tool is None:
        return View(*known, None, None, None)
    seen = probe.read(torch.from_numpy(latents)).numpy()
    away = np.linalg.norm(seen - tool[: probe.dimension], axis=1)
    return View(*known, float(away[0]), float(away[1]), probe.error)


def _both(pictures: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return pictures, [p[::-1, ::-1] for p in pictures]


def check(view: View, topic: str) -> list[Finding]:
    """Upside down first: it explains the rest."""
    what = f"view of {topic}"
    if upside_down(view):
        found = f"one that fits better turned by 180° ({_compared(view)})"
        return [
            error("upside_down", what, "the training camera's way up", found, "Turn the camera, or its driver's image.")
        ]
    if view.distance is None:
        return [fine("latent", what, "this model cannot tell how far it is from its training data")]
    found = [_strange(what, view.distance)]
    if view.tool_m is not None and not found[0].level:
        found.append(_tool(what, view.tool_m, view.error_m))
    return found


def upside_down(view: View) -> bool:
    """By where the model sees the tool, or by the distances where those differ enough and the tool does not object."""
    if view.tool_m is not None:
        far = SEES_TOOL[0] * view.error_m
        if view.tool_m > far and view.tool_m_turned < min(far, BETTER * view.tool_m):
            return True
        if view.tool_m < view.tool_m_turned:
            return False
    return view.distance is not None and view.distance > LOOK and view.distance_turned < NEARER * view.distance


def _compared(view: View) -> str:
    if view.tool_m is not None:
        return f"the tool is seen {100 * view.tool_m:.0f} cm off, turned {100 * view.tool_m_turned:.0f} cm"
    return f"distance {view.distance:.2g} from the training data, turned {view.distance_turned:.2g}"


def _strange(what: str, distance: float) -> Finding:
    shown = f"{distance:.2g} from the training data"
    if distance <= STRANGE[0]:
        return fine("latent", what, f"{shown} (1 is usual)")
    advice = "Look at the overlay: another place, light, background or arm than in training. Train on this view."
    return (error if distance > STRANGE[1] else warning)("latent", what, "about 1", shown, advice)


def _tool(what: str, away: float, own: float) -> Finding:
    shown = f"{100 * away:.1f} cm from where the joints say that it is"
    if away <= SEES_TOOL[0] * own:
        return fine("tool_seen", what, f"the model sees the tool {shown}")
    expected = f"the tool within {100 * SEES_TOOL[0] * own:.1f} cm of where the joints say"
    advice = "The camera stands elsewhere than in training, or zeros or description are another arm's. See the overlay."
    return (error if away > SEES_TOOL[1] * own else warning)("tool_seen", what, expected, shown, advice)
