"""Checkpoints of LeWM in the layout of stable-worldmodel, made from a small random model of ours."""

import json
import re

import torch
from safetensors.torch import save_file

from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.importers.lewm import IMAGENET_MEAN, IMAGENET_STD
from jepa_ros.world_model.lewm.model import LeWM

torch.set_num_threads(1)

CONFIG = ModelConfig.model_validate(
    {
        "name": "small",
        "encoder": {"type": "vit", "patch": 4, "width": 24, "depth": 2, "heads": 3, "mlp": 20},
        "predictor": {"type": "causal", "width": 24, "depth": 3, "heads": 2, "head_dim": 8, "mlp": 28}
        | {"dropout": 0.2, "action_smoothed": 7, "action_scale": 3},
        "projector_hidden": 26,
        "latent_shape": [22],
        "preprocessing": {"size": 16, "mean": IMAGENET_MEAN, "std": IMAGENET_STD},
        "history": 4,
        "control_rate": 20.0,
        "block": 5,
        "action": {"name": "foreign", "dimension": 2},
        "distance": {"tolerance": 0.1, "far": 1.0},
        "surprise": {"levels": [], "errors": [], "threshold": 1.0},
    }
)
# What tensors do not say; the reference writes it beside them.
SETTINGS = {"encoder": {"num_attention_heads": 3}, "predictor": {"dim_head": 8, "heads": 2, "dropout": 0.2}}
TRANSFORMERS_4 = {
    "{q}": "encoder.encoder.layer.{i}.attention.attention.query",
    "{k}": "encoder.encoder.layer.{i}.attention.attention.key",
    "{v}": "encoder.encoder.layer.{i}.attention.attention.value",
    "attention_output": "encoder.encoder.layer.{i}.attention.output.dense",
    "attention_norm": "encoder.encoder.layer.{i}.layernorm_before",
    "mlp_norm": "encoder.encoder.layer.{i}.layernorm_after",
    "mlp.0": "encoder.encoder.layer.{i}.intermediate.dense",
    "mlp.2": "encoder.encoder.layer.{i}.output.dense",
}
TRANSFORMERS_5 = {
    "{q}": "encoder.layers.{i}.attention.q_proj",
    "{k}": "encoder.layers.{i}.attention.k_proj",
    "{v}": "encoder.layers.{i}.attention.v_proj",
    "attention_output": "encoder.layers.{i}.attention.o_proj",
    "attention_norm": "encoder.layers.{i}.layernorm_before",
    "mlp_norm": "encoder.layers.{i}.layernorm_after",
    "mlp.0": "encoder.layers.{i}.mlp.fc1",
    "mlp.2": "encoder.layers.{i}.mlp.fc2",
}
PARTS = [
    (r"^encoder\.class_token", "encoder.embeddings.cls_token"),
    (r"^encoder\.positions", "encoder.embeddings.position_embeddings"),
    (r"^encoder\.patches", "encoder.embeddings.patch_embeddings.projection"),
    (r"^encoder\.norm", "encoder.layernorm"),
    (r"^projector\.layers", "projector.net"),
    (r"^prediction_projector\.layers", "pred_proj.net"),
    (r"^action_encoder\.smoothing", "action_encoder.patch_embed"),
    (r"^action_encoder\.layers", "action_encoder.embed"),
    (r"^predictor\.positions", "predictor.pos_embedding"),
    (r"^predictor\.input_projection", "predictor.transformer.input_proj"),
    (r"^predictor\.condition_projection", "predictor.transformer.cond_proj"),
    (r"^predictor\.norm", "predictor.transformer.norm"),
    (r"^predictor\.blocks\.(\d+)\.attention\.norm", r"predictor.transformer.layers.\1.attn.norm"),
    (r"^predictor\.blocks\.(\d+)\.attention\.qkv", r"predictor.transformer.layers.\1.attn.to_qkv"),
    (r"^predictor\.blocks\.(\d+)\.attention\.output\.0", r"predictor.transformer.layers.\1.attn.to_out.0"),
    (r"^predictor\.blocks\.(\d+)\.mlp", r"predictor.transformer.layers.\1.mlp.net"),
    (r"^predictor\.blocks\.(\d+)\.modulation", r"predictor.transformer.layers.\1.adaLN_modulation.1"),
]


def random_model():
    """Nothing in it has the value that it begins with."""
    torch.manual_seed(0)
    model = LeWM(CONFIG).eval()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.4 * torch.rand_like(tensor) - 0.2)
    return model


MODEL = random_model()


def foreign(vit=TRANSFORMERS_4):
    """The weights of MODEL as the reference names them."""
    tensors = {}
    for key, value in MODEL.state_dict().items():
        if match := re.match(r"encoder\.blocks\.(\d+)\.(.+)\.(weight|bias)", key):
            layer, part, kind = match.groups()
            if part == "qkv":
                for letter, third in zip("qkv", value.chunk(3), strict=True):
                    tensors[f"{vit[f'{{{letter}}}']}.{kind}".format(i=layer)] = third.clone()
            else:
                tensors[f"{vit[part]}.{kind}".format(i=layer)] = value
            continue
        for pattern, replacement in PARTS:
            key, count = re.subn(pattern, replacement, key)
            if count:
                break
        tensors[key] = value.unsqueeze(-1) if key == "action_encoder.patch_embed.weight" else value
    return tensors


def write(folder, tensors, settings=SETTINGS, name="weights.pt"):
    folder.mkdir(exist_ok=True)
    if settings is not None:
        (folder / "config.json").write_text(json.dumps(settings))
    (save_file if name.endswith(".safetensors") else torch.save)(tensors, folder / name)
    return folder / name
