"""Family `lewm` computes what LeWM's reference implementation does: both run side by side with the same weights.

The peer is stable-worldmodel 0.1.1 with the ViTModel of transformers that its training builds.
"""

import importlib
import importlib.util

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from jepa_ros.bench import matched_models
from jepa_ros.bench.matched_models import PUBLISHED_SIZES, ModelSizes
from jepa_ros.bench.reference import load_reference
from jepa_ros.world_model.anti_collapse.sigreg import sigreg
from jepa_ros.world_model.importers.lewm import rename_tensors
from jepa_ros.world_model.lewm.model import IMAGENET_MEAN, IMAGENET_STD
from jepa_ros.world_model.protocol import Context

pytest.importorskip("einops")
transformers = pytest.importorskip("transformers")
if importlib.util.find_spec("stable_worldmodel") is None:
    pytest.skip("stable-worldmodel is not installed", allow_module_level=True)
torch.set_num_threads(1)

TOLERANCE = 1e-4


PEER = load_reference("stable-worldmodel")
peer, parts, losses = PEER.lewm, PEER.parts, PEER.loss

TINY = ModelSizes(28, 7, 24, 2, 3, 24, 3, 2, 4, 8, 32, 40, 10, 0.0)
SMALL = [
    TINY,
    TINY._replace(size=32, patch=8, width=32, vit_heads=4, latent=12, history=2, actions=6),
    TINY._replace(size=16, patch=4, width=16, layers=1, vit_heads=1, latent=20, history=4, depth=1, heads=1, actions=1),
    TINY._replace(
        size=14, patch=14, width=36, layers=3, vit_heads=2, latent=36, history=1, depth=3, heads=3, head_dim=16
    ),
]


def build_matched_models(s: ModelSizes, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    return matched_models.build_matched_models(PEER, s, seed)


def frames_of(s: ModelSizes, batch: int, steps: int, seed: int = 0) -> tuple[np.ndarray, torch.Tensor]:
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
def compare(s: ModelSizes, ours: nn.Module, theirs: nn.Module, batch=3, samples=2, seen=None, horizon=4) -> None:
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
    compare(sizes, *build_matched_models(sizes))


def test_the_published_sizes_equal_the_reference():
    ours, theirs = build_matched_models(PUBLISHED_SIZES)
    assert sum(p.numel() for p in theirs.parameters()) == 18_034_478
    assert sum(p.numel() for p in ours.parameters()) == 18_034_478
    compare(PUBLISHED_SIZES, ours, theirs, batch=2, horizon=3)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(range(len(SMALL))), st.integers(1, 6), st.integers(1, 8), st.integers(1, 3), st.integers(1, 3))
def test_rollouts_equal_the_reference_for_any_context_and_horizon(which, seen, horizon, batch, samples):
    compare(SMALL[which], *PAIRS[which], batch=batch, samples=samples, seen=seen, horizon=horizon)


PAIRS = [build_matched_models(sizes) for sizes in SMALL]


@pytest.mark.parametrize("name", [n for n, p in PAIRS[1][0].named_parameters()])
def test_one_changed_weight_makes_the_comparison_fail(name):
    ours, theirs = build_matched_models(SMALL[1])
    with torch.no_grad():
        ours.get_parameter(name).view(-1)[0] += 0.5
    with pytest.raises(AssertionError, match="not close"):
        compare(SMALL[1], ours, theirs)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_gradients_of_a_training_step_equal_the_reference(dropout):
    """BatchNorm takes the statistics of the batch, and where dropout draws the same numbers it drops the same ones."""
    sizes = SMALL[1]._replace(dropout=dropout)
    ours, theirs = (model.train() for model in build_matched_models(sizes))
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
