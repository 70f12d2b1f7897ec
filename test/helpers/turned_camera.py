"""A robot whose file says how its camera is turned, and a model that acts in the axes which such a camera gives it."""

from dataclasses import replace

import numpy as np
import torch

from helpers import sim_arm
from jepa_ros.robot.config import RobotConfig
from jepa_ros.sim.cell import make_action_space
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.protocol import Context


def about_z(degrees):
    """Quaternion xyzw."""
    return (0.0, 0.0, float(np.sin(np.deg2rad(degrees) / 2)), float(np.cos(np.deg2rad(degrees) / 2)))


def in_plane(degrees):
    """(2, 2)."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s], [s, c]])


def robot(rotation, base=None):
    """The simulated arm, or `base`, with camera.rotation_to_base; through validation, as from a file."""
    values = (base or sim_arm.robot()).model_dump()
    return RobotConfig.model_validate(values | {"camera": values["camera"] | {"rotation_to_base": rotation}})


def space(degrees):
    return make_action_space(robot(about_z(degrees)), sim_arm.scene().urdf)


class _Model(torch.nn.Module):
    """The world of another model, its actions turned by (2, 2) before that one sees them."""

    def __init__(self, inner, turn):
        super().__init__()
        self.inner, self._turn = inner, torch.as_tensor(turn).float()
        self.latent_shape, self.history = inner.latent_shape, inner.history

    def _turned(self, actions):
        return (actions.unflatten(-1, (-1, 2)) @ self._turn.T).flatten(-2)

    def encode(self, frames):
        return self.inner.encode(frames)

    def rollout(self, context, actions):
        context = Context(context.latents, context.states, self._turned(context.actions))
        return self.inner.rollout(context, self._turned(actions))

    def predict(self, latents, states, actions):
        return self.inner.predict(latents, states, self._turned(actions))


class _Policy(torch.nn.Module):
    """The same of a policy, whose answers are turned back."""

    def __init__(self, inner, turn):
        super().__init__()
        self.inner, self._turn = inner, torch.as_tensor(turn).float()

    def forward(self, *asked):
        return (self.inner(*asked).unflatten(-1, (-1, 2)) @ self._turn).flatten(-2)


def seen_turned(checkpoint: Checkpoint, degrees) -> Checkpoint:
    """The checkpoint as it would be behind a camera turned by so many degrees: what it does in its own axes happens
    turned by as many in the base frame."""
    turn = in_plane(degrees)
    policy = checkpoint.policy and _Policy(checkpoint.policy, turn)
    return replace(checkpoint, model=_Model(checkpoint.model, turn), policy=policy)
