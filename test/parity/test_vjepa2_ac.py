"""V-JEPA 2-AC equals its reference code (cc-vjepa2): predictor, roll-out, encoder, sizes, the official layout."""

import sys
import types

import pytest
import torch
from torch.overrides import TorchFunctionMode

from jepa_ros.world_model.block_causal_predictor import BlockCausalPredictor

pytest.importorskip("transformers")


def reference_code():
    """The reference's modules. They ask timm for one function, `drop_path`, which does nothing at a rate of 0."""
    names = ("timm", "timm.models", "timm.models.layers")
    held = {name: sys.modules.get(name) for name in names}
    stand_in = {name: types.ModuleType(name) for name in names}
    stand_in["timm.models.layers"].drop_path = lambda x, rate, training: x
    sys.modules.update(stand_in)
    try:
        predictor = pytest.importorskip("vjepa2.models.ac_predictor")
        encoder = pytest.importorskip("vjepa2.models.vision_transformer")
    finally:
        for name, module in held.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})
    return predictor, encoder


ac_predictor, vision_transformer = reference_code()

# The reference enters a context manager that torch has renamed, in every attention.
pytestmark = pytest.mark.filterwarnings("ignore:.*sdp_kernel.*:FutureWarning")

GRID, LATENT, WIDTH, HEADS = 3, 40, 48, 2


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(5)


class OnMeta(TorchFunctionMode):
    """Weights are made without memory; all other tensors as usual (the reference reads numbers from one)."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = {**(kwargs or {}), "device": "meta"} if function is torch.empty else kwargs or {}
        return function(*args, **kwargs)


def disturb(module):
    """Random weights everywhere: the first ones have biases of 0 and scales of 1, which would hide a missing one."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module.eval()


def small_reference(frames=16):
    reference = ac_predictor.vit_ac_predictor(
        img_size=(GRID * 16, GRID * 16), patch_size=16, num_frames=frames, tubelet_size=2, embed_dim=LATENT,
        predictor_embed_dim=WIDTH, depth=2, num_heads=HEADS,
    )  # fmt: skip
    return disturb(reference)


def ours_with(reference):
    ours = BlockCausalPredictor(LATENT, GRID, WIDTH, depth=2, heads=HEADS).eval()
    ours.load_state_dict(reference.state_dict(), strict=True)
    return ours


def window(steps, situations=2):
    latents = torch.randn(situations, steps, GRID * GRID, LATENT)
    return latents, torch.randn(situations, steps, 7), torch.randn(situations, steps, 7)


@pytest.mark.parametrize("steps", [1, 2, 5, 8])
def test_the_predictor_equals_the_reference(steps):
    reference = small_reference()
    latents, actions, states = window(steps)
    with torch.no_grad():
        expected = reference(latents.flatten(1, 2), actions, states).unflatten(1, (steps, -1))
        found = ours_with(reference)(latents, actions, states)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_one_changed_weight_of_the_predictor_is_seen():
    reference = small_reference()
    latents, actions, states = window(3)
    with torch.no_grad():
        expected = reference(latents.flatten(1, 2), actions, states).unflatten(1, (3, -1))
        for key in ("action_encoder.weight", "state_encoder.bias", "predictor_blocks.1.attn.qkv.weight"):
            ours = ours_with(reference)
            ours.get_parameter(key).view(-1)[0] += 1.0
            assert (ours(latents, actions, states) - expected).abs().max() > 1e-3, key


def test_gradients_of_the_predictor_equal_the_references():
    reference = small_reference().train()
    ours = ours_with(reference).train()
    latents, actions, states = window(2)
    reference(latents.flatten(1, 2), actions, states).square().mean().backward()
    ours(latents, actions, states).square().mean().backward()
    expected = dict(reference.named_parameters())
    for name, parameter in ours.named_parameters():
        if not name.startswith("extrinsics_encoder"):
            torch.testing.assert_close(parameter.grad, expected[name].grad, atol=1e-4, rtol=1e-3, msg=name)


def test_published_sizes_of_the_predictor():
    with OnMeta():
        # vjepa2/hub/backbones.py: _make_vjepa2_ac_model; 64 frames are the length of its mask.
        reference = ac_predictor.vit_ac_predictor(
            img_size=(256, 256), patch_size=16, num_frames=64, tubelet_size=2, embed_dim=1408
        )
        ours = BlockCausalPredictor(1408, 256 // 16)
    shapes = {key: tuple(value.shape) for key, value in ours.state_dict().items()}
    assert shapes == {key: tuple(value.shape) for key, value in reference.state_dict().items()}
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in reference.parameters())
    assert 300e6 < count < 310e6, count  # "a ~300M parameter transformer"
