"""Family dino_wm: sizes and shapes that fit, and those that are refused."""

import pytest
import torch

from helpers.small_dino_wm import TOKENS, WIDTH, Patches, config, model, window
from jepa_ros.errors import InputError
from jepa_ros.world_model.config import PatchPredictorConfig
from jepa_ros.world_model.dino_wm.model import PatchWorldModel
from jepa_ros.world_model.dino_wm.predictor import PatchPredictor


def size(conditioning, positions, tokens, history=3, actions=10, states=4, width=384) -> int:
    """Parameters of a predictor of published sizes for DINOv2-S's tokens, without memory for any."""
    published = PatchPredictorConfig(conditioning=conditioning, positions=positions)
    with torch.device("meta"):
        made = PatchPredictor(published, tokens=tokens, width=width, history=history, actions=actions, states=states)
    return sum(p.numel() for p in made.parameters())


def test_predictors_of_published_sizes_have_20_and_24_million_parameters():
    # DINO-WM (given as ~19 M; 19.4 M without positions and embeddings): 6 layers, 16 heads x 64, MLP 2048 on DINOv2-S's
    # 14 x 14 patches of 196 px or 16 x 16 of 224 px, with an action block of ten numbers.
    assert size("concat", "learned", 196, states=0) == 19_624_930
    assert size("concat", "learned", 256, states=0) == 19_695_850
    assert size("concat", "learned", 196) == 20_122_804  # ten numbers a token more, for four of proprioception
    assert size("adaln", "rope", 256) == 24_369_796  # modulation of every block; none for positions


@pytest.mark.parametrize("conditioning", ["concat", "adaln"])
def test_a_window_of_five_frames_of_256_tokens_is_supported(conditioning):
    made = PatchPredictor(
        PatchPredictorConfig(conditioning=conditioning, depth=1, heads=1, head_dim=12, mlp=8, positions="rope"),
        tokens=256, width=12, history=5, actions=2, states=0,
    )  # fmt: skip
    with torch.no_grad():
        latents, _ = made(torch.randn(1, 5, 256, 12), torch.empty(1, 5, 0), torch.randn(1, 5, 2))
    assert latents.shape == (1, 5, 256, 12) and latents.isfinite().all()


@pytest.mark.parametrize(
    "found, message",
    [
        ({"tokens": 4}, r"small: expected .*latent_shape \(9, 16\).* at 12 px, found one with \(4, 16\)"),
        ({"width": 8}, r"small: expected .*latent_shape \(9, 16\).* found one with \(9, 8\)"),
    ],
)
def test_an_encoder_with_another_token_shape_is_refused(found, message):
    with pytest.raises(InputError, match=message):
        PatchWorldModel(Patches(**found), config())


def test_a_flat_latent_is_refused():
    with pytest.raises(InputError, match=r"latent_shape \(16,\)"):
        PatchWorldModel(Patches(), config(latent_shape=(16,)))


@pytest.mark.parametrize(
    "changes, tokens, message",
    [
        ({"head_dim": 7}, TOKENS, "head_dim: expected an even number of at least 6 for rope, found 7"),
        ({"head_dim": 4}, TOKENS, "head_dim: expected an even number of at least 6 for rope, found 4"),
        ({}, 10, "rope: expected tokens of a square grid, found 10"),
        ({"conditioning": "concat", "state_width": 0}, TOKENS, "state_width: expected at least 1 for 3 .* found 0"),
    ],
)
def test_inconsistent_sizes_are_refused(changes, tokens, message):
    with pytest.raises(InputError, match=message):
        PatchWorldModel(Patches(tokens=tokens), config(latent_shape=(tokens, WIDTH), **changes))


@pytest.mark.parametrize(
    "what, change, message",
    [
        (0, lambda x: x[..., :8], r"latents: expected \(2, 3, 9, 16\), found \(2, 3, 9, 8\)"),
        (0, lambda x: x[:, :, :4], r"latents: expected \(2, 3, 9, 16\), found \(2, 3, 4, 16\)"),
        (1, lambda x: x[..., :2], r"states: expected \(2, 3, 3\), found \(2, 3, 2\)"),
        (2, lambda x: x[:, :2], r"actions: expected \(2, 3, 4\), found \(2, 2, 4\)"),
    ],
)
def test_inputs_of_other_shapes_are_refused(what, change, message):
    given = window()
    given[what] = change(given[what])
    with pytest.raises(InputError, match=message):
        model().predict(*given)


def test_more_steps_than_the_history_are_refused():
    with pytest.raises(InputError, match="expected 1 to 3 steps, found 4"):
        model().predict(*window(steps=4))
