"""Parameters of the nodes that load a model."""

from __future__ import annotations

from jepa_ros.nodes.common.parameters import Parameter
from jepa_ros.nodes.common.topics import ROBOT_NAMESPACE

MODEL_PARAMETERS = (
    Parameter("model", "openarm_reach", "Checkpoint: name in config/models, or directory.", at_configure=True),
    Parameter("robot", "openarm", "Robot (name in config/robots, or file) that the model must fit.", at_configure=True),
    ROBOT_NAMESPACE,
    Parameter(
        "threads",
        1,
        "torch threads; more than the free cores make everything slower.",
        range=(1, 64),
        at_configure=True,
    ),
    Parameter(
        "device",
        "cpu",
        "Where the model is computed: cpu, cuda, cuda:N, or auto. The small model is sooner on the CPU.",
        at_configure=True,
    ),
)
