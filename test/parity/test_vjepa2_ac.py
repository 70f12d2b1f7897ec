"""V-JEPA 2-AC equals its reference code (cc-vjepa2): predictor, roll-out, encoder, sizes, the official layout."""

import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation
from torch.overrides import TorchFunctionMode

from jepa_ros.world_model import checkpoint
from jepa_ros.world_model.importers.vjepa2_ac import encoder_settings, import_vjepa2_ac, rename_encoder
from jepa_ros.world_model.protocol import Context
from jepa_ros.world_model.vjepa2_ac.predictor import BlockCausalPredictor

transformers = pytest.importorskip("transformers")


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
# Of the files in the official layout: heads have 64 numbers, as the published models' do.
SIZE, PATCH, ENCODER_WIDTH, PREDICTOR_WIDTH = 32, 16, 128, 64


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


def test_one_changed_weight_of_the_predictor_is_detected():
    reference = small_reference()
    latents, actions, states = window(3)
    with torch.no_grad():
        expected = reference(latents.flatten(1, 2), actions, states).unflatten(1, (3, -1))
        for key in ("action_encoder.weight", "state_encoder.bias", "predictor_blocks.1.attn.qkv.weight"):
            ours = ours_with(reference)
            ours.get_parameter(key).view(-1)[0] += 1.0
            assert (ours(latents, actions, states) - expected).abs().max() > 1e-3, key


def test_gradients_of_the_predictor_equal_the_reference():
    reference = small_reference().train()
    ours = ours_with(reference).train()
    latents, actions, states = window(2)
    reference(latents.flatten(1, 2), actions, states).square().mean().backward()
    ours(latents, actions, states).square().mean().backward()
    expected = dict(reference.named_parameters())
    for name, parameter in ours.named_parameters():
        if not name.startswith("extrinsics_encoder"):
            torch.testing.assert_close(parameter.grad, expected[name].grad, atol=1e-4, rtol=1e-3, msg=name)


def test_the_published_predictor_size_equals_the_reference():
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


# ---------------------------------------------------------------------------------------- the official layout


def official_encoder():
    """The reference's V-JEPA 2 encoder as its hub makes it, but small."""
    return vision_transformer.VisionTransformer(
        img_size=(SIZE, SIZE), patch_size=PATCH, num_frames=16, tubelet_size=2, embed_dim=ENCODER_WIDTH, depth=2,
        num_heads=2, mlp_ratio=48 / 11, norm_layer=lambda width: torch.nn.LayerNorm(width, eps=1e-6), use_rope=True,
    )  # fmt: skip


def official_predictor():
    return ac_predictor.vit_ac_predictor(
        img_size=(SIZE, SIZE), patch_size=PATCH, num_frames=16, tubelet_size=2, embed_dim=ENCODER_WIDTH,
        predictor_embed_dim=PREDICTOR_WIDTH, depth=2, num_heads=1,
    )  # fmt: skip


def write_official(path, encoder, predictor):
    """A file with the keys of vjepa2-ac-vitg.pt."""
    encoder_state = {f"module.backbone.{key}": value for key, value in encoder.state_dict().items()}
    encoder_state["module.backbone.pos_embed"] = torch.zeros(1, 4, ENCODER_WIDTH)
    predictor_state = {f"module.{key}": value for key, value in predictor.state_dict().items()}
    held = {"encoder": encoder_state, "predictor": predictor_state, "opt": {"state": {}}, "scaler": None, "epoch": 315}
    torch.save(held, path)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The reference's encoder and predictor, and the model that our import makes of their file."""
    torch.set_num_threads(1)
    torch.manual_seed(11)
    encoder, predictor = disturb(official_encoder()), disturb(official_predictor())
    folder = tmp_path_factory.mktemp("official")
    write_official(folder / "official.pt", encoder, predictor)
    import_vjepa2_ac(folder / "official.pt", folder / "ours", size=SIZE)
    return encoder, predictor, folder / "ours"


def reference_encode(encoder, frames):
    """WorldModel.encode of the official notebooks/utils/world_model_wrapper.py, after its colours are normalised."""
    images = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    images = (images - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )
    features = encoder(images.unsqueeze(2).repeat(1, 1, 2, 1, 1))
    return F.layer_norm(features, (features.size(-1),))


def reference_move(pose, action):
    """compute_new_pose of the official notebooks/utils/mpc_utils.py, with scipy: pose and action (B, 7)."""
    turned = Rotation.from_euler("xyz", action[:, 3:6]) * Rotation.from_euler("xyz", pose[:, 3:6])
    opening = np.clip(pose[:, 6:] + action[:, 6:], 0, 1)
    moved = np.concatenate([pose[:, :3] + action[:, :3], turned.as_euler("xyz"), opening], axis=1)
    return torch.from_numpy(moved).float()


def situation(seed, situations=3, steps=2):
    generator = np.random.default_rng(seed)
    frames = generator.integers(0, 256, (situations, SIZE, SIZE, 3), dtype=np.uint8)
    states = torch.from_numpy(generator.uniform(-1, 1, (situations, 1, 7))).float()
    actions = torch.from_numpy(generator.uniform(-0.5, 0.5, (situations, steps, 7))).float()
    return frames, states, actions


def test_an_imported_encoder_equals_the_reference(imported):
    encoder, _, directory = imported
    frames, _, _ = situation(1)
    with torch.no_grad():
        expected = reference_encode(encoder, frames)
        found = checkpoint.load_checkpoint(directory).model.encode(frames)
    assert found.shape == (3, 4, ENCODER_WIDTH)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_rollouts_of_an_imported_model_equal_the_reference(imported):
    """From one observed frame, two actions: the official planning's roll-out."""
    encoder, predictor, directory = imported
    model = checkpoint.load_checkpoint(directory).model
    frames, states, actions = situation(2)
    with torch.no_grad():
        latents = model.encode(frames)[:, None]
        found, moved = model.rollout(Context(latents, states, actions[:, :0]), actions)
        frames_so_far, poses = reference_encode(encoder, frames), states
        for step in range(actions.shape[1]):
            predicted = predictor(frames_so_far, actions[:, : step + 1], poses)[:, -4:]
            predicted = F.layer_norm(predicted, (ENCODER_WIDTH,))
            pose = reference_move(poses[:, -1].numpy(), actions[:, step].numpy())
            torch.testing.assert_close(found[:, step], predicted, atol=1e-4, rtol=0)
            torch.testing.assert_close(moved[:, step], pose, atol=1e-4, rtol=0)
            frames_so_far, poses = torch.cat([frames_so_far, predicted], 1), torch.cat([poses, pose[:, None]], 1)


@pytest.mark.parametrize("part", ["encoder", "predictor"])
def test_one_changed_weight_of_the_official_file_is_detected(part, imported, tmp_path):
    encoder, predictor, directory = imported
    changed = {"encoder": encoder, "predictor": predictor}[part]
    weight = next(module for name, module in changed.named_modules() if name.endswith("blocks.1.mlp.fc1")).weight
    with torch.no_grad():
        weight[0, 0] += 1.0
        try:
            write_official(tmp_path / "changed.pt", encoder, predictor)
        finally:
            weight[0, 0] -= 1.0
    import_vjepa2_ac(tmp_path / "changed.pt", tmp_path / "ours", size=SIZE)
    frames, states, actions = situation(3)
    imagined = []
    for model in (checkpoint.load_checkpoint(place).model for place in (directory, tmp_path / "ours")):
        with torch.no_grad():
            imagined.append(model.predict(model.encode(frames)[:, None], states, actions[:, :1])[0])
    assert (imagined[0] - imagined[1]).abs().max() > 1e-3


def test_an_encoder_in_transformers_format_can_replace_the_official_one(imported, tmp_path):
    encoder, predictor, directory = imported
    write_official(tmp_path / "official.pt", encoder, predictor)
    import_vjepa2_ac(tmp_path / "official.pt", tmp_path / "ours", encoder=directory / "encoder", size=SIZE)
    assert not (tmp_path / "ours" / "encoder").exists()
    frames, _, _ = situation(4)
    found, expected = (
        checkpoint.load_checkpoint(place).model.encode(frames) for place in (tmp_path / "ours", directory)
    )
    assert torch.equal(found, expected)


def test_the_published_encoder_size_equals_the_reference(tmp_path):
    """ViT-g of the official hub, as our import would write it: 40 layers, 22 heads, 1408 wide, MLP 6144."""
    with OnMeta():
        reference = vision_transformer.vit_giant_xformers(
            img_size=(256, 256), patch_size=16, num_frames=64, tubelet_size=2, use_rope=True
        )
    with torch.device("meta"):
        renamed = rename_encoder(tmp_path, {key: value for key, value in reference.state_dict().items()})
        settings = encoder_settings(tmp_path, renamed, 256)
        ours = transformers.VJEPA2Model(transformers.VJEPA2Config(**settings)).encoder
    assert {f"encoder.{key}": value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in renamed.items()
    }
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in reference.parameters())
    assert 1.00e9 < count < 1.02e9, count
    assert settings["num_attention_heads"] == reference.num_heads == 22
