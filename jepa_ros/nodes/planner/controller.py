"""Making the planner node's controller from its parameters. Imports torch, so it is imported when a node configures."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from jepa_ros.errors import InputError
from jepa_ros.planning.guardrails import Guardrails
from jepa_ros.planning.receding_horizon import PlanningSettings, RecedingHorizonController
from jepa_ros.resources import resolve_model
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.motion.action_space import make_space
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.motion_space import MotionSpace
from jepa_ros.world_model.checkpoint import Checkpoint, load_checkpoint
from jepa_ros.world_model.config import read_config
from jepa_ros.world_model.device import choose_device
from jepa_ros.world_model.fit import check_robot, require_search_limits

SETTINGS = ("lead", "budget", "horizon", "seed", "solver", "policy", "metric", "smoothness", "uncertainty")


def make_controller(p: SimpleNamespace, robot: RobotConfig, urdf: str) -> tuple[Checkpoint, RecedingHorizonController]:
    """Return the checkpoint and a controller that has made its first plans. p: the node's parameters.

    Raises InputError where model, robot, description (urdf) and parameters do not fit together.
    """
    torch.set_num_threads(p.threads)
    config = read_config(resolve_model(p.model))
    check_robot(config, robot)
    require_search_limits(robot)
    space = _make_space(robot, urdf, config.tick)
    rails = Guardrails.from_robot(robot, urdf, space, JointLimits.from_robot(robot, urdf))
    checkpoint = load_checkpoint(p.model, choose_device(p.device))  # last: it may be gigabytes
    if hasattr(checkpoint.model, "set_rollout_dtype"):
        checkpoint.model.set_rollout_dtype(getattr(torch, p.precision))
    elif p.precision != "float32":
        raise InputError(f"precision: expected float32 for family {config.family}, found {p.precision}")
    control = RecedingHorizonController(
        checkpoint, space, PlanningSettings(**{n: getattr(p, n) for n in SETTINGS}), rails
    )
    _warm_up(control)
    return checkpoint, control


def _make_space(robot: RobotConfig, urdf: str, tick: float) -> MotionSpace:
    kinematics = Kinematics(urdf, robot.joints, robot.tool_frame, robot.base_frame)
    space = make_space(robot, kinematics, tick)
    return space


def _warm_up(control: RecedingHorizonController) -> None:
    """Make some plans in an invented situation, the arm at home: the first one allocates memory and is slow."""
    config, home = control.config, control.space.posture
    latent = torch.zeros(config.latent_shape)
    for k in range(config.history + 1):
        control.add_latent(1.0 + k * config.step, latent)
    rest, newest = np.array(config.proprioception.mean), control.observations.latents.newest
    if config.proprioception.joints:
        rest[: len(home)] = home
    control.add_state(newest, rest, home)
    control.set_goal(torch.ones(config.latent_shape))
    for _ in range(3):
        control.plan_step(newest + 0.05)
    control.clear_goal()
    control.observations.clear()
    control.start_episode()
    control.plan_id = 0
