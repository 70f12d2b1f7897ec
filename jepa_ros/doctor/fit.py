"""Check of the model against the robot's file: trained for it, same joints and actions, as many cameras."""

from __future__ import annotations

import numpy as np

from jepa_ros.doctor.finding import Finding, error, join_names, ok, warning
from jepa_ros.doctor.finding import FindingCode as Code
from jepa_ros.doctor.observations import RobotSetup
from jepa_ros.errors import InputError
from jepa_ros.world_model.checkpoint import check_robot


def check(setup: RobotSetup) -> list[Finding]:
    """Compare the two files; nothing has to run for it."""
    model, robot, found = setup.model, setup.robot, []
    subject = f"model {model.name}"
    try:
        check_robot(model, robot)
    except InputError as problem:
        expected, _, actual = str(problem).removeprefix(f"{subject}: expected ").partition(", found ")
        advice = "Take a model that was trained for this robot."
        found.append(error(Code.MODEL_MISMATCH, subject, expected, actual, advice))
    else:
        if robot.name not in model.robots:
            trained = join_names(model.robots) if model.robots else "no robot"
            advice = "Train it on recordings of this robot; two robots that look alike may still differ."
            wanted, actual = f"one trained for {robot.name}", f"one trained for {trained}"
            found.append(warning(Code.MODEL_UNTRAINED, subject, wanted, actual, advice))
    topics = setup.image_topics
    if len(topics) != len(model.cameras):
        advice = "Give --camera-topic once for each view, in the model's order."
        views = f"{len(model.cameras)} image topics ({join_names(model.cameras)})"
        found.append(error(Code.VIEWS_COUNT, subject, views, join_names(topics), advice))
    if found:
        return found
    if missing := getattr(robot.action_space, "missing", None):
        advice = "Poses can be recorded and predicted, but the planner will not start."
        wanted = f"{' and '.join(missing)} of its action_space, to plan"
        found.append(warning(Code.SEARCH_LIMITS, f"robot {robot.name}", wanted, "none", advice))
    rate = f"{model.control_rate:g} Hz, {len(model.cameras)} camera{'s' * (len(model.cameras) > 1)}"
    text = f"fits {robot.name}: {model.action.name} at {rate}"
    if (rotation := robot.camera.rotation_to_base) is not None:
        degrees = np.degrees(2.0 * np.arccos(min(1.0, abs(rotation[3]))))
        text += f"; its axes are turned by {degrees:.1f}° against the base's (camera.rotation_to_base)"
    return [ok("model", subject, text), *found]
