"""Import of LeWM checkpoints of stable-worldmodel."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from jepa_ros.errors import InputError
from jepa_ros.text_files import read_json
from jepa_ros.world_model import checkpoint
from jepa_ros.world_model.config import CausalPredictorConfig, ModelConfig, VitEncoderConfig, require_sizes
from jepa_ros.world_model.importers.common import (
    count_layers,
    find_state_dict,
    make_config,
    read_state_dict,
    shape,
    staged_checkpoint,
    strip_prefix,
)
from jepa_ros.world_model.lewm.model import IMAGENET_MEAN, IMAGENET_STD, LeWM

ANCHOR = "predictor.pos_embedding"
HEAD_DIM = 64
# Heads of transformers' ViT by width; other widths have HEAD_DIM channels a head.
VIT_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
# Prefixes of tensors that encode, predict and rollout do not use.
UNUSED = ("encoder.pooler.", "encoder.embeddings.mask_token")

# Names in stable-worldmodel → names here. ViT layers are named as in transformers 4 or 5.
_VIT = r"encoder\.(?:encoder\.)?layers?\.(\d+)\."
_LAYER = r"predictor\.transformer\.layers\.(\d+)\."
_NAMES = [
    (r"encoder\.embeddings\.cls_token", r"encoder.class_token"),
    (r"encoder\.embeddings\.position_embeddings", r"encoder.positions"),
    (r"encoder\.embeddings\.patch_embeddings\.projection", r"encoder.patches"),
    (r"encoder\.layernorm", r"encoder.norm"),
    (_VIT + r"attention\.(?:(?:attention\.)?query|q_proj)", r"encoder.blocks.\1.query"),
    (_VIT + r"attention\.(?:(?:attention\.)?key|k_proj)", r"encoder.blocks.\1.key"),
    (_VIT + r"attention\.(?:(?:attention\.)?value|v_proj)", r"encoder.blocks.\1.value"),
    (_VIT + r"attention\.(?:output\.dense|o_proj)", r"encoder.blocks.\1.attention_output"),
    (_VIT + r"layernorm_before", r"encoder.blocks.\1.attention_norm"),
    (_VIT + r"layernorm_after", r"encoder.blocks.\1.mlp_norm"),
    (_VIT + r"(?:intermediate\.dense|mlp\.fc1)", r"encoder.blocks.\1.mlp.0"),
    (_VIT + r"(?:output\.dense|mlp\.fc2)", r"encoder.blocks.\1.mlp.2"),
    (r"(projector)\.net\.(\d+)", r"\1.layers.\2"),
    (r"pred_proj\.net\.(\d+)", r"prediction_projector.layers.\1"),
    (r"action_encoder\.patch_embed", r"action_encoder.smoothing"),
    (r"action_encoder\.embed\.(\d+)", r"action_encoder.layers.\1"),
    (r"predictor\.pos_embedding", r"predictor.positions"),
    (r"predictor\.transformer\.input_proj", r"predictor.input_projection"),
    (r"predictor\.transformer\.cond_proj", r"predictor.condition_projection"),
    (r"predictor\.transformer\.norm", r"predictor.norm"),
    (_LAYER + r"attn\.norm", r"predictor.blocks.\1.attention.norm"),
    (_LAYER + r"attn\.to_qkv", r"predictor.blocks.\1.attention.qkv"),
    (_LAYER + r"attn\.to_out\.0", r"predictor.blocks.\1.attention.output.0"),
    (_LAYER + r"mlp\.net\.(\d+)", r"predictor.blocks.\1.mlp.\2"),
    (_LAYER + r"adaLN_modulation\.1", r"predictor.blocks.\1.modulation"),
]


def import_lewm(path: Path, out: Path, block: int = 5, control_rate: float = 10.0, name: str | None = None) -> Path:
    """Write the checkpoint directory `out`, with a model card, from a state dict of stable-worldmodel's LeWM.

    path: file, or directory with one. Sizes are those of the tensors; heads and dropout are read from a config.json
    beside it, or are the published ones. block: control ticks of a model step, at control_rate (Hz); neither is in the
    file. Raises InputError, and then leaves nothing behind.
    """
    source, out = find_state_dict(Path(path)), Path(out)
    with staged_checkpoint(out) as staged:
        tensors = rename_tensors(source, strip_prefix(source, read_state_dict(source), ANCHOR))
        settings = _read_settings(source)
        config = _config(source, tensors, settings, block, control_rate, name or out.name)
        with torch.device("meta"):
            checkpoint.check_tensors(str(source), LeWM(config).state_dict(), tensors)
        model = LeWM(config)
        model.load_state_dict(tensors)
        checkpoint.save_checkpoint(staged, config, model, None)
        (staged / "README.md").write_text(_card(source, config, model, bool(settings)))
    return out


def rename_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of stable-worldmodel's LeWM, with a ViTModel of transformers, as those of `LeWM`.

    Raises InputError where a name has no counterpart.
    """
    renamed = {_rename(path, key): value for key, value in tensors.items() if not key.startswith(UNUSED)}
    for key in [k for k in renamed if ".query." in k]:
        parts = [key.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        shapes = [tuple(renamed[part].shape) if part in renamed else None for part in parts]
        if len(set(shapes)) != 1 or not shapes[0]:
            raise InputError(f"{path}: expected query, key and value of one shape for {key}, found shapes {shapes}")
        renamed[key.replace(".query.", ".qkv.")] = torch.cat([renamed.pop(part) for part in parts])
    smoothing = "action_encoder.smoothing.weight"
    if shape(path, renamed, smoothing, 3)[-1] != 1:
        raise InputError(f"{path}: {smoothing}: expected a kernel of 1, found the shape {renamed[smoothing].shape}")
    renamed[smoothing] = renamed[smoothing].squeeze(-1)
    return renamed


def _rename(path: Path, key: str) -> str:
    stem, _, kind = key.rpartition(".")
    # Parameters of the model itself have no suffix such as weight or bias.
    for name, suffix in ((key, ""), (stem, f".{kind}")):
        for pattern, replacement in _NAMES:
            if match := re.fullmatch(pattern, name):
                return match.expand(replacement) + suffix
    raise InputError(f"{path}: expected the tensors of stable-worldmodel's LeWM with a ViT, found one named {key[:80]}")


def _config(
    path: Path, tensors: dict[str, torch.Tensor], settings: dict, block: int, control_rate: float, name: str
) -> ModelConfig:
    def size(key: str, axis: int, dimensions: int = 2) -> int:
        return shape(path, tensors, key, dimensions)[axis]

    width, patch = size("encoder.patches.weight", 0, 4), size("encoder.patches.weight", -1, 4)
    side = math.isqrt(max(size("encoder.positions", 1, 3) - 1, 0)) * patch
    inner, actions = size("predictor.blocks.0.attention.qkv.weight", 0) // 3, size("action_encoder.smoothing.weight", 1)
    token = size("predictor.positions", 2, 3)
    head_dim = _setting(path, settings, "predictor", "dim_head", HEAD_DIM)
    vit_heads = VIT_HEADS.get(width, max(width // HEAD_DIM, 1))
    if inner % head_dim:
        raise InputError(f"{path}: expected predictor heads of {head_dim} channels, found {inner} in all")
    if block < 1 or actions % block:
        raise InputError(f"{path}: expected blocks of a number of ticks that divides {actions} numbers, found {block}")
    values = {
        "family": "lewm",
        "name": name,
        "encoder": {
            "type": "vit",
            "patch": patch,
            "width": width,
            "depth": count_layers(tensors, "encoder.blocks."),
            "heads": _setting(path, settings, "encoder", "num_attention_heads", vit_heads),
            "mlp": size("encoder.blocks.0.mlp.0.weight", 0),
        },
        "predictor": {
            "type": "causal",
            "width": size("predictor.norm.weight", 0, 1),
            "depth": count_layers(tensors, "predictor.blocks."),
            "heads": inner // head_dim,
            "head_dim": head_dim,
            "mlp": size("predictor.blocks.0.mlp.1.weight", 0),
            "dropout": _setting(path, settings, "predictor", "dropout", 0.1),
            "embedding_dropout": _setting(path, settings, "predictor", "emb_dropout", 0.0),
            "action_smoothed": size("action_encoder.smoothing.weight", 0),
            "action_scale": size("action_encoder.layers.0.weight", 0) // max(token, 1),
        },
        "projector_hidden": size("projector.layers.0.weight", 0),
        "latent_shape": [size("projector.layers.3.weight", 0)],
        "preprocessing": {"size": side, "mean": IMAGENET_MEAN, "std": IMAGENET_STD},
        "history": size("predictor.positions", 1, 3),
        "control_rate": control_rate,
        "block": block,
        "action": {"name": "foreign", "dimension": actions // block},
    }
    return make_config(path, values)


def _read_settings(source: Path) -> dict:
    path = source.with_name("config.json")
    if not path.is_file():
        return {}
    settings = read_json(path, "settings")
    while isinstance(settings, dict) and isinstance(settings.get("model"), dict):
        settings = settings["model"]
    return settings if isinstance(settings, dict) else {}


def _setting(path: Path, settings: dict, part: str, key: str, default: float) -> float:
    section = settings.get(part)
    value = section.get(key, default) if isinstance(section, dict) else default
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0 or (value == 0 and default >= 1):
        place = path.with_name("config.json")
        raise InputError(f"{place}: {part}.{key}: expected a number as {default}, found {str(value)[:80]}")
    return value


def _card(source: Path, config: ModelConfig, model: torch.nn.Module, settings: bool) -> str:
    vit, action = require_sizes(config.encoder, VitEncoderConfig), config.action
    predictor = require_sizes(config.predictor, CausalPredictorConfig)
    sizes = f"width {predictor.width}, {predictor.depth} layers, {predictor.heads} heads x {predictor.head_dim}"
    heads = "those of the config.json beside it, else the published ones" if settings else "the published ones"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    return f"""# {config.name}

LeWM (arXiv 2603.19312), imported from `{source.name}` of stable-worldmodel, SHA-256 `{digest}`.

| | |
|---|---|
| parameters | {sum(p.numel() for p in model.parameters()):,} |
| images | {config.preprocessing.size} x {config.preprocessing.size} pixels, mean and deviation of ImageNet |
| encoder | ViT, patch {vit.patch}, width {vit.width}, {vit.depth} layers, {vit.heads} heads, MLP {vit.mlp} |
| projectors | hidden {config.projector_hidden}, latent {config.latent_shape[0]} |
| predictor | {sizes}, MLP {predictor.mlp} |
| history | {config.history} steps |
| action block | {config.action_block} numbers: {config.block} ticks x {action.dimension} |

Not in the file, and so not known:

- what an action means. The reference training standardises actions with mean and deviation of its data set; do the same
  before the model sees them.
- heads and dropout: {heads} were taken.
- the control rate and the ticks of a block: {config.control_rate:g} Hz and {config.block} were given to the import.
- distances and surprise: nothing was calibrated. No goal counts as reached and nothing as a surprise until `distance`
  and `surprise` in config.json are measured.
"""
