"""All checks over what was seen, in the order in which a person would mend things."""

from __future__ import annotations

import numpy as np

from jepa_ros.doctor import camera, control, fit, frames, graph, joints, times, view
from jepa_ros.doctor.finding import Finding
from jepa_ros.doctor.observations import Job, Seen
from jepa_ros.errors import InputError
from jepa_ros.world_model.checkpoint import Checkpoint

SPOILT = {"cameras", "encoding", "dark", "frozen"}
"""Findings after which nobody asks what the model makes of the picture."""


def examine(seen: Seen, job: Job, checkpoint: Checkpoint | None = None) -> list[Finding]:
    """checkpoint: None where only the model's config.json is to be looked at."""
    if (nothing := graph.misplaced(seen, job)) is not None:
        return [*fit.check(job), nothing]
    found = [
        *fit.check(job),
        *graph.check(seen, job),
        *times.check(seen, job),
        *joints.check(seen, job),
        *control.check(seen, job),
        *frames.check(seen, job),
        *camera.check(seen, job),
    ]
    if checkpoint is None or any(f.level and f.check in SPOILT | {"views"} for f in found):
        return found
    pictures = [c.picture for c in seen.cameras]
    if len(pictures) != len(job.model.cameras) or any(p is None for p in pictures):
        return found
    sound = not any(f.level and f.check in ("units", "values", "joints", "range") for f in found)
    made = view.look(checkpoint, pictures, tool_position(seen, job) if sound else None)
    return [*found, *view.check(made, seen.cameras[0].topic)]


def positions(seen: Seen, job: Job) -> np.ndarray | None:
    """(J,) rad of the arm's joints by the newest message that has them all; None without one."""
    for m in reversed(seen.joint_messages):
        if set(job.robot.joints) <= set(m.names) and len(m.positions) == len(m.names):
            found = np.array([m.positions[m.names.index(j)] for j in job.robot.joints])
            if np.isfinite(found).all():
                return found
    return None


def tool_position(seen: Seen, job: Job) -> np.ndarray | None:
    """(3,) m in the base frame, by the joints and the description; None where they do not tell."""
    q = positions(seen, job)
    if q is None or seen.description is None:
        return None
    from jepa_ros.robot.motion.kinematics import Kinematics

    robot = job.robot
    try:
        return Kinematics(seen.description, robot.joints, robot.tool_frame, robot.base_frame).forward(q)[0]
    except InputError:  # told by another check
        return None
