"""Family `lewm` computes what LeWM's reference implementation does: both run side by side with the same weights.

The peer is stable-worldmodel 0.1.1 with the ViTModel of transformers that its training builds.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from jepa_ros.world_model.anti_collapse.sigreg import sigreg
from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.importers.lewm import rename_tensors
from jepa_ros.world_model.lewm import IMAGENET_MEAN, IMAGENET_STD, build_lewm
from jepa_ros.world_model.protocol import Context

pytest.importorskip("einops")
transformers = pytest.importorskip("transformers")
PEER = importlib.util.find_spec("stable_worldmodel")
if PEER is None:
    pytest.skip("stable-worldmodel is not installed", allow_module_level=True)
torch.set_num_threads(1)

TOLERANCE = 1e-4


def _peer_modules():
    """Its modules without the packages above them, which import simulators and data formats."""
    with mock.patch.dict(sys.modules):
        for name, folder in (("", ""), (".wm", "/wm"), (".wm.lewm", "/wm/lewm")):
            package = sys.modules[f"stable_worldmodel{name}"] = ModuleType(f"stable_worldmodel{name}")
            package.__path__ = [PEER.submodule_search_locations[0] + folder]
        return [
            importlib.import_module(f"stable_worldmodel.wm.{name}") for name in ("lewm.lewm", "lewm.module", "loss")
        ]


peer, parts, losses = _peer_modules()


class Sizes(NamedTuple):
    """latent: its numbers D. width: of the ViT and of the predictor, as in the reference's training."""

    size: int = 28
    patch: int = 7
    width: int = 24
    layers: int = 2
    vit_heads: int = 3
    latent: int = 24
    history: int = 3
    depth: int = 2
    heads: int = 4
    head_dim: int = 8
    mlp: int = 32
    hidden: int = 40
    actions: int = 10
    dropout: float = 0.0


SMALL = [
    Sizes(),
    Sizes(size=32, patch=8, width=32, vit_heads=4, latent=12, history=2, actions=6),
    Sizes(size=16, patch=4, width=16, layers=1, vit_heads=1, latent=20, history=4, depth=1, heads=1, actions=1),
    Sizes(size=14, patch=14, width=36, layers=3, vit_heads=2, latent=36, history=1, depth=3, heads=3, head_dim=16),
]
PAPER = Sizes(224, 14, 192, 12, 3, 192, 3, 6, 16, 64, 2048, 2048, 10, 0.1)


def reference(s: Sizes) -> nn.Module:
    vit = transformers.ViTConfig(
        hidden_size=s.width,
        num_hidden_layers=s.layers,
        num_attention_heads=s.vit_heads,
        intermediate_size=4 * s.width,
        image_size=s.size,
        patch_size=s.patch,
    )
    predictor = parts.Predictor(
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
    return peer.LeWM(
        transformers.ViTModel(vit, add_pooling_layer=False),
        predictor,
        parts.Embedder(input_dim=s.actions, emb_dim=s.latent),
        parts.MLP(s.width, s.hidden, s.latent, norm_fn=nn.BatchNorm1d),
        parts.MLP(s.width, s.hidden, s.latent, norm_fn=nn.BatchNorm1d),
    )


def config(s: Sizes) -> ModelConfig:
    return ModelConfig.model_validate(
        {
            "name": "lewm",
            "encoder": {
                "type": "vit",
                "patch": s.patch,
                "width": s.width,
                "depth": s.layers,
                "heads": s.vit_heads,
                "mlp": 4 * s.width,
            },
            "predictor": {
                "type": "causal",
                "width": s.width,
                "depth": s.depth,
                "heads": s.heads,
                "head_dim": s.head_dim,
                "mlp": s.mlp,
                "dropout": s.dropout,
            },
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


def pair(s: Sizes, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """Ours and theirs with the same random weights, in evaluation mode; nothing has the value it begins with."""
    torch.manual_seed(seed)
    theirs = reference(s).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1 * min(1.0, (24 / s.width) ** 0.5))
        for name, statistic in theirs.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                statistic.copy_(torch.rand_like(statistic) + 0.5)
    ours = build_lewm(config(s)).eval()
    ours.load_state_dict(rename_tensors("reference", theirs.state_dict()))
    return ours, theirs


def frames_of(s: Sizes, batch: int, steps: int, seed: int = 0) -> tuple[np.ndarray, torch.Tensor]:
    """The same pictures for us, (batch * steps, size, size, 3) uint8, and for them, (batch, steps, 3, size, size)."""
    frames = np.random.default_rng(seed).integers(0, 256, (batch, steps, s.size, s.size, 3), dtype=np.uint8)
    pixels = (frames / 255.0 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    pixels = torch.as_tensor(pixels, dtype=torch.float32).permute(0, 1, 4, 2, 3)
    return frames.reshape(-1, *frames.shape[2:]), pixels


def no_state(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, 0)


def agree(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert theirs.numel() == 1 or theirs.std() > 0.01, "what is constant shows nothing"
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def compare(s: Sizes, ours: nn.Module, theirs: nn.Module, batch=3, samples=2, seen=None, horizon=4) -> None:
    """Encode, predict and roll out on both; raises AssertionError where a number differs by more than TOLERANCE."""
    seen = s.history if seen is None else seen
    frames, pixels = frames_of(s, batch, seen)
    actions = torch.randn(batch, samples, seen - 1 + horizon, s.actions, generator=torch.Generator().manual_seed(1))

    info = {"pixels": pixels[:, None], "action": actions}
    expected = theirs.rollout(info, actions)["predicted_emb"].flatten(0, 1)
    latents = ours.encode(frames).unflatten(0, (batch, seen))
    agree(latents, expected.unflatten(0, (batch, samples))[:, 0, :seen])

    window = latents[:, : s.history]
    embedded = theirs.action_encoder(actions[:, 0, : window.shape[1]])
    predicted, state = ours.predict(window, no_state(*window.shape[:2]), actions[:, 0, : window.shape[1]])
    agree(predicted, theirs.predict(window, embedded))
    assert state.shape == (*window.shape[:2], 0)

    latents = latents.repeat_interleave(samples, 0)
    flat = actions.flatten(0, 1)
    context = Context(latents, no_state(*latents.shape[:2]), flat[:, : seen - 1])
    imagined, states = ours.rollout(context, flat[:, seen - 1 :])
    agree(imagined, expected[:, seen:])
    assert states.shape == (batch * samples, horizon, 0)


@pytest.mark.parametrize("sizes", SMALL)
def test_encode_predict_and_rollout_equal_the_reference(sizes):
    compare(sizes, *pair(sizes))


def test_they_equal_it_at_the_published_sizes():
    ours, theirs = pair(PAPER)
    assert sum(p.numel() for p in theirs.parameters()) == 18_034_478
    assert sum(p.numel() for p in ours.parameters()) == 18_034_478
    compare(PAPER, ours, theirs, batch=2, horizon=3)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(range(len(SMALL))), st.integers(1, 6), st.integers(1, 8), st.integers(1, 3), st.integers(1, 3))
def test_rollouts_equal_it_for_any_number_of_seen_frames_and_steps(which, seen, horizon, batch, samples):
    compare(SMALL[which], *PAIRS[which], batch=batch, samples=samples, seen=seen, horizon=horizon)


PAIRS = [pair(sizes) for sizes in SMALL]


@pytest.mark.parametrize("name", [n for n, p in PAIRS[1][0].named_parameters()])
def test_one_changed_weight_makes_the_comparison_fail(name):
    ours, theirs = pair(SMALL[1])
    with torch.no_grad():
        ours.get_parameter(name).view(-1)[0] += 0.5
    with pytest.raises(AssertionError, match="not close"):
        compare(SMALL[1], ours, theirs)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_training_step_has_the_gradients_of_the_reference(dropout):
    """BatchNorm takes the statistics of the batch, and where dropout draws the same numbers it drops the same ones."""
    sizes = SMALL[1]._replace(dropout=dropout)
    ours, theirs = (model.train() for model in pair(sizes))
    frames, pixels = frames_of(sizes, 8, sizes.history + 1)
    actions = torch.randn(8, sizes.history + 1, sizes.actions)

    torch.manual_seed(4)
    info = theirs.encode({"pixels": pixels, "action": actions})
    predicted = theirs.predict(info["emb"][:, :-1], info["act_emb"][:, :-1])
    expected = (predicted - info["emb"][:, 1:]).pow(2).mean()
    expected = expected + 0.1 * losses.SIGReg(num_proj=16)(info["emb"].transpose(0, 1))
    expected.backward()

    torch.manual_seed(4)
    latents = ours.encode(frames).unflatten(0, (8, -1))
    predicted, _ = ours.predict(latents[:, :-1], no_state(8, sizes.history), actions[:, :-1])
    loss = (predicted - latents[:, 1:]).pow(2).mean() + 0.1 * sigreg(latents.transpose(0, 1), 16)
    loss.backward()

    agree(loss.detach(), expected.detach())
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, gradient in rename_tensors("reference", gradients).items():
        torch.testing.assert_close(ours.get_parameter(name).grad, gradient, atol=TOLERANCE, rtol=1e-3)
    statistics = rename_tensors("reference", theirs.state_dict())
    for name, buffer in ours.named_buffers():
        if "running" in name:
            torch.testing.assert_close(buffer, statistics[name], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("shape", [(4, 128, 192), (1, 7, 3), (3, 32, 16)])
@pytest.mark.parametrize("directions", [1024, 5])
def test_sigreg_equals_the_reference(shape, directions):
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(2)) * 1.5 + 0.2
    torch.manual_seed(9)
    expected = losses.SIGReg(num_proj=directions)(latents)
    ours = sigreg(latents, directions, torch.Generator().manual_seed(9))
    torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0)
    with pytest.raises(AssertionError, match="not close"):
        latents[0, 0, 0] += 5.0
        torch.testing.assert_close(
            sigreg(latents, directions, torch.Generator().manual_seed(9)), expected, atol=TOLERANCE, rtol=0
        )
