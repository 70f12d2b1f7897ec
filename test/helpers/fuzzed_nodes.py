"""The nodes that are fuzzed, what they start with, and what is heard of all of them."""

from __future__ import annotations

from pathlib import Path

from lifecycle_msgs.msg import Transition

PATIENT = {"latent_timeout": 2.0, "latent_stamp_timeout": 2.0, "joint_timeout": 0.5, "joint_stamp_timeout": 0.6}
PATIENT |= {"plan_late": 0.5, "source_timeout": 3.0}
"""Wider than on a robot: how late things come on a busy machine is not what is tested here."""
PLAIN_MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""Freed memory goes back to the system, so that what a process holds is what it keeps."""
SHUTDOWN = (
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
    Transition.TRANSITION_INACTIVE_SHUTDOWN,
    Transition.TRANSITION_ACTIVE_SHUTDOWN,
    Transition.TRANSITION_DESTROY,
)
PLAYED = "/played/image/compressed"
RECORDED = {
    *("/joint_states", "/robot_description", "/tf_static", "/clock", "/executed", "/episode", "/goal_image", "/latent"),
    *("/surprise", "/plan", "/imagined_path", "/planner_status", "/gate_status", "/diagnostics", PLAYED),
    "/right_joint_trajectory_controller/joint_trajectory",
}
"""What the recorder hears as soon as all nodes are there."""


def processes(recording: Path, play: Path) -> dict[str, tuple[str, dict, dict]]:
    """Module, parameters and remaps by the name that discovery shows. recording: where a bag is written; play: one that
    is played in a namespace of its own, where nobody is moved by it."""
    record = {"out": recording, "images": "compressed", "topics": f"[{PLAYED}]"}
    return {
        "/simulator": ("simulator", {"width": 160, "height": 120, "tf_rate": 0.0}, {}),
        "/camera": ("camera", {"frozen_after": 0.0, "max_age": 2.0}, {}),
        "/wrist/camera": ("camera", {"transport": "compressed"}, {"__ns": "/wrist"}),
        "/world_model": ("world_model", {}, {}),
        "/planner": ("planner", {"latent_timeout": 2.0}, {}),
        "/arm_gate": ("arm_gate", PATIENT, {}),
        "/recorder": ("recorder", record, {}),
        "/played/player": ("player", {"bag": play, "loop": True}, {"__ns": "/played", "latent": "/latent"}),
    }


def harmless(request) -> None:
    """Take from a request what it would be right to obey, and what would end the test."""
    if hasattr(request, "transition") and orders_the_end(request):
        request.transition.id, request.transition.label = 200, ""
    for parameter in getattr(request, "parameters", ()):
        if parameter.name == "use_sim_time":
            parameter.value.bool_value = False  # on a clock that is none of the robot's, holding is all that is right
        if parameter.name == "loop":
            parameter.value.bool_value = True  # else the player ends with its recording


def orders_the_end(request) -> bool:
    """Whether a lifecycle request tells the node to end for good."""
    return request.transition.id in SHUTDOWN or "shutdown" in request.transition.label
