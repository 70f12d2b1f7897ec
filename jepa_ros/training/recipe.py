"""Recipes: which model `jepa_ros train model` trains and how, as YAML files in config/recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from jepa_ros.errors import InputError, first_problem
from jepa_ros.resources import config_path
from jepa_ros.text_files import read_yaml
from jepa_ros.world_model.config import (
    CausalPredictorConfig,
    ConvEncoderConfig,
    PatchPredictorConfig,
    PolicyConfig,
    PreprocessingConfig,
    VitEncoderConfig,
)

PUBLISHED_WEIGHTS = {"sigreg": 0.1, "vicreg": 1.0, "ema": 0.0, "reconstruction": 1.0, "none": 0.0}
"""Weight of each method against collapse relative to the prediction loss: LeWM's 0.1; VICReg's 25 : 25 : 1 divided by
the 25 of its invariance term; a moving average of the weights adds no loss; a reconstruction counts as much as the
prediction."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FrozenSource(_Strict):
    """A frozen encoder in transformers' format: a directory, or a Hugging Face repository that may be downloaded."""

    type: Literal["transformers"] = "transformers"
    source: str


class LossWeights(_Strict):
    """Weights of the parts of the loss; the one-step prediction has weight 1.

    anti_collapse: of the regulariser; default: its method's own, PUBLISHED_WEIGHTS. directions: random projections of
    SIGReg (LeWM: 1024). rollout: of predictions fed back as input, over `Schedule.steps`. proprioception: of the next
    state.
    """

    anti_collapse: float = Field(0.1, ge=0)
    directions: int = Field(256, ge=1)
    rollout: float = Field(1.0, ge=0)
    proprioception: float = Field(0.1, ge=0)
    inverse_dynamics: float = Field(0.0, ge=0)
    straightening: float = Field(0.0, ge=0)


class Schedule(_Strict):
    """updates: of the world model; policy_updates: of its heads. batch: windows over all processes, each of `steps`
    model steps after the history. Learning rates peak after `warm_up` updates and fall to zero by a cosine. Validation
    every `every` updates. compile: compile the encoder with torch.compile, which takes a minute; worth it for
    transformers on a GPU, not for small models on a CPU.

    There is no gradient accumulation, because SIGReg is a statistic of the whole batch.
    """

    updates: int = Field(4000, ge=1)
    policy_updates: int = Field(6000, ge=0)
    batch: int = Field(48, ge=2)
    policy_batch: int = Field(512, ge=2)
    steps: int = Field(4, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    warm_up: int = Field(200, ge=0)
    every: int = Field(500, ge=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False


class Recipe(_Strict):
    """A recipe. latent_dim: for families whose latent is one vector; frozen encoders have their own.

    cameras: image topics of the bag, one for each view of the model, in order; empty: the bag's only image topic.
    bags.cameras.frame_topics gives the names of the same views in the graph.
    """

    family: Literal["lewm", "dino_wm"] = "lewm"
    encoder: ConvEncoderConfig | VitEncoderConfig | FrozenSource = Field(discriminator="type")
    predictor: CausalPredictorConfig | PatchPredictorConfig = Field(discriminator="type")
    projector_hidden: int = Field(2048, ge=1)
    latent_dim: int = Field(192, ge=2)
    policy: PolicyConfig | None = None
    preprocessing: PreprocessingConfig
    cameras: tuple[str, ...] = ()
    history: int = Field(3, ge=1, le=16)
    proprioception: bool = True
    anti_collapse: Literal["sigreg", "vicreg", "ema", "reconstruction", "none"] = "sigreg"
    loss: LossWeights = LossWeights()
    schedule: Schedule = Schedule()

    @model_validator(mode="after")
    def _published_weight(self) -> Recipe:
        if "anti_collapse" not in self.loss.model_fields_set:
            weight = {"anti_collapse": PUBLISHED_WEIGHTS[self.anti_collapse]}
            object.__setattr__(self, "loss", self.loss.model_copy(update=weight))
        return self


def list_recipes() -> list[str]:
    """Return the names of the recipes that ship with the package."""
    return sorted(path.stem for path in config_path("recipes").glob("*.yaml"))


def read_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe by name (config/recipes) or file. Raises InputError that names the invalid field."""
    path = Path(name_or_path)
    if path.suffix != ".yaml":
        path = config_path("recipes", f"{name_or_path}.yaml")
    if not path.is_file():
        raise InputError(f"recipe {name_or_path}: no such YAML file, and not one of {', '.join(list_recipes())}")
    try:
        return Recipe.model_validate(read_yaml(path, "recipe"))
    except ValidationError as error:
        raise InputError(f"recipe {path}: {first_problem(error)}") from None


def override_recipe(
    recipe: Recipe, updates: int | None = None, policy_updates: int | None = None, encoder: str | None = None
) -> Recipe:
    """Return the recipe with the options given on the command line. Raises InputError."""
    schedule = recipe.schedule
    if updates is not None:
        schedule = schedule.model_copy(update={"updates": updates, "warm_up": min(schedule.warm_up, updates)})
    if policy_updates is not None:
        schedule = schedule.model_copy(update={"policy_updates": policy_updates})
    recipe = recipe.model_copy(update={"schedule": schedule})
    if encoder is None:
        return recipe
    if recipe.encoder.type != "transformers":
        raise InputError(
            f"--encoder {encoder}: needs a recipe with a frozen encoder (type transformers); this one trains a "
            f"{recipe.encoder.type} encoder"
        )
    return recipe.model_copy(update={"encoder": recipe.encoder.model_copy(update={"source": encoder})})
