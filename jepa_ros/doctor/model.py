"""Checks of the model: that it fits the robot's file, and how it sees the live image.

The distance of the image from the training data, and of the tool from where the joints put it, are measured for the
image as it is and turned by 180°, to detect a camera that is mounted upside down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jepa_ros.doctor.finding import Finding, error, join_names, ok, warning
from jepa_ros.doctor.finding import FindingCode as Code
from jepa_ros.doctor.observations import RobotSetup
from jepa_ros.errors import InputError
from jepa_ros.images import preprocess
from jepa_ros.world_model.checkpoint import Checkpoint, check_robot

LATENT_DISTANCE = (2.5, 3.5)
"""Distances from the training data (1 is its average): warning, error."""
TOOL_DISTANCE = (8.0, 20.0)
"""Distance of the tool from where the joints put it, in multiples of the probe's own error: warning, error."""
TURNED_TOOL_RATIO, TURNED_DISTANCE_RATIO, USUAL_DISTANCE = 0.5, 0.7, 1.5
"""If the tool error, or the distance, of the turned image is less than this share of the original's, the image is
upside down. Distances up to USUAL_DISTANCE are usual in any case."""
TOOL_PROBE = "tool"


def check_fit(setup: RobotSetup) -> Iterator[Finding]:
    """Check the model against the robot's file: trained for it, same joints and actions, as many cameras."""
    model, robot, subject = setup.model, setup.robot, f"model {setup.model.name}"
    problems = []
    try:
        check_robot(model, robot)
    except InputError as problem:
        expected, _, actual = str(problem).removeprefix(f"{subject}: expected ").partition(", found ")
        advice = "Take a model that was trained for this robot."
        problems.append(error(Code.MODEL_MISMATCH, subject, expected, actual, advice))
    else:
        if robot.name not in model.robots:
            trained = join_names(model.robots) if model.robots else "no robot"
            advice = "Train it on recordings of this robot; two robots that look alike may still differ."
            wanted, actual = f"one trained for {robot.name}", f"one trained for {trained}"
            problems.append(warning(Code.MODEL_UNTRAINED, subject, wanted, actual, advice))
    if len(setup.image_topics) != len(model.cameras):
        advice = "Give --camera-topic once for each view, in the model's order."
        views = f"{len(model.cameras)} image topics ({join_names(model.cameras)})"
        problems.append(error(Code.VIEWS_COUNT, subject, views, join_names(setup.image_topics), advice))
    yield from problems
    if problems:
        return
    rate = f"{model.control_rate:g} Hz, {len(model.cameras)} camera{'s' * (len(model.cameras) > 1)}"
    text = f"fits {robot.name}: {model.action.name} at {rate}"
    if (rotation := robot.camera.rotation_to_base) is not None:
        degrees = np.degrees(2.0 * np.arccos(min(1.0, abs(rotation[3]))))
        text += f"; its axes are turned by {degrees:.1f}° against the base's (camera.rotation_to_base)"
    yield ok("model", subject, text)
    if missing := getattr(robot.action_space, "missing", None):
        advice = "Poses can be recorded and predicted, but the planner will not start."
        wanted = f"{' and '.join(missing)} of its action_space, to plan"
        yield warning(Code.SEARCH_LIMITS, f"robot {robot.name}", wanted, "none", advice)


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


def check_view(view: ModelView, topic: str) -> Iterator[Finding]:
    """Check how the model sees the live image; upside down explains all other findings."""
    what = f"view of {topic}"
    if is_upside_down(view):
        found = f"one that fits better turned by 180° ({_compare(view)})"
        advice = "Turn the camera, or its driver's image."
        yield error(Code.UPSIDE_DOWN, what, "the training camera's orientation", found, advice)
        return
    if view.distance is None:
        yield ok("latent", what, "this model cannot measure the distance from its training data")
        return
    far = _check_distance(what, view.distance)
    yield far
    if view.tool_m is not None and not far.level:
        yield _check_tool(what, view.tool_m, view.error_m)


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
