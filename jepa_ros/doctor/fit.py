"""Model and robot: trained for it, same joints and actions, as many cameras."""

from __future__ import annotations

import numpy as np

from jepa_ros.doctor.finding import Finding, error, fine, listed, warning
from jepa_ros.doctor.observations import Job
from jepa_ros.errors import InputError
from jepa_ros.world_model.checkpoint import check_robot


def check(job: Job) -> list[Finding]:
    """What two files say of each other; nothing has to run for it."""
    model, robot, found = job.model, job.robot, []
    what = f"model {model.name}"
    try:
        check_robot(model, robot)
    except InputError as problem:
        text = str(problem).removeprefix(f"{what}: expected ")
        expected, _, there = text.partition(", found ")
        found.append(error("model", what, expected, there, "Take a model that was trained for this robot."))
    else:
        if robot.name not in model.robots:
            trained = listed(model.robots) if model.robots else "no robot"
            advice = "Train it on recordings of this robot; it may look alike and still be another."
            found.append(warning("model", what, f"one trained for {robot.name}", f"one trained for {trained}", advice))
    if len(job.cameras) != len(model.cameras):
        advice = "Give --camera-topic once for each view, in the model's order."
        views = f"{len(model.cameras)} image topics ({listed(model.cameras)})"
        found.append(error("views", what, views, listed(job.cameras), advice))
    if found:
        return found
    if missing := getattr(robot.action_space, "missing", None):
        lacks = f"robot {robot.name}"
        advice = "Poses are recorded and predicted; the planner will not start."
        found.append(warning("search", lacks, f"{' and '.join(missing)} of its action_space, to plan", "none", advice))
    rate = f"{model.control_rate:g} Hz, {len(model.cameras)} camera{'s' * (len(model.cameras) > 1)}"
    text = f"fits {robot.name}: {model.action.name} at {rate}"
    if (turn := robot.camera.rotation_to_base) is not None:
        degrees = np.degrees(2.0 * np.arccos(min(1.0, abs(turn[3]))))
        text += f"; its axes are turned by {degrees:.1f}° against the base's (camera.rotation_to_base)"
    return [fine("model", what, text), *found]
