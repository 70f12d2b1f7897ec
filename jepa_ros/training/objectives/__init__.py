"""Losses that may be added to one-step prediction, one file each."""

from jepa_ros.training.objectives.inverse_dynamics import InverseDynamics
from jepa_ros.training.objectives.rollout import Rollout
from jepa_ros.training.objectives.straightening import Straightening

__all__ = ["InverseDynamics", "Rollout", "Straightening"]
