"""config.json of a checkpoint: its schema, the model families, and the identity of a checkpoint's files. No torch."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from jepa_ros.errors import InputError, first_problem
from jepa_ros.text_files import read_json

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
REFERENCES = ("reference.png", "reference.jpg")
"""Images of the training camera; one may lie beside config.json, for people. It is no part of the model's identity."""
WIDEST, DEEPEST = 65_536, 256
"""Far above the sizes of any model: a file beyond them is garbage, and building what it describes would fill memory."""
TOOL_POSE = 7  # numbers of a tool's pose and gripper


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


_Sizes = TypeVar("_Sizes", bound=_Strict)


def require_sizes(sizes: _Strict, kind: type[_Sizes]) -> _Sizes:
    """Return the sizes of an encoder or predictor, which must be of a class. Raises InputError."""
    if not isinstance(sizes, kind):
        raise InputError(f"config.json: expected sizes of {kind.__name__}, found {type(sizes).__name__}")
    return sizes


class ConvEncoderConfig(_Strict):
    """A small convolutional encoder."""

    type: Literal["conv"] = "conv"
    channels: tuple[Annotated[int, Field(ge=1, le=WIDEST)], ...] = Field((48, 96, 128), min_length=1, max_length=10)


class VitEncoderConfig(_Strict):
    """A vision transformer from scratch; the defaults are ViT-Tiny, LeWM's."""

    type: Literal["vit"] = "vit"
    patch: int = Field(14, ge=1, le=WIDEST)
    width: int = Field(192, ge=1, le=WIDEST)
    depth: int = Field(12, ge=1, le=DEEPEST)
    heads: int = Field(3, ge=1, le=WIDEST)
    mlp: int = Field(768, ge=1, le=WIDEST)


class FrozenEncoderConfig(_Strict):
    """A frozen encoder in transformers' format; its latents are patch tokens.

    directory: relative to the checkpoint, or absolute. sha256: of its weights, so that latents of two encoders never
    mix.
    """

    type: Literal["transformers"] = "transformers"
    directory: str = "encoder"
    sha256: str


class CausalPredictorConfig(_Strict):
    """LeWM's predictor and action encoder: AdaLN-zero on the action embedding, learned positions, causal attention.

    residual: predict the change of the latent instead of the latent.
    """

    type: Literal["causal"] = "causal"
    width: int = Field(192, ge=1, le=WIDEST)
    depth: int = Field(6, ge=1, le=DEEPEST)
    heads: int = Field(16, ge=1, le=WIDEST)
    head_dim: int = Field(64, ge=1, le=WIDEST)
    mlp: int = Field(2048, ge=1, le=WIDEST)
    dropout: float = Field(0.1, ge=0, lt=1)
    embedding_dropout: float = Field(0.0, ge=0, lt=1)
    action_smoothed: int = Field(10, ge=1, le=WIDEST)
    action_scale: int = Field(4, ge=1, le=WIDEST)
    residual: bool = False


class PatchPredictorConfig(_Strict):
    """DINO-WM's and JEPA-WMs' predictor of patch tokens.

    conditioning: concat (DINO-WM: action and proprioception embeddings beside every token) or adaln (JEPA-WMs).
    positions: learned or rope. action_width, state_width: of concat's embeddings; adaln's are as wide as the tokens.
    """

    type: Literal["patch"] = "patch"
    conditioning: Literal["concat", "adaln"] = "adaln"
    positions: Literal["learned", "rope"] = "rope"
    depth: int = Field(6, ge=1, le=DEEPEST)
    heads: int = Field(16, ge=1, le=WIDEST)
    head_dim: int = Field(64, ge=1, le=WIDEST)
    mlp: int = Field(2048, ge=1, le=WIDEST)
    dropout: float = Field(0.1, ge=0, lt=1)
    embedding_dropout: float = Field(0.0, ge=0, lt=1)
    action_width: int = Field(10, ge=1, le=WIDEST)
    state_width: int = Field(10, ge=0, le=WIDEST)


class BlockCausalPredictorConfig(_Strict):
    """V-JEPA 2-AC's predictor; the defaults are the published sizes."""

    type: Literal["block_causal"] = "block_causal"
    width: int = Field(1024, ge=1, le=WIDEST)
    depth: int = Field(24, ge=1, le=DEEPEST)
    heads: int = Field(16, ge=1, le=WIDEST)
    mlp_ratio: float = Field(4.0, gt=0, le=64.0)


class PolicyConfig(_Strict):
    """The goal-conditioned inverse-dynamics policy beside the model (System 1)."""

    width: int = Field(256, ge=8, le=WIDEST)
    depth: int = Field(2, ge=1, le=DEEPEST)
    max_ticks: int = Field(40, ge=1, description="longest time to the goal that it was trained with, in control ticks")


class ReachabilityConfig(_Strict):
    """The learned distance in control ticks beside the model (world_model/heads.py)."""

    width: int = Field(256, ge=8, le=WIDEST)
    embedding: int = Field(32, ge=1, le=WIDEST, description="numbers that a latent is embedded in")
    max_ticks: int = Field(60, ge=1, description="longest way that it was trained with, in control ticks")


class ProbeConfig(_Strict):
    """A linear read-out of a named position, or of the arm's joints, from the latent (world_model/heads.py)."""

    name: str
    dimension: int = Field(ge=1, le=WIDEST)
    error_m: float = Field(ge=0, description="root mean square error on test episodes: of a distance, m; a joint, rad")


class ActionConfig(_Strict):
    """Action space that the model was trained in."""

    name: Literal["planar_velocity", "tool_velocity", "pose_delta", "foreign"]
    dimension: int = Field(ge=1, le=WIDEST)
    max_speed: float = Field(1.0, gt=0, description="m/s of an action of 1 (planar_velocity, tool_velocity)")
    max_yaw_speed: float | None = Field(
        default=None, gt=0, description="rad/s of a yaw velocity of 1 (tool_velocity with yaw)"
    )


class ProprioceptionConfig(_Strict):
    """The fields of proprioception, with mean and std of each.

    kind joints: positions (rad), then velocities (rad/s) of `joints`, then positions of `gripper`. kind tool_pose: pose
    of the tool and opening of the gripper (robot/motion/action_space.py): seven fields, named by `gripper`, no joints.
    """

    kind: Literal["joints", "tool_pose"] = "joints"
    joints: tuple[str, ...] = ()
    gripper: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _sizes(self) -> ProprioceptionConfig:
        if not len(self.mean) == len(self.std) == self.dimension:
            raise ValueError(f"mean and std: expected {self.dimension} values, found {len(self.mean)}, {len(self.std)}")
        if min(self.std, default=1.0) <= 0:
            raise ValueError(f"std: expected positive values, found {min(self.std)}")
        if self.kind == "tool_pose" and (self.joints or len(self.gripper) != TOOL_POSE):
            found = f"{len(self.joints)} and {len(self.gripper)}"
            raise ValueError(f"kind tool_pose: expected no joints and {TOOL_POSE} fields, found {found}")
        return self

    @property
    def dimension(self) -> int:
        """The number P of fields."""
        return 2 * len(self.joints) + len(self.gripper)

    @property
    def angles(self) -> tuple[int, ...]:
        """The columns of angles, which jump between -π and π rad."""
        return (3, 4, 5) if self.kind == "tool_pose" else ()


class PreprocessingConfig(_Strict):
    """Preprocessing of images: centre crop to a square, area-averaged to `size` x `size` (images.preprocess), then
    normalised by mean and std of the three colours, on values of 0 to 1."""

    size: int = Field(64, ge=8, le=1024)
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


class DistanceConfig(_Strict):
    """Scales of the latent distance (squared L2 over D), from validation episodes: see training/train_model.py."""

    tolerance: float = Field(gt=0, description="distance at or below which a goal is reached")
    far: float = Field(gt=0, description="distance beyond which it saturates and does not tell how far the goal is")


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


class Family(NamedTuple):
    """encoders, predictor: the types in config.json that go together. factory: "module:callable" in world_model, called
    as factory(config=..., encoder=...) with the frozen encoder (None if the model trains its own); it returns a
    PredictiveModel with fresh weights and raises InputError if sizes do not fit."""

    encoders: tuple[str, ...]
    predictor: str
    factory: str


FAMILIES = {
    "lewm": Family(("conv", "vit"), "causal", "lewm.model:LeWM"),
    "dino_wm": Family(("transformers",), "patch", "dino_wm.model:PatchWorldModel"),
    "vjepa2_ac": Family(("transformers",), "block_causal", "vjepa2_ac.model:VJepa2Ac"),
}
"""Model families by name. To add one, write world_model/NAME/model.py and enter it here, with a class above for the
sizes of its predictor if none of them fits."""
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_TOPIC = re.compile(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)


class ModelConfig(_Strict):
    """The whole of config.json.

    cameras: relative topics of the camera frames, in the order of the views that `encode` takes. The world_model node
    subscribes to each; a camera node publishes it.
    """

    schema_version: Literal[2] = 2
    family: str = "lewm"
    name: str
    encoder: ConvEncoderConfig | VitEncoderConfig | FrozenEncoderConfig = Field(discriminator="type")
    predictor: CausalPredictorConfig | PatchPredictorConfig | BlockCausalPredictorConfig = Field(discriminator="type")
    projector_hidden: int = Field(2048, ge=1, le=WIDEST, description="width of the projectors with BatchNorm (lewm)")
    latent_shape: tuple[Annotated[int, Field(ge=1, le=WIDEST)], ...] = Field(
        min_length=1, max_length=2, description="(D,) or (tokens, D)"
    )
    policy: PolicyConfig | None = None
    reachability: ReachabilityConfig | None = None
    probes: tuple[ProbeConfig, ...] = ()
    preprocessing: PreprocessingConfig
    cameras: tuple[str, ...] = ("frame",)
    history: int = Field(2, ge=1, le=16)
    control_rate: float = Field(gt=0, le=10_000, description="control ticks a second")
    block: int = Field(ge=1, le=1000, description="control ticks of a model step")
    action: ActionConfig
    proprioception: ProprioceptionConfig = ProprioceptionConfig()
    distance: DistanceConfig
    surprise: SurpriseConfig
    camera: CameraReference | None = None
    robots: tuple[str, ...] = Field((), description="robots (config/robots) that it was trained for")

    @field_validator("family")
    @classmethod
    def _known_family(cls, family: str) -> str:
        if family not in FAMILIES:
            raise ValueError(f"expected one of {', '.join(FAMILIES)}, found {family[:80]}")
        return family

    @model_validator(mode="after")
    def _parts_of_family(self) -> ModelConfig:
        encoders, predictor, _ = FAMILIES[self.family]
        if self.encoder.type not in encoders or self.predictor.type != predictor:
            raise ValueError(
                f"family {self.family}: expected an encoder {' or '.join(encoders)} and a predictor {predictor}, "
                f"found {self.encoder.type} and {self.predictor.type}"
            )
        return self

    @field_validator("cameras")
    @classmethod
    def _topics(cls, cameras: tuple[str, ...]) -> tuple[str, ...]:
        bad = [camera for camera in cameras if not _TOPIC.fullmatch(camera)]
        if bad or not cameras or len(set(cameras)) < len(cameras):
            raise ValueError("expected different relative topics, at least one")
        return cameras

    @field_validator("probes")
    @classmethod
    def _names(cls, probes: tuple[ProbeConfig, ...]) -> tuple[ProbeConfig, ...]:
        names = {probe.name for probe in probes if _NAME.fullmatch(probe.name)}
        if len(names) < len(probes):
            raise ValueError("expected different names of letters, digits and underscores")
        return probes

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """The shape of one moment's frames: (size, size, 3), with several cameras (cameras, size, size, 3)."""
        view = (self.preprocessing.size, self.preprocessing.size, 3)
        return view if len(self.cameras) == 1 else (len(self.cameras), *view)

    @property
    def action_block(self) -> int:
        """The numbers K of an action block."""
        return self.block * self.action.dimension

    @property
    def tick(self) -> float:
        """The control period in s."""
        return 1.0 / self.control_rate

    @property
    def step(self) -> float:
        """The model step in s: block / control_rate."""
        return self.block / self.control_rate


def read_config(directory: Path) -> ModelConfig:
    """Read config.json of a checkpoint directory. Raises InputError that names the file, the field and its value."""
    path = directory / CONFIG
    if not path.is_file():
        held = ", ".join(sorted(p.name for p in directory.iterdir())[:6]) if directory.is_dir() else "no such directory"
        raise InputError(
            f"model {directory}: expected a checkpoint with config.json, found {held or 'an empty directory'}"
        )
    values = read_json(path, "model")
    if isinstance(values, dict) and "model_type" in values:
        kind = str(values["model_type"])[:80]
        raise InputError(f"model {path}: expected a checkpoint of jepa_ros, found a transformers model of type {kind}")
    try:
        return ModelConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(f"model {path}: {first_problem(error)}") from None


def identify(directory: Path) -> str:
    """Return the model id: 16 hex digits of configuration and weights. Latents of two models must never mix."""
    return sha256(directory / CONFIG, directory / WEIGHTS)[:16]


def sha256(*paths: Path) -> str:
    """Return the SHA-256 (hex) of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
