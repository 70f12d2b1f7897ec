"""Import of the official V-JEPA 2-AC checkpoint (vjepa2-ac-vitg.pt)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from jepa_ros.errors import InputError
from jepa_ros.world_model import checkpoint
from jepa_ros.world_model.config import BlockCausalPredictorConfig, ModelConfig, require_sizes
from jepa_ros.world_model.frozen_encoder import (
    IMAGE_MEAN,
    IMAGE_STD,
    FrozenEncoder,
    import_transformers,
    load_frozen_encoder,
    read_kind,
    resolve_encoder,
    weights_digest,
)
from jepa_ros.world_model.importers.common import (
    count_layers,
    make_config,
    read_torch,
    shape,
    staged_checkpoint,
    strip_prefix,
)
from jepa_ros.world_model.vjepa2_ac.model import STATE_FIELDS, STATES, VJepa2Ac

# Published, but not visible in the tensors.
SIZE = 256  # pixels of an image's side
RATE = 4.0  # Hz of actions
HISTORY = 2  # frames that the official planning looks back: one observed, one predicted
HEAD_DIM = 64  # of the predictor, and of all encoders but ViT-H
HEADS = {1280: 16}

# Names of the official encoder → names of transformers' VJEPA2Model; qkv is split into three.
_ENCODER_NAMES = [
    (r"patch_embed\.proj\.(weight|bias)", r"encoder.embeddings.patch_embeddings.proj.\1"),
    (r"blocks\.(\d+)\.(norm[12]|mlp\.fc[12])\.(weight|bias)", r"encoder.layer.\1.\2.\3"),
    (r"blocks\.(\d+)\.attn\.(proj|qkv)\.(weight|bias)", r"encoder.layer.\1.attention.\2.\3"),
    (r"norm\.(weight|bias)", r"encoder.layernorm.\1"),
]


def import_vjepa2_ac(
    path: Path,
    out: Path,
    encoder: str | Path | None = None,
    size: int = SIZE,
    name: str | None = None,
    allow_download: bool = False,
) -> Path:
    """Write the checkpoint directory `out` from an official .pt file of V-JEPA 2-AC.

    encoder: directory of its V-JEPA 2 encoder in transformers' format, or a Hugging Face repository's name where
    allow_download; by default the encoder in the file is converted and written to out/encoder. size: pixels of an
    image's side, which is not in the file. Raises InputError, and then leaves nothing behind.
    """
    path, out = Path(path), Path(out)
    given = None if encoder is None else resolve_encoder(encoder, allow_download).resolve()
    if given is not None and (kind := read_kind(given)) != "vjepa2":
        raise InputError(f"encoder {given}: expected a V-JEPA 2 encoder (model_type vjepa2), found {kind}")
    parts = read_parts(path, ("predictor",) if given else ("predictor", "encoder"))
    with staged_checkpoint(out) as staged:
        place = given or staged / "encoder"
        if given is None:
            write_encoder(path, parts["encoder"], place, size)
        frozen = load_frozen_encoder(place, size)
        settings = {"type": "transformers", "directory": str(given or "encoder"), "sha256": weights_digest(place)}
        config = _config(path, parts["predictor"], frozen, settings, name or out.name)
        model = VJepa2Ac(frozen, config)
        checkpoint.check_tensors(str(path), model.predictor.state_dict(), parts["predictor"])
        model.predictor.load_state_dict(parts["predictor"])
        checkpoint.save_checkpoint(staged, config, model, None)
        (staged / "README.md").write_text(_card(path, config, model))
    return out


def read_parts(path: Path, parts: tuple[str, ...]) -> dict[str, dict[str, torch.Tensor]]:
    """Return the tensors by name of the official file's parts, without wrappers' prefixes.

    Raises InputError where the file is missing, truncated or foreign, or holds other objects than tensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected the official .pt file of V-JEPA 2-AC, found no such file")
    held = read_torch(path)
    anchors = {"predictor": "predictor_embed.weight", "encoder": "patch_embed.proj.weight"}
    read = {}
    for part in parts:
        tensors = held.get(part) if isinstance(held, Mapping) else None
        if not isinstance(tensors, Mapping) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
            found = ", ".join(map(str, list(held)[:6])) if isinstance(held, Mapping) else type(held).__name__
            raise InputError(f"{path}: expected tensors by name under {part!r}, found {found or 'nothing'}"[:300])
        names = {str(key).replace("backbone.", ""): value for key, value in tensors.items()}
        read[part] = strip_prefix(path, names, anchors[part])
    return read


def write_encoder(path: Path, tensors: Mapping[str, torch.Tensor], directory: Path, size: int) -> None:
    """Write the official encoder as a VJEPA2Model of transformers. Raises InputError."""
    renamed = rename_encoder(path, tensors)
    settings = encoder_settings(path, renamed, size)
    transformers = import_transformers()
    with torch.device("meta"):
        model = transformers.VJEPA2Model(transformers.VJEPA2Config(**settings))
    expected = {f"encoder.{key}": value for key, value in model.encoder.state_dict().items()}
    checkpoint.check_tensors(str(path), expected, renamed)
    directory.mkdir(parents=True)
    save_file(renamed, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(settings, indent=2) + "\n")


def rename_encoder(path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the official encoder's tensors under the names of transformers' VJEPA2Model. Raises InputError."""
    renamed = {}
    for key, value in tensors.items():
        if key == "pos_embed":  # in some files, but unused: positions are rotary
            continue
        name = next((m.expand(new) for old, new in _ENCODER_NAMES if (m := re.fullmatch(old, key))), None)
        if name is None:
            raise InputError(f"{path}: encoder: expected the tensors of a V-JEPA 2 encoder, found one named {key[:80]}")
        if ".qkv." not in name:
            renamed[name] = value.contiguous()
            continue
        if value.shape[0] % 3:
            raise InputError(f"{path}: encoder: {key}: expected three parts of one size, found {tuple(value.shape)}")
        for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
            renamed[name.replace(".qkv.", f".{part}.")] = third.clone()
    return renamed


def encoder_settings(path: Path, renamed: dict[str, torch.Tensor], size: int) -> dict:
    """Return the config.json of a VJEPA2Model with these tensors. Raises InputError."""
    embedding = "encoder.embeddings.patch_embeddings.proj.weight"
    width, channels, tubelet, patch, _ = shape(path, renamed, embedding, 5)
    hidden = shape(path, renamed, "encoder.layer.0.mlp.fc1.weight", 2)[0]
    if size < patch or size % patch:
        raise InputError(f"{path}: encoder: expected an image size of a multiple of {patch} px, found {size} px")
    return {
        "architectures": ["VJEPA2Model"],
        "model_type": "vjepa2",
        "crop_size": size,
        "patch_size": patch,
        "tubelet_size": tubelet,
        "in_chans": channels,
        "hidden_size": width,
        "num_hidden_layers": count_layers(renamed, "encoder.layer."),
        "num_attention_heads": _heads(path, "encoder", width),
        "mlp_ratio": _ratio(hidden, width),
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "pred_num_hidden_layers": 0,  # the predictor of its pre-training is not in the file
    }


def _config(
    path: Path, predictor: dict[str, torch.Tensor], encoder: FrozenEncoder, settings: dict, name: str
) -> ModelConfig:
    width, latent = shape(path, predictor, "predictor_embed.weight", 2)
    numbers = shape(path, predictor, "action_encoder.weight", 2)[1]
    if numbers != STATES:
        raise InputError(f"{path}: action_encoder.weight: expected actions of {STATES} numbers, found {numbers}")
    if encoder.width != latent:
        raise InputError(f"{path}: expected an encoder of width {latent} for its predictor, found {encoder.width}")
    values = {
        "family": "vjepa2_ac",
        "name": name,
        "encoder": settings,
        "predictor": {
            "type": "block_causal",
            "width": width,
            "depth": count_layers(predictor, "predictor_blocks."),
            "heads": _heads(path, "predictor", width),
            "mlp_ratio": shape(path, predictor, "predictor_blocks.0.mlp.fc1.weight", 2)[0] / width,
        },
        "latent_shape": [encoder.tokens, encoder.width],
        "preprocessing": {"size": encoder.size, "mean": IMAGE_MEAN, "std": IMAGE_STD},
        "history": HISTORY,
        "control_rate": RATE,
        "block": 1,
        "action": {"name": "pose_delta", "dimension": STATES},
        "proprioception": {
            "kind": "tool_pose",
            "gripper": STATE_FIELDS,
            "mean": [0.0] * STATES,
            "std": [1.0] * STATES,
        },
    }
    return make_config(path, values)


def _heads(path: Path, part: str, width: int) -> int:
    if width not in HEADS and (width < HEAD_DIM or width % HEAD_DIM):
        raise InputError(f"{path}: {part}: expected a width that is a multiple of {HEAD_DIM}, found {width}")
    return HEADS.get(width, width // HEAD_DIM)


def _ratio(hidden: int, width: int) -> float:
    """Return hidden / width, so that transformers' rounding, int(width * ratio), gives hidden."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _card(source: Path, config: ModelConfig, model: VJepa2Ac) -> str:
    sizes = require_sizes(config.predictor, BlockCausalPredictorConfig)
    count = sum(p.numel() for p in model.predictor.parameters())
    return f"""# {config.name}

V-JEPA 2-AC (arXiv 2506.09985), imported from `{source.name}`.

| | |
|---|---|
| encoder | V-JEPA 2, frozen, width {config.latent_shape[1]}, {config.latent_shape[0]} patches of an image |
| images | {config.preprocessing.size} x {config.preprocessing.size} pixels, mean and deviation of ImageNet |
| predictor | {count:,} parameters, {sizes.depth} layers, {sizes.heads} heads, width {sizes.width} |
| state | gripper in the base frame: x, y, z (m), extrinsic x-y-z Euler angles (rad), opening 0 to 1 |
| action | change of the state, {config.control_rate:g} a second |

Not in the file, and so not known: distances and surprise. Nothing was calibrated; no goal counts as reached and nothing
as a surprise until `distance` and `surprise` in config.json are measured. The camera must stand as in the training data
(DROID, left of the robot), or its pose must be calibrated: predicted motion turns with it.
"""
