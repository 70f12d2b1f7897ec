"""The public Python API: load a model, encode images, roll actions out, plan to a goal image, evaluate a recording.

Everything here is an attribute of `jepa_ros` as well. Shapes: L = latent_shape, (D,) or (tokens, D); A numbers of an
action; P numbers of proprioception; J joints; H model steps, of `block` control ticks each.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jepa_ros.errors import InputError

if TYPE_CHECKING:  # functions import what they need, so that jepa_ros.InputError loads neither torch nor numpy
    from pathlib import Path

    import numpy as np
    import torch

    from jepa_ros.evaluation.bag.evaluate import evaluate_bag
    from jepa_ros.planning.guardrails import Guardrails
    from jepa_ros.planning.receding_horizon import PlanStep
    from jepa_ros.robot.motion.motion_space import MotionSpace
    from jepa_ros.world_model.checkpoint import Checkpoint

__all__ = ["Checkpoint", "InputError", "Rollout", "encode", "evaluate_bag", "imagine", "load_model", "plan"]


def load_model(name_or_path: str | Path, device: str = "cpu") -> Checkpoint:
    """Load a model by name (shipped or installed, see `jepa_ros models list`) or from a checkpoint directory.

    device: cpu, cuda, cuda:N, or auto. Raises InputError if files are missing or damaged.

    >>> model = jepa_ros.load_model("openarm_reach")
    >>> model.config.latent_shape, model.config.cameras, model.config.robots
    ((16,), ('frame',), ('openarm',))
    """
    from jepa_ros.world_model.checkpoint import load_checkpoint
    from jepa_ros.world_model.device import choose_device

    return load_checkpoint(name_or_path, choose_device(device))


def encode(model: Checkpoint, *images: np.ndarray) -> torch.Tensor:
    """Return the latent (*L) of one moment: an image (H, W, 3) uint8 rgb of any size for each camera of the model.

    Raises InputError if the number of images is not that of `model.config.cameras`, or an image is not of that kind.

    >>> from jepa_ros.sim.scene import Scene  # the simulated cell; any image of the same view will do
    >>> image = Scene().render()
    >>> jepa_ros.encode(model, image).shape
    torch.Size([16])
    """
    import numpy as np
    import torch

    from jepa_ros.images import preprocess

    cameras = model.config.cameras
    if len(images) != len(cameras):
        raise InputError(f"images: expected one for each camera ({', '.join(cameras)}), found {len(images)}")
    size = model.config.preprocessing.size
    frames = [preprocess(np.asarray(image), size) for image in images]
    with torch.inference_mode():
        return model.model.encode(np.stack(frames).reshape(1, *model.config.frame_shape))[0].cpu()


@dataclass(frozen=True)
class Rollout:
    """latents (H, *L) and proprioception (H, P), in the units of the model's config, at the end of each model step."""

    latents: torch.Tensor
    states: np.ndarray


def imagine(model: Checkpoint, latent: torch.Tensor, actions: np.ndarray, state: np.ndarray | None = None) -> Rollout:
    """Roll actions out from a latent (*L) of an arm at rest.

    actions: (H * block, A), one for each control tick of `model.config.tick` s; of a model of velocities
    the tool's in x and y, of `tool_velocity` also in z and yaw, divided by full speed. state: proprioception (P,), not
    normalised; default: the mean of the training data. Raises InputError if a shape does not fit the model.

    >>> latent = jepa_ros.encode(model, image)
    >>> rollout = jepa_ros.imagine(model, latent, np.tile([0.5, 0.0], (20, 1)))
    >>> rollout.latents.shape, rollout.states.shape
    (torch.Size([5, 16]), (5, 15))
    """
    import numpy as np
    import torch

    from jepa_ros.world_model.checkpoint import resting_context
    from jepa_ros.world_model.protocol import Context

    config = model.config
    _require_shape("latent", latent.shape, config.latent_shape)
    actions = np.asarray(actions, dtype=np.float32)
    if (
        actions.ndim != 2
        or actions.shape[1] != config.action.dimension
        or len(actions) % config.block
        or not len(actions)
    ):
        raise InputError(
            f"actions: expected shape ({config.block} * H, {config.action.dimension}), found {actions.shape}"
        )
    context = resting_context(config, latent[None].cpu())
    mean, std = np.array(config.proprioception.mean), np.array(config.proprioception.std)
    if state is not None:
        _require_shape("state", np.shape(state), (config.proprioception.dimension,))
        normalised = torch.as_tensor((np.asarray(state) - mean) / std, dtype=torch.float32)
        context = Context(context.latents, normalised.expand_as(context.states), context.actions)
    with torch.inference_mode():
        blocks = torch.from_numpy(actions).reshape(1, -1, config.action_block)
        latents, states = model.model.rollout(context, blocks)
    return Rollout(latents[0], states[0].numpy() * std + mean)


def plan(
    model: Checkpoint,
    latent: torch.Tensor,
    goal: torch.Tensor,
    joints: np.ndarray,
    *,
    state: np.ndarray | None = None,
    robot: str | None = None,
    urdf: str | None = None,
    budget: float = math.inf,
    **settings: Any,
) -> PlanStep:
    """Plan from a latent (*L) of an arm at rest towards the latent (*L) of a goal image.

    joints: (J,) rad, in the order of the robot's config. state: proprioception (P,), not normalised; default: these
    joints at rest and grippers as in the mean of the training data. robot: name or file; default: the first that the
    model was trained for. urdf: the robot's description; default: the simulated OpenArm's. budget: s for the search;
    by default its rounds are counted instead, which gives the same plan on any machine. settings: of
    planning.receding_horizon.PlanningSettings.

    The result has the joint trajectory to execute (`trajectory`: times s, positions rad) and the prediction
    (`motion`). Raises InputError if model, robot and inputs do not fit together, or if no plan is allowed.

    >>> goal = jepa_ros.imagine(model, latent, np.tile([0.5, 0.0], (8, 1))).latents[-1]
    >>> found = jepa_ros.plan(model, latent, goal, joints=[0.0, 0.0, 0.0, 1.57, 0.0, 0.0, 0.0])
    >>> found.motion.predicted_distance < found.motion.distance
    True
    >>> found.trajectory.positions.shape[1]
    7
    """
    import numpy as np

    from jepa_ros.planning.receding_horizon import NoPlan, PlanningSettings, RecedingHorizonController
    from jepa_ros.resources import resolve_robot
    from jepa_ros.world_model.checkpoint import check_robot, choose_robot

    config = model.config
    arm = choose_robot(config, robot)
    check_robot(config, arm)
    for name, given in (("latent", latent), ("goal", goal)):
        _require_shape(name, given.shape, config.latent_shape)
    joints = np.asarray(joints, dtype=float)
    _require_shape("joints", joints.shape, (len(arm.joints),))
    if state is None:
        state = _state_at_rest(model, joints)
    _require_shape("state", np.shape(state), (config.proprioception.dimension,))
    space, guardrails = _motion_space(str(resolve_robot(robot or config.robots[0])), urdf, config.tick)
    control = RecedingHorizonController(model, space, PlanningSettings(budget=budget, **settings), guardrails)
    control.add_state(0.0, np.asarray(state, dtype=float), joints)
    control.add_latent(0.0, latent.cpu())
    control.set_goal(goal)
    step = control.plan_step(0.0)
    if isinstance(step, NoPlan):
        raise InputError(f"plan: {step.text}")
    return step


def _state_at_rest(model: Checkpoint, joints: np.ndarray) -> np.ndarray:
    import numpy as np

    config = model.config.proprioception
    if config.kind != "joints":
        raise InputError(f"state: required for a model with proprioception of kind {config.kind}")
    state = np.array(config.mean)
    if config.joints:
        state[: 2 * len(joints)] = np.append(joints, np.zeros(len(joints)))
    return state


@functools.lru_cache(maxsize=4)
def _motion_space(robot: str, urdf: str | None, tick: float) -> tuple[MotionSpace, Guardrails]:
    """Return what depends on robot and description alone; computing the guardrails' clearance takes a second."""
    from jepa_ros.planning.guardrails import Guardrails
    from jepa_ros.robot.config import load_robot
    from jepa_ros.robot.motion.action_space import make_space
    from jepa_ros.robot.motion.kinematics import Kinematics
    from jepa_ros.robot.motion.limits import JointLimits

    arm = load_robot(robot)
    if urdf is None:
        from jepa_ros.sim.scene import Scene

        scene = Scene()
        if not set(arm.joints) <= set(scene.joint_names):
            raise InputError(f"urdf: required for robot {arm.name}, which is not the simulated OpenArm")
        urdf = scene.urdf
    space = make_space(arm, Kinematics(urdf, arm.joints, arm.tool_frame, arm.base_frame), tick)
    if space.missing:
        raise InputError(f"robot {arm.name}: action_space: no {' and '.join(space.missing)}; planning needs them")
    return space, Guardrails.from_robot(arm, urdf, space, JointLimits.from_robot(arm, urdf))


def _require_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if tuple(found) != tuple(expected):
        raise InputError(f"{name}: expected shape {tuple(expected)}, found {tuple(found)}")


def __getattr__(name: str) -> Any:
    """Load evaluate_bag and Checkpoint when they are first used."""
    if name == "evaluate_bag":
        from jepa_ros.evaluation.bag.evaluate import evaluate_bag

        return evaluate_bag
    if name == "Checkpoint":
        from jepa_ros.world_model.checkpoint import Checkpoint

        return Checkpoint
    raise AttributeError(f"module 'jepa_ros.api' has no attribute '{name}'")
