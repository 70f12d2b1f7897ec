"""V-JEPA's masked prediction equals its reference code (cc-vjepa2): encoder, predictor, and how much is hidden."""

import re
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from jepa_ros.training.pretraining.models import (
    LONG_RANGE,
    SHORT_RANGE,
    EncoderSizes,
    build_masked_predictor,
    tube_masks,
)

pytest.importorskip("transformers")
pytest.importorskip("vjepa2")

# The reference enters a context manager that torch has renamed, in every attention.
pytestmark = pytest.mark.filterwarnings("ignore:.*sdp_kernel.*:FutureWarning")

SIZES = EncoderSizes("vjepa", size=32, patch=8, frames=4, width=48, depth=2, heads=2)
RENAMED = (
    (r"patch_embed\.", "embeddings.patch_embeddings."),
    (r"predictor_embed\.", "embeddings.predictor_embeddings."),
    (r"(?:predictor_)?blocks\.(\d+)\.attn\.", r"layer.\1.attention."),
    (r"(?:predictor_)?blocks\.(\d+)\.", r"layer.\1."),
    (r"(?:predictor_)?norm\.", "layernorm."),
    (r"predictor_proj\.", "proj."),
)


@pytest.fixture(scope="module")
def reference():
    """Encoder and predictor with random weights. They ask timm for one function, which does nothing at a rate of 0."""
    names = ("timm", "timm.models", "timm.models.layers")
    held = {name: sys.modules.get(name) for name in names}
    stand_in = {name: types.ModuleType(name) for name in names}
    stand_in["timm.models.layers"].drop_path = lambda x, rate, training: x
    sys.modules.update(stand_in)
    try:
        from vjepa2.models.predictor import vit_predictor
        from vjepa2.models.vision_transformer import VisionTransformer
    finally:
        for name, module in held.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})
    torch.set_num_threads(1)
    torch.manual_seed(5)
    s = SIZES
    shape = {"img_size": (s.size, s.size), "patch_size": s.patch, "num_frames": s.frames, "use_rope": True}
    encoder = VisionTransformer(
        **shape, embed_dim=s.width, depth=s.depth, num_heads=s.heads, norm_layer=lambda d: nn.LayerNorm(d, eps=1e-6)
    )
    predictor = vit_predictor(
        **shape, embed_dim=s.width, predictor_embed_dim=s.predictor_width, depth=s.predictor_depth, num_heads=s.heads,
        use_mask_tokens=True, num_mask_tokens=2,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in [*encoder.parameters(), *predictor.parameters()]:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return encoder.eval(), predictor.eval()


def renamed(module):
    """The reference's tensors under transformers' names."""
    tensors = {}
    for key, value in module.state_dict().items():
        if key.startswith("mask_tokens"):
            continue
        name = next(re.sub(f"^{old}", new, key) for old, new in RENAMED if re.match(old, key))
        if ".qkv." in name:
            parts = zip(("query", "key", "value"), value.chunk(3), strict=True)
            tensors |= {name.replace(".qkv.", f".{part}."): third for part, third in parts}
        else:
            tensors[name] = value
    return tensors


@pytest.fixture
def ours(reference):
    encoder, predictor = reference
    model = build_masked_predictor(SIZES, 0).eval()
    model.encoder.load_state_dict(renamed(encoder), strict=True)
    tokens = {"embeddings.mask_tokens": torch.stack(list(predictor.mask_tokens))}
    model.predictor.load_state_dict(renamed(predictor) | tokens, strict=True)
    return model


def example(ours):
    clips = torch.randn(3, SIZES.frames, 3, SIZES.size, SIZES.size, generator=torch.Generator().manual_seed(1))
    masks = ours.draw_masks(3, np.random.default_rng(1))
    return clips, [(torch.from_numpy(m.context), torch.from_numpy(m.targets[:, 0])) for m in masks]


@torch.no_grad()
def test_encoder_and_predictor_equal_the_reference(reference, ours):
    encoder, predictor = reference
    clips, masks = example(ours)
    for kind, (seen, hidden) in enumerate(masks):
        wanted = encoder(clips.transpose(1, 2), seen)
        found = ours.encode_visible(ours.embed(clips), seen)
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
        predicted = predictor(wanted, seen, hidden, mask_index=kind)
        torch.testing.assert_close(ours.predict(found, seen, hidden, kind), predicted, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(
    "part, name", [("encoder", "layer.1.attention.key.weight"), ("predictor", "layer.0.mlp.fc1.bias")]
)
def test_one_changed_weight_is_detected(reference, ours, part, name):
    encoder, predictor = reference
    clips, masks = example(ours)
    getattr(ours, part).get_parameter(name).view(-1)[0] += 1.0
    seen, hidden = masks[0]
    wanted = predictor(encoder(clips.transpose(1, 2), seen), seen, hidden, mask_index=0)
    found = ours.predict(ours.encode_visible(ours.embed(clips), seen), seen, hidden, 0)
    assert (found - wanted).abs().max() > 1e-4


@pytest.mark.parametrize("blocks", [SHORT_RANGE, LONG_RANGE])
def test_mask_statistics_equal_the_reference(blocks):
    """Mean share of 14 x 14 patches, and the map of where."""
    from vjepa2.masks.multiseq_multiblock3d import _MaskGenerator

    torch.manual_seed(3)
    theirs = _MaskGenerator((224, 224), 2, (16, 16), 2, blocks.scale, (1.0, 1.0), blocks.aspect, blocks.count)
    rng = np.random.default_rng(3)
    maps = np.zeros((2, 196))
    for _ in range(1000):
        maps[0][theirs(1)[1][0].numpy()] += 1e-3
        maps[1][tube_masks(14, 1, blocks, 1, rng).targets[0, 0]] += 1e-3
    assert maps[1].mean() == pytest.approx(maps[0].mean(), abs=0.015)
    assert np.abs(maps[0] - maps[1]).max() < 0.09  # five deviations of the mean of a thousand draws
