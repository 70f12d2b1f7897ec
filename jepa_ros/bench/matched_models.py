"""The same LeWM in the reference's code and in ours, with the same random weights."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import nn

from jepa_ros.bench.reference import Reference
from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.importers.lewm import rename_tensors
from jepa_ros.world_model.lewm.model import IMAGENET_MEAN, IMAGENET_STD, LeWM
from jepa_ros.world_model.protocol import Context


class ModelSizes(NamedTuple):
    """Sizes of a LeWM, by default the published ones (arXiv 2603.19312). width: of the ViT and of the predictor.
    actions: numbers of an action block."""

    size: int = 224
    patch: int = 14
    width: int = 192
    layers: int = 12
    vit_heads: int = 3
    latent: int = 192
    history: int = 3
    depth: int = 6
    heads: int = 16
    head_dim: int = 64
    mlp: int = 2048
    hidden: int = 2048
    actions: int = 10
    dropout: float = 0.1


PUBLISHED_SIZES = ModelSizes()


class MatchedModels:
    """The models `theirs`, `ours` and `rounded` (ours with rollouts in bfloat16) in evaluation mode, and one situation:
    the latents of a frame and of a goal. No plan encodes an image: the reference has both latents in its cache."""

    def __init__(self, reference: Reference, sizes: ModelSizes = PUBLISHED_SIZES, seed: int = 0):
        self.sizes = sizes
        self.ours, self.theirs = (model.requires_grad_(False) for model in build_matched_models(reference, sizes, seed))
        self.rounded = copy.deepcopy(self.ours)
        self.rounded.set_rollout_dtype(torch.bfloat16)
        self.latent, self.goal = torch.randn(2, 1, 1, sizes.latent)

    def info(self) -> dict[str, torch.Tensor]:
        """Return the situation for the reference's solver; pixels and goal only state that there is one frame."""
        return {
            "pixels": torch.zeros(1, 1, 1),
            "goal": torch.zeros(1, 1, 1),
            "emb": self.latent,
            "goal_emb": self.goal,
        }

    def their_costs(self, actions: torch.Tensor) -> torch.Tensor:
        """Return the reference's costs (S,) of action blocks (S, H, K), computed as for its solver."""
        info = {key: x[:, None].expand(1, len(actions), *x.shape[1:]) for key, x in self.info().items()}
        return self.theirs.get_cost(info, actions[None])[0]

    def our_costs(self, model: LeWM, actions: torch.Tensor) -> torch.Tensor:
        """Return the costs (S,) by `ours` or `rounded`: squared L2 distance of the last latent to the goal's."""
        return final_costs(model, self.latent, self.goal[0, 0], actions)


def build_matched_models(reference: Reference, sizes: ModelSizes, seed: int = 0) -> tuple[LeWM, nn.Module]:
    """Return our model and theirs with the same random weights, in evaluation mode. No weight keeps its initial value,
    since that is 0 for AdaLN."""
    torch.manual_seed(seed)
    theirs = build_reference_model(reference, sizes).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1 * min(1.0, (24 / sizes.width) ** 0.5))
        for name, statistic in theirs.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                statistic.copy_(torch.rand_like(statistic) + 0.5)
    ours = LeWM(lewm_config(sizes)).eval()
    ours.load_state_dict(rename_tensors("reference", theirs.state_dict()))
    return ours, theirs


def final_costs(model: LeWM, latent: torch.Tensor, goal: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Return the squared L2 distances (S,) to `goal` (D,) after actions (S, H, K) from latent (1, 1, D)."""
    still = latent.new_zeros(1, 0, actions.shape[-1])
    context = Context(latent, latent.new_zeros(1, 1, 0), still).expand(len(actions))
    return (model.rollout(context, actions)[0][:, -1] - goal).square().sum(-1)


def count_multiplications(sizes: ModelSizes, horizon: int) -> dict[str, float]:
    """Return the million multiplications in linear layers for one sample's rollout from one frame, in the reference and
    in our code."""
    s, inner = sizes, sizes.heads * sizes.head_dim
    query, keys, mlp, modulation = s.width * inner, 2 * s.width * inner, 2 * s.width * s.mlp, 6 * s.width**2
    projector, single = s.hidden * (s.width + s.latent), s.width**2
    token = 2 * query + keys + mlp
    windows = [min(step, s.history) for step in range(1, horizon + 1)]
    theirs = sum(w * s.depth * (token + modulation) for w in windows)
    ours = horizon * s.depth * modulation
    for step, window in enumerate(windows, 1):
        first = keys + single + mlp  # attends to itself only
        if step <= s.history:  # earlier tokens are cached
            ours += s.depth * (first if step == 1 else token)
        else:
            ours += (
                (s.depth - 1) * (first + (window - 1) * token) + (window - 1) * keys + (token if window > 1 else first)
            )
    actions = horizon * (s.actions * 10 + 40 * s.latent + 4 * s.latent**2)
    return {
        "reference": (theirs + sum(windows) * projector + actions) / 1e6,
        "ours": (ours + horizon * projector + actions) / 1e6,
    }


def build_reference_model(reference: Reference, s: ModelSizes) -> nn.Module:
    """Return the reference's LeWM as its training builds it, with new weights."""
    from transformers import ViTConfig, ViTModel

    vit = ViTConfig(
        hidden_size=s.width,
        num_hidden_layers=s.layers,
        num_attention_heads=s.vit_heads,
        intermediate_size=4 * s.width,
        image_size=s.size,
        patch_size=s.patch,
    )
    predictor = reference.parts.Predictor(
        num_frames=s.history,
        depth=s.depth,
        heads=s.heads,
        mlp_dim=s.mlp,
        input_dim=s.latent,
        hidden_dim=s.width,
        output_dim=s.width,
        dim_head=s.head_dim,
        dropout=s.dropout,
    )
    return reference.lewm.LeWM(
        ViTModel(vit, add_pooling_layer=False),
        predictor,
        reference.parts.Embedder(input_dim=s.actions, emb_dim=s.latent),
        reference.parts.MLP(s.width, s.hidden, s.latent, norm_fn=nn.BatchNorm1d),
        reference.parts.MLP(s.width, s.hidden, s.latent, norm_fn=nn.BatchNorm1d),
    )


def lewm_config(s: ModelSizes) -> ModelConfig:
    """Return our configuration of these sizes."""
    encoder = {"type": "vit", "patch": s.patch, "width": s.width, "depth": s.layers, "heads": s.vit_heads}
    predictor = {"type": "causal", "width": s.width, "depth": s.depth, "heads": s.heads, "head_dim": s.head_dim}
    return ModelConfig.model_validate(
        {
            "name": "lewm",
            "encoder": encoder | {"mlp": 4 * s.width},
            "predictor": predictor | {"mlp": s.mlp, "dropout": s.dropout},
            "projector_hidden": s.hidden,
            "latent_shape": [s.latent],
            "preprocessing": {"size": s.size, "mean": IMAGENET_MEAN, "std": IMAGENET_STD},
            "history": s.history,
            "control_rate": 10.0,
            "block": 1,
            "action": {"name": "foreign", "dimension": s.actions},
            "distance": {"tolerance": 1.0, "far": 2.0},
            "surprise": {"levels": [], "errors": [], "threshold": 1.0},
        }
    )
