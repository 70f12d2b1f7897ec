"""Optional losses beside the one-step prediction, one file each; `losses.py` adds them up with a recipe's weights."""

from jepa_ros.training.objectives.inverse_dynamics import InverseDynamics
from jepa_ros.training.objectives.rollout import Rollout
from jepa_ros.training.objectives.straightening import Straightening

__all__ = ["InverseDynamics", "Rollout", "Straightening"]
