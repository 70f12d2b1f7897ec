"""Results of the metrics for one bag."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jepa_ros.evaluation.bag.metrics import latent_health as health
from jepa_ros.evaluation.bag.metrics import prediction, surprise
from jepa_ros.evaluation.bag.metrics.planner_agreement import Agreement
from jepa_ros.evaluation.bag.reading.records import Recorded
from jepa_ros.planning.receding_horizon import PlanningSettings
from jepa_ros.robot.config import RobotConfig
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.surprise import SurpriseReading


@dataclass
class Judged:
    """A bag's figures, and what those of several bags together are made of. times (n,) s and everything by frame.
    plan_ms: of some plans that were made once more, with nothing beside them."""

    name: str
    recorded: Recorded
    quality: dict[str, Any]
    times: np.ndarray
    errors: prediction.Errors
    frames_of_errors: np.ndarray
    sample: health.Sample
    states: np.ndarray
    probes: dict[str, np.ndarray]
    truths: dict[str, np.ndarray]
    readings: dict[int, SurpriseReading]
    events: list[surprise.Event]
    plans: list[Agreement]
    plan_ms: list[float]
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Task:
    """What a model is judged with. horizon: model steps. plan_states: a bag."""

    checkpoint: Checkpoint
    robot: RobotConfig
    planning: PlanningSettings
    horizon: int
    plan_states: int
    seed: int
