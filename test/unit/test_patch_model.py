"""Patch tokens of a frozen encoder, and the transformer that predicts them: family dino_wm."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from helpers.small_dino_wm import (
    PIXELS,
    SIDE,
    TOKENS,
    WIDTH,
    Patches,
    config,
    from_directory,
    made_config,
    model,
    window,
)
from jepa_ros.errors import InputError
from jepa_ros.world_model import checkpoint
from jepa_ros.world_model.dino_wm.model import PatchWorldModel
from jepa_ros.world_model.dino_wm.predictor import axial_rope
from jepa_ros.world_model.protocol import Context

RECIPES = {"dino-wm": ("concat", "learned"), "jepa-wms": ("adaln", "rope")}
EVERY = pytest.mark.parametrize("conditioning", ["concat", "adaln"])
BOTH_POSITIONS = pytest.mark.parametrize("positions", ["learned", "rope"])


@EVERY
@BOTH_POSITIONS
@torch.no_grad()
@pytest.mark.parametrize("what", [0, 1, 2], ids=["latents", "states", "actions"])
def test_a_prediction_does_not_depend_on_later_frames(conditioning, positions, what):
    made, given = model(conditioning, positions), window()
    before = made.predict(*given)
    for frame in range(3):
        changed = [tensor.clone() for tensor in given]
        changed[what][:, frame, ..., 0] += 1.0
        after = made.predict(*changed)
        for predicted, old in zip(after, before, strict=True):
            torch.testing.assert_close(predicted[:, :frame], old[:, :frame])
            assert ((predicted - old)[:, frame:].flatten(2).abs().amax(2) > 1e-4).all()


@EVERY
@BOTH_POSITIONS
@torch.no_grad()
def test_a_shorter_window_predicts_the_same_as_the_start_of_a_longer_one(conditioning, positions):
    made, given = model(conditioning, positions), window()
    whole = made.predict(*given)
    for steps in (1, 2):
        for predicted, longer in zip(made.predict(*(x[:, :steps] for x in given)), whole, strict=True):
            torch.testing.assert_close(predicted, longer[:, :steps])


@EVERY
@BOTH_POSITIONS
@torch.no_grad()
def test_each_token_of_a_frame_affects_every_other(conditioning, positions):
    made, (latents, states, actions) = model(conditioning, positions), window()
    before = made.predict(latents, states, actions)[0]
    for token in range(TOKENS):
        changed = latents.clone()
        changed[:, 0, token] += torch.linspace(-1, 1, WIDTH)
        moved = (made.predict(changed, states, actions)[0] - before).abs().amax(-1)
        assert (moved > 1e-5).all(), token


@EVERY
@torch.no_grad()
def test_rope_distinguishes_patch_positions(conditioning):
    made, (latents, states, actions) = model(conditioning, "rope"), window()
    one = made.predict(latents, states, actions)[0]
    turned = made.predict(latents.flip(2), states, actions)[0].flip(2)
    assert (one - turned).abs().max() > 1e-3


@EVERY
@torch.no_grad()
def test_rope_predictions_depend_on_relative_time_only(conditioning):
    made, given = model(conditioning, "rope"), window()
    before = made.predict(*given)[0]
    for times, same in ((torch.arange(3) + 11, True), (torch.arange(3) * 2, False)):
        made.predictor.cos, made.predictor.sin = axial_rope(times, SIDE, SIDE, 12)
        assert torch.allclose(made.predict(*given)[0], before, atol=1e-4) == same


@EVERY
@BOTH_POSITIONS
@torch.no_grad()
def test_without_proprioception_there_are_no_states(conditioning, positions):
    made = model(conditioning, positions, states=0, state_width=0)
    latents, states, actions = window(states=0)
    predicted, none = made.predict(latents, states, actions)
    assert predicted.shape == latents.shape and none.shape == (2, 3, 0)
    rolled, none = made.rollout(Context(latents, states, actions[:, :2]), window(0, 4)[2])
    assert rolled.shape == (2, 4, TOKENS, WIDTH) and none.shape == (2, 4, 0)


@EVERY
@torch.no_grad()
def test_a_rollout_equals_repeated_prediction_on_a_sliding_window(conditioning):
    made, (latents, states, actions) = model(conditioning), window()
    planned = window(steps=2)[2].neg()
    rolled, moved = made.rollout(Context(latents, states, actions[:, :2]), planned)
    blocks = torch.cat([actions[:, :2], planned], 1)
    for step in range(2):
        latent, state = made.predict(latents, states, blocks[:, step : step + 3])
        torch.testing.assert_close(rolled[:, step], latent[:, -1])
        torch.testing.assert_close(moved[:, step], state[:, -1])
        latents, states = (torch.cat([old[:, 1:], new[:, -1:]], 1) for old, new in ((latents, latent), (states, state)))


@EVERY
@torch.no_grad()
def test_an_untrained_model_predicts_no_change(conditioning):
    torch.manual_seed(0)
    made = PatchWorldModel(Patches(), config(conditioning)).eval()
    latents, states, actions = window()
    predicted, still = made.predict(latents, states, actions)
    torch.testing.assert_close(still, states)
    if conditioning == "adaln":
        torch.testing.assert_close(predicted, F.layer_norm(latents, (WIDTH,)))


@EVERY
def test_gradients_reach_the_predictor_but_not_the_frozen_encoder(conditioning, tmp_path):
    made = from_directory(tmp_path, conditioning).train()
    for parameter in made.predictor.parameters():
        nn.init.normal_(parameter, std=0.3)
    assert not any(part.training for part in made.encoder.modules()) and made.predictor.training
    frames = torch.randint(
        0, 256, (6, PIXELS, PIXELS, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )
    latents = made.encode(frames).unflatten(0, (2, 3))
    assert not latents.requires_grad
    _, states, actions = window()
    predicted, moved = made.predict(latents, states, actions)
    (predicted.square().mean() + moved.square().mean()).backward()
    assert [name for name, p in made.named_parameters() if p.grad is not None and p.grad.abs().max() > 0] == [
        name for name, _ in made.named_parameters() if name.startswith("predictor.")
    ]


@EVERY
def test_a_checkpoint_holds_only_the_predictor_and_predicts_the_same(conditioning, tmp_path):
    made = from_directory(tmp_path, conditioning).eval()
    for parameter in made.predictor.parameters():
        nn.init.normal_(parameter, std=0.3)
    checkpoint.save_checkpoint(tmp_path, made_config(tmp_path, conditioning), made, None)
    names = set(load_file(tmp_path / checkpoint.WEIGHTS))
    assert names == {f"model.predictor.{name}" for name, _ in made.predictor.named_parameters()}
    loaded = checkpoint.load_checkpoint(tmp_path).model
    frames = np.random.default_rng(0).integers(0, 256, (6, PIXELS, PIXELS, 3), dtype=np.uint8)
    latents = made.encode(frames).unflatten(0, (2, 3))
    torch.testing.assert_close(loaded.encode(frames).unflatten(0, (2, 3)), latents)
    _, states, actions = window()
    torch.testing.assert_close(loaded.predict(latents, states, actions), made.predict(latents, states, actions))


def test_an_encoder_with_another_sha256_than_in_training_is_refused(tmp_path):
    from_directory(tmp_path)
    with pytest.raises(InputError, match="encoder: .* SHA-256 0, found [0-9a-f]{16}$"):
        checkpoint.build_model(config(), tmp_path)


def test_frames_are_normalised_by_the_configured_mean_and_std():
    made = model()
    frames = np.random.default_rng(0).integers(0, 256, (4, PIXELS, PIXELS, 3), dtype=np.uint8)
    latents = made.encode(frames)
    assert latents.shape == (4, *made.latent_shape) and latents.dtype == torch.float32
    images = torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1.0
    torch.testing.assert_close(latents, made.encoder(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_short_training_beats_the_persistence_baseline(recipe):
    """A pattern of waves drifts over the patches by the action; the loss is over predictions of predictions too."""
    torch.manual_seed(0)
    made = PatchWorldModel(Patches(), config(*RECIPES[recipe], states=2, depth=1)).train()
    optimiser = torch.optim.AdamW(made.predictor.parameters(), lr=5e-3)
    rng = torch.Generator().manual_seed(4)
    for _ in range(90):
        latents, states, actions = drifting(rng)
        taught, taught_states = made.predict(latents[:, :3], states[:, :3], actions[:, :3])
        rolled, rolled_states = made.rollout(Context(latents[:, :3], states[:, :3], actions[:, :2]), actions[:, 2:])
        loss = F.mse_loss(taught, latents[:, 1:4]) + F.mse_loss(rolled, latents[:, 3:])
        loss = loss + F.mse_loss(taught_states, states[:, 1:4]) + F.mse_loss(rolled_states, states[:, 3:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    made.eval()
    with torch.no_grad():
        latents, states, actions = drifting(rng, situations=256)
        rolled, rolled_states = made.rollout(Context(latents[:, :3], states[:, :3], actions[:, :2]), actions[:, 2:])
        shuffled, _ = made.rollout(Context(latents[:, :3], states[:, :3], actions[:, :2]), actions[:, 2:].roll(1, 0))
    persistence = F.mse_loss(latents[:, 2:3].expand(-1, 2, -1, -1), latents[:, 3:])
    assert F.mse_loss(rolled, latents[:, 3:]) < 0.8 * persistence
    assert F.mse_loss(shuffled, latents[:, 3:]) > 1.5 * F.mse_loss(rolled, latents[:, 3:])
    assert F.mse_loss(rolled_states, states[:, 3:]) < 0.8 * F.mse_loss(states[:, 2:3].expand(-1, 2, -1), states[:, 3:])


def drifting(rng, situations=32):
    """Five frames (B, 5, N, D), the pattern's positions (B, 5, 2), and the four blocks (2 ticks of xy) between them."""
    actions = torch.rand(situations, 4, 2, 2, generator=rng) * 2 - 1
    start = torch.rand(situations, 1, 2, generator=rng) * 2 - 1
    positions = torch.cat([start, start + 0.5 * actions.sum(2).cumsum(1)], 1)
    patches = torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0))
    away = patches - positions.unsqueeze(2)
    angles = torch.cat([away * speed for speed in (0.5, 0.8, 1.2, 1.6)], -1)
    latents = F.layer_norm(torch.cat([angles.sin(), angles.cos()], -1), (WIDTH,))
    return latents, positions, actions.flatten(2)
