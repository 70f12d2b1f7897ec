"""V-JEPA 2-AC's predictor: who sees whom."""

import pytest
import torch

from jepa_ros.world_model.protocol import frame_causal_mask
from jepa_ros.world_model.vjepa2_ac.predictor import BlockCausalPredictor

STEPS = 3


@pytest.fixture
def predictor():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    made = BlockCausalPredictor(latent_width=6, grid=2, width=24, depth=2, heads=2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def window():
    return torch.randn(1, STEPS, 4, 6), torch.randn(1, STEPS, 7), torch.randn(1, STEPS, 7)


@pytest.mark.parametrize("part", [0, 1, 2], ids=["latents", "actions", "states"])
def test_a_step_attends_to_itself_and_the_past_only(predictor, part):
    given = window()
    before = predictor(*given)
    changed = [x.clone() for x in given]
    changed[part][:, 1] += 1.0
    differs = (predictor(*changed) - before).abs().amax(dim=(0, 2, 3)) > 1e-5
    assert differs.tolist() == [False, True, True]


def test_a_single_step_is_predicted_as_in_a_longer_window(predictor):
    latents, actions, states = window()
    together = predictor(latents, actions, states)[:, :1]
    torch.testing.assert_close(predictor(latents[:, :1], actions[:, :1], states[:, :1]), together)


def test_predictions_depend_on_the_positions_of_patches(predictor):
    latents, actions, states = window()
    flipped = latents.flip(2)
    assert (predictor(flipped, actions, states).flip(2) - predictor(latents, actions, states)).abs().max() > 1e-3


def test_the_attention_mask_is_block_causal():
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert frame_causal_mask(2, 2).int().tolist() == expected


def test_only_used_weights_require_gradients(predictor):
    predictor(*window()).sum().backward()
    unused = {name for name, p in predictor.named_parameters() if not p.requires_grad}
    assert unused == {"extrinsics_encoder.weight", "extrinsics_encoder.bias"}
    assert all(p.grad is not None for p in predictor.parameters() if p.requires_grad)
