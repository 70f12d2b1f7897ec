"""The recipe "concat" computes what DINO-WM does: both run side by side with the same weights.

The peer is stable-worldmodel's PreJEPA, its implementation of DINO-WM (arXiv 2411.04983).
"""

import importlib
import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.dino_wm.model import PatchWorldModel
from jepa_ros.world_model.protocol import Context

pytest.importorskip("einops")
PEER = importlib.util.find_spec("stable_worldmodel")
if PEER is None:
    pytest.skip("stable-worldmodel is not installed", allow_module_level=True)
torch.set_num_threads(1)


def _peer_modules():
    """Its two modules without the packages above them, which import simulators and data formats."""
    with mock.patch.dict(sys.modules):
        for name, folder in (("stable_worldmodel", ""), ("stable_worldmodel.wm", "/wm")):
            sys.modules[name] = ModuleType(name)
            sys.modules[name].__path__ = [PEER.submodule_search_locations[0] + folder]
        model = importlib.import_module("stable_worldmodel.wm.prejepa.prejepa")
        return model.PreJEPA, importlib.import_module("stable_worldmodel.wm.prejepa.module")


PreJEPA, peer = _peer_modules()
EMBEDDED = {"proprio": 6, "action": 4}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# history, side of the grid of patches, features, heads, numbers a head, layers, proprioception, action block
SHAPES = [(3, 3, 12, 2, 8, 2, 0, 10), (2, 2, 20, 1, 16, 1, 5, 6), (4, 3, 9, 3, 4, 3, 14, 2), (1, 4, 16, 4, 6, 2, 7, 7)]
WITHOUT_STATE, WITH_STATE = SHAPES[0], SHAPES[1]


class Patches(nn.Module):
    """An encoder of 4 x 4 pixel patches; `last_hidden_state` starts with a class token, as transformers' do."""

    def __init__(self, side: int, width: int):
        super().__init__()
        self.tokens, self.width = side * side, width
        self.embed = nn.Conv2d(3, width, 4, 4)

    def forward(self, images, interpolate_pos_encoding=None):
        features = self.embed(images).flatten(2).transpose(1, 2).tanh()
        if interpolate_pos_encoding is None:
            return features
        return SimpleNamespace(last_hidden_state=torch.cat([features.mean(1, keepdim=True), features], 1))


def pair(shape, seed=0, dropout=0.0, embedding_dropout=0.0):
    """Ours and theirs with the same random weights, in evaluation mode."""
    history, side, width, heads, head_dim, depth, states, actions = shape
    torch.manual_seed(seed)
    encoder = Patches(side, width)
    extra = {"proprio": peer.Embedder(in_chans=states, emb_dim=EMBEDDED["proprio"])} if states else {}
    extra["action"] = peer.Embedder(in_chans=actions, emb_dim=EMBEDDED["action"])
    predictor = peer.CausalPredictor(
        num_patches=side * side,
        num_frames=history,
        dim=width + sum(EMBEDDED[name] for name in extra),
        depth=depth,
        heads=heads,
        dim_head=head_dim,
        mlp_dim=24,
        dropout=dropout,
        emb_dropout=embedding_dropout,
    )
    theirs = PreJEPA(encoder, predictor, nn.ModuleDict(extra), history_size=history)
    for parameter in theirs.parameters():  # every one, also those of the norms, which start as the identity
        nn.init.normal_(parameter, std=0.5)
    ours = PatchWorldModel(encoder, config(shape, dropout, embedding_dropout))
    left = ours.predictor.load_state_dict(translated(theirs), strict=False)
    assert set(left.missing_keys) <= {"state_change.weight", "state_change.bias"}, left
    assert not left.unexpected_keys
    return ours.eval(), theirs.eval()


def config(shape, dropout, embedding_dropout) -> ModelConfig:
    history, side, width, heads, head_dim, depth, states, actions = shape
    names = tuple(f"g{i}" for i in range(states))
    return ModelConfig.model_validate(
        {
            "family": "dino_wm",
            "name": "parity",
            "encoder": {"type": "transformers", "sha256": "0"},
            "predictor": {
                "type": "patch",
                "conditioning": "concat",
                "positions": "learned",
                "depth": depth,
                "heads": heads,
                "head_dim": head_dim,
                "mlp": 24,
                "dropout": dropout,
                "embedding_dropout": embedding_dropout,
                "action_width": EMBEDDED["action"],
                "state_width": EMBEDDED["proprio"],
            },
            "latent_shape": (side * side, width),
            "preprocessing": {"size": 4 * side, "mean": MEAN, "std": STD},
            "history": history,
            "control_rate": 10.0,
            "block": 1,
            "action": {"name": "foreign", "dimension": actions},
            "proprioception": {"gripper": names, "mean": (0.0,) * states, "std": (1.0,) * states},
            "distance": {"tolerance": 0.1, "far": 1.0},
            "surprise": {"levels": (0.5,), "errors": (0.1,), "threshold": 0.2},
        }
    )


def translated(theirs) -> dict[str, torch.Tensor]:
    """Their weights under our names."""
    names = {"norm": "transformer.norm"}
    for i in range(len(theirs.predictor.transformer.layers)):
        attention, mlp = f"transformer.layers.{i}.0", f"transformer.layers.{i}.1.net"
        names[f"blocks.{i}.attention_norm"] = f"{attention}.norm"
        names[f"blocks.{i}.attention.qkv"] = f"{attention}.to_qkv"
        names[f"blocks.{i}.attention.out.0"] = f"{attention}.to_out.0"
        names |= {f"blocks.{i}.mlp_norm": f"{mlp}.0", f"blocks.{i}.mlp.0": f"{mlp}.1", f"blocks.{i}.mlp.3": f"{mlp}.4"}
    found = theirs.predictor.state_dict()
    positions = found["pos_embedding"].unflatten(1, (-1, theirs.backbone.tokens)).squeeze(0)
    weights = {"positions": positions}
    for ours, name in names.items():
        for kind in ("weight", "bias"):
            if f"{name}.{kind}" in found:
                weights[f"{ours}.{kind}"] = found[f"{name}.{kind}"]
    for ours, name in (("state", "proprio"), ("action", "action")):
        if name in theirs.extra_encoders:
            convolution = theirs.extra_encoders[name].patch_embed
            weights[f"{ours}_embedding.weight"] = convolution.weight.squeeze(-1)
            weights[f"{ours}_embedding.bias"] = convolution.bias
    return weights


def seen(shape, steps, seed=0, situations=2):
    """Frames (B, T, S, S, 3) uint8, proprioception (B, T, P), action blocks (B, T, K)."""
    side, states, actions = 4 * shape[1], shape[6], shape[7]
    rng = np.random.default_rng(seed)
    frames = torch.from_numpy(rng.integers(0, 256, (situations, steps, side, side, 3), dtype=np.uint8))
    given = [torch.from_numpy(rng.normal(size=(situations, steps, count))).float() for count in (states, actions)]
    return frames, *given


def pixels(frames: torch.Tensor) -> torch.Tensor:
    """What the peer takes: (B, T, 3, S, S), normalised."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (frames.permute(0, 1, 4, 2, 3) / 255.0 - mean) / std


def both(ours, theirs, shape, steps, seed=0):
    """All that comes out of the two transformers, action embeddings included: (B, T, N, W) each."""
    frames, states, actions = seen(shape, steps, seed)
    torch.manual_seed(seed)  # for dropout
    expected = theirs.predict(theirs.encode({"pixels": pixels(frames), "proprio": states, "action": actions})["emb"])
    torch.manual_seed(seed)
    return ours.predictor.run_blocks(*ours.predictor.embed(latents_of(ours, frames), states, actions)), expected


def latents_of(ours, frames: torch.Tensor) -> torch.Tensor:
    """(B, T, N, D) of frames (B, T, S, S, 3)."""
    return ours.encode(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_the_transformer_equals_the_reference_for_every_window_length(shape):
    ours, theirs = pair(shape)
    for steps in range(1, shape[0] + 1):
        got, expected = both(ours, theirs, shape, steps, seed=steps)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_predicted_latents_equal_the_features_predicted_by_the_reference(shape):
    ours, theirs = pair(shape)
    frames, states, actions = seen(shape, shape[0])
    latents, _ = ours.predict(latents_of(ours, frames), states, actions)
    _, expected = both(ours, theirs, shape, shape[0])
    torch.testing.assert_close(latents, expected[..., : shape[2]], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_change_of_any_weight_is_detected():
    ours, theirs = pair(WITH_STATE)
    for name, weight in theirs.named_parameters():
        if name.startswith("backbone"):
            continue
        kept = weight.clone()
        weight.view(-1)[0] += 0.5
        got, expected = both(ours, theirs, WITH_STATE, WITH_STATE[0])
        assert (got - expected).abs().max() > 1e-3, name
        weight.copy_(kept)
    torch.testing.assert_close(*both(ours, theirs, WITH_STATE, WITH_STATE[0]), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_dropout_equals_the_reference():
    ours, theirs = pair(WITH_STATE, dropout=0.3, embedding_dropout=0.2)
    ours.train(), theirs.train()
    got, expected = both(ours, theirs, WITH_STATE, 2)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    ours.eval()
    assert (both(ours, theirs, WITH_STATE, 2)[0] - expected).abs().max() > 1e-3


@torch.no_grad()
def test_rollouts_longer_than_the_history_equal_the_reference():
    ours, theirs = pair(WITHOUT_STATE)
    observed, candidates, horizon = 2, 3, 5  # fewer frames than the history of 3: the window grows, then slides
    frames, _, _ = seen(WITHOUT_STATE, observed, situations=1)
    actions = seen(WITHOUT_STATE, observed - 1 + horizon, seed=7, situations=candidates)[2]
    images = pixels(frames).unsqueeze(1).expand(-1, candidates, -1, -1, -1, -1)
    theirs_rolled = theirs.rollout({"pixels": images}, actions.unsqueeze(0))["predicted_pixels_emb"]
    latents = latents_of(ours, frames).expand(candidates, -1, -1, -1)
    executed, planned = actions[:, : observed - 1], actions[:, observed - 1 :]
    rolled, states = ours.rollout(Context(latents, torch.empty(candidates, observed, 0), executed), planned)
    assert rolled.shape == (candidates, horizon, *ours.latent_shape) and states.shape == (candidates, horizon, 0)
    torch.testing.assert_close(rolled, theirs_rolled[0, :, observed:], atol=1e-4, rtol=1e-4)
