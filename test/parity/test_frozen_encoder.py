"""Features of frozen encoders equal those of transformers' own forward pass, for every kind that is known."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from jepa_ros.world_model.frozen_encoder import KINDS, load_frozen_encoder

transformers = pytest.importorskip("transformers")

SIZE = 48
SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = {
    "dinov2": lambda: transformers.Dinov2Config(**SMALL, image_size=56, patch_size=8),
    "dinov3_vit": lambda: transformers.DINOv3ViTConfig(
        **SMALL, intermediate_size=96, image_size=64, patch_size=8, num_register_tokens=4
    ),
    "ijepa": lambda: transformers.IJepaConfig(**SMALL, intermediate_size=96, image_size=64, patch_size=8),
    "vjepa2": lambda: transformers.VJEPA2Config(
        **SMALL, crop_size=SIZE, patch_size=8, frames_per_clip=4, pred_hidden_size=24, pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def write(kind, directory):
    """A small model of random weights (not only its first ones: biases and scales too), and its directory."""
    torch.manual_seed(3)
    model = getattr(transformers, KINDS[kind])(CONFIGS[kind]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(directory)
    return model


def reference(kind, model, images):
    """What the kind's own forward pass says of the images: patch tokens (B, tokens, width)."""
    with torch.no_grad():
        if kind == "vjepa2":
            twice = torch.stack([images, images], dim=1)
            return F.layer_norm(model(twice, skip_predictor=True).last_hidden_state, (48,))
        if kind == "ijepa":
            return model(images, interpolate_pos_encoding=True).last_hidden_state
        tokens = model(images).last_hidden_state
        return tokens[:, 1:] if kind == "dinov2" else tokens[:, 1 + 4 :]


@pytest.mark.parametrize("kind", KINDS)
def test_features_equal_the_transformers_forward_pass(kind, tmp_path):
    model = write(kind, tmp_path)
    encoder = load_frozen_encoder(tmp_path, SIZE)
    images = torch.randn(3, 3, SIZE, SIZE)
    features = encoder(images)
    assert features.shape == (3, encoder.tokens, encoder.width) == (3, 36, 48)
    torch.testing.assert_close(features, reference(kind, model, images), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_one_changed_weight_is_detected(kind, tmp_path):
    model = write(kind, tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    changed = next(
        key for key in sorted(tensors) if "layer" in key and key.endswith("weight") and tensors[key].ndim == 2
    )
    tensors[changed][0, 0] += 1.0
    save_file(tensors, path, metadata={"format": "pt"})
    images = torch.randn(3, 3, SIZE, SIZE)
    difference = (load_frozen_encoder(tmp_path, SIZE)(images) - reference(kind, model, images)).abs().max()
    assert difference > 1e-3


def test_half_precision_weights_are_used_in_single_precision(tmp_path):
    model = write("dinov2", tmp_path)
    model.half().save_pretrained(tmp_path)
    images = torch.randn(2, 3, SIZE, SIZE)
    features = load_frozen_encoder(tmp_path, SIZE)(images)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, reference("dinov2", model.float(), images), atol=1e-4, rtol=0)


def test_v_jepa_2_encodes_images_of_another_size_than_configured(tmp_path):
    model = write("vjepa2", tmp_path)
    config = model.config
    config.crop_size = 32
    other = transformers.VJEPA2Model(config).eval()
    other.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    features = load_frozen_encoder(tmp_path, 32)(images)
    assert features.shape == (2, 16, 48)
    torch.testing.assert_close(features, reference("vjepa2", other, images), atol=1e-4, rtol=0)
