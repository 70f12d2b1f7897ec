"""Methods against collapse of the latents, one file each, behind one protocol.

Training calls make_anti_collapse() with the method's name and adds its loss. Start reading in protocol.py.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from jepa_ros.errors import InputError
from jepa_ros.world_model.anti_collapse.ema_teacher import EmaTeacher
from jepa_ros.world_model.anti_collapse.protocol import AntiCollapse
from jepa_ros.world_model.anti_collapse.reconstruction import Reconstruction
from jepa_ros.world_model.anti_collapse.sigreg import SigReg
from jepa_ros.world_model.anti_collapse.vicreg import VicReg
from jepa_ros.world_model.config import FrozenEncoderConfig, ModelConfig

METHODS: dict[str, type[AntiCollapse]] = {
    "sigreg": SigReg,
    "vicreg": VicReg,
    "ema": EmaTeacher,
    "reconstruction": Reconstruction,
    "none": AntiCollapse,
}

__all__ = ["METHODS", "AntiCollapse", "EmaTeacher", "Reconstruction", "SigReg", "VicReg", "make_anti_collapse"]


def make_anti_collapse(
    name: str, model: nn.Module, config: ModelConfig, *, updates: int | None = None, **settings: Any
) -> AntiCollapse:
    """Return the method called `name` for a model of `config`; `settings` are options of its class.

    updates: length of training, needed by ema only. Raises InputError for an unknown name or setting, a missing length,
    any method but none with a frozen encoder, which cannot collapse, and reconstruction with several cameras, since its
    decoder draws one image.
    """
    if name not in METHODS:
        raise InputError(f"anti-collapse: expected one of {', '.join(METHODS)}, found '{name}'")
    if isinstance(config.encoder, FrozenEncoderConfig) and name != "none":
        raise InputError(f"anti-collapse: expected none, as the encoder of {config.name} is frozen, found '{name}'")
    given: dict[str, Any] = {}
    if name == "ema":
        if not updates or updates < 1:
            raise InputError(f"anti-collapse ema: expected the number of updates of its schedule, found {updates}")
        given = {"model": model, "shape": config.frame_shape, "updates": updates}
    if name == "reconstruction":
        if len(config.cameras) > 1:
            raise InputError(f"anti-collapse reconstruction: expected one camera, found {', '.join(config.cameras)}")
        given = {"model": model, "latent": config.latent_shape[-1], **config.preprocessing.model_dump()}
    known = set() if name == "none" else set(inspect.signature(METHODS[name]).parameters) - set(given)
    if unknown := sorted(set(settings) - known):
        raise InputError(
            f"anti-collapse {name}: expected settings of {', '.join(sorted(known)) or 'no kind'}, "
            f"found {', '.join(unknown)}"
        )
    return METHODS[name](**given, **settings)
