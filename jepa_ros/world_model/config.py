"""config.json of a checkpoint: what the nodes must know of a model, in one place and never in a second copy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from jepa_ros.errors import InputError, first_problem

SCHEMA_VERSION = 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EncoderConfig(_Strict):
    """Sizes of the encoder."""

    type: Literal["conv"] = "conv"
    channels: tuple[int, ...] = (48, 96, 128)
    hidden: int = Field(256, ge=1)
    latent_dim: int = Field(64, ge=2)


class PredictorConfig(_Strict):
    """Sizes of the predictor."""

    type: Literal["mlp"] = "mlp"
    width: int = Field(256, ge=8)
    depth: int = Field(2, ge=1)


class PolicyConfig(_Strict):
    """The goal-conditioned inverse-dynamics policy beside the model (System 1)."""

    width: int = Field(256, ge=8)
    depth: int = Field(2, ge=1)
    max_ticks: int = Field(40, ge=1, description="longest time to the goal that it was trained with, in control ticks")


class ActionConfig(_Strict):
    """Action space that the model was trained in."""

    name: Literal["planar_velocity"]
    dimension: int = Field(ge=1)
    max_speed: float = Field(gt=0, description="m/s of an action of 1")


class ProprioceptionConfig(_Strict):
    """Joint positions (rad), then velocities (rad/s) of `joints`, then positions of `gripper`; mean and std of each."""

    joints: tuple[str, ...]
    gripper: tuple[str, ...] = ()
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @model_validator(mode="after")
    def _sizes(self) -> ProprioceptionConfig:
        if not len(self.mean) == len(self.std) == self.dimension:
            raise ValueError(f"mean and std: expected {self.dimension} values, found {len(self.mean)}, {len(self.std)}")
        if min(self.std) <= 0:
            raise ValueError(f"std: expected positive values, found {min(self.std)}")
        return self

    @property
    def dimension(self) -> int:
        """Number of fields P."""
        return 2 * len(self.joints) + len(self.gripper)


class PreprocessingConfig(_Strict):
    """images.preprocess: centre crop to a square, then area-averaged to `size` x `size`."""

    size: int = Field(64, ge=8, le=1024)


class DistanceConfig(_Strict):
    """Scales of the latent distance (squared L2 over D), from validation episodes: see training/calibration.py."""

    tolerance: float = Field(gt=0, description="at or under this a goal counts as reached")
    far: float = Field(gt=0, description="beyond this the distance is flat and says little of the way left")


class SurpriseConfig(_Strict):
    """Quantiles of the one-step prediction error (mean square over D) on validation episodes."""

    levels: tuple[float, ...]
    errors: tuple[float, ...]
    threshold: float = Field(gt=0)


class CameraReference(_Strict):
    """The training camera: intrinsics in pixels, optical frame's pose in the robot's base frame (m, xyzw)."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float]


class ModelConfig(_Strict):
    """The whole of config.json."""

    schema_version: Literal[1] = SCHEMA_VERSION
    family: Literal["lewm"] = "lewm"
    name: str
    encoder: EncoderConfig
    predictor: PredictorConfig
    policy: PolicyConfig
    preprocessing: PreprocessingConfig
    history: int = Field(2, ge=1, le=16)
    control_rate: float = Field(gt=0, description="control ticks a second")
    block: int = Field(ge=1, description="control ticks of a model step")
    action: ActionConfig
    proprioception: ProprioceptionConfig
    distance: DistanceConfig
    surprise: SurpriseConfig
    camera: CameraReference | None = None
    robots: tuple[str, ...] = Field(description="robots (config/robots) that it was trained for")

    @property
    def tick(self) -> float:
        """Control period in s."""
        return 1.0 / self.control_rate

    @property
    def step(self) -> float:
        """A model step in s: block / control_rate."""
        return self.block / self.control_rate


def read_config(directory: Path) -> ModelConfig:
    """config.json of a checkpoint directory.

    Raises InputError that names the file, the field, what was expected and found.
    """
    path = directory / "config.json"
    if not path.is_file():
        held = ", ".join(sorted(p.name for p in directory.iterdir())[:6]) if directory.is_dir() else "no such directory"
        raise InputError(
            f"model {directory}: expected a checkpoint with config.json, found {held or 'an empty directory'}"
        )
    try:
        return ModelConfig.model_validate(json.loads(path.read_text()))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"model {path}: expected JSON, found {error}") from None
    except ValidationError as error:
        raise InputError(f"model {path}: {first_problem(error)}") from None
