"""What pre-training writes, and the command: encoders that load elsewhere, reports, a line for what cannot be done."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import IJepaModel, VJEPA2Model

from helpers.pretraining_models import OPTIONS, VIDEO, both, make_clips, trainer
from helpers.video_bags import COMPRESSED, PERIOD, times, video, wander, write_video
from jepa_ros.errors import InputError
from jepa_ros.training.pretraining.models import build_masked_predictor, save_encoder
from jepa_ros.training.pretraining.run import component_images, mask_images, pretrain
from jepa_ros.world_model.frozen_encoder import load_frozen_encoder, weights_digest

# What is written.


@both
def test_the_encoder_loads_in_transformers_and_as_a_frozen_encoder(sizes, tmp_path):
    made = trainer(sizes)
    made.step()
    save_encoder(made.model, tmp_path / "encoder")
    clips = make_clips(2, 2)
    kind = VJEPA2Model if sizes.method == "vjepa" else IJepaModel
    model, info = kind.from_pretrained(tmp_path / "encoder", local_files_only=True, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    frozen = load_frozen_encoder(tmp_path / "encoder", 16)
    assert (frozen.tokens, frozen.width) == (16, 24)
    with torch.no_grad():
        wanted = made.model.features(clips)
        if sizes.method == "vjepa":
            found = model(pixel_values_videos=clips, skip_predictor=True).last_hidden_state
            still = F.layer_norm(made.model.features(clips[:, :1].expand(-1, 2, -1, -1, -1)), (24,))
            weights = load_file(tmp_path / "encoder" / "model.safetensors")
            trained = made.model.predictor.state_dict()
            assert all(torch.equal(weights[f"predictor.{name}"], value) for name, value in trained.items())
        else:
            found, still = model(pixel_values=clips[:, 0]).last_hidden_state, wanted
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(frozen(clips[:, 0]), still, atol=1e-5, rtol=0)
    assert not torch.equal(wanted, made.model.features(make_clips(2, 2).flip(-1)))
    prepared = json.loads((tmp_path / "encoder" / "preprocessor_config.json").read_text())
    assert prepared["size"] == {"height": 16, "width": 16} and prepared["image_mean"] == [0.485, 0.456, 0.406]


def test_an_existing_encoder_is_replaced_completely(tmp_path):
    save_encoder(build_masked_predictor(VIDEO, 0), tmp_path / "encoder")
    first = weights_digest(tmp_path / "encoder")
    (tmp_path / "encoder" / "left_over").touch()
    save_encoder(build_masked_predictor(VIDEO, 1), tmp_path / "encoder")
    assert [p.name for p in tmp_path.iterdir()] == ["encoder"]
    assert weights_digest(tmp_path / "encoder") != first
    assert not (tmp_path / "encoder" / "left_over").exists()


def test_mask_images_hide_the_masked_patches():
    clip = np.full((4, 16, 16, 3), 200, np.uint8)
    model = build_masked_predictor(VIDEO, 0)
    masks = model.draw_masks(2, np.random.default_rng(0))[1]
    shown = mask_images(clip, masks, 1, 4)
    assert len(shown) == 2 and np.array_equal(shown[0], shown[1])
    seen = (shown[0][::4, ::4, 0] == 200).sum()
    assert seen == masks.context.shape[1] // 2
    colours = component_images(model, np.stack([wander(4, 1), wander(4, 2)]))
    assert [c.shape for c in colours] == [(16, 16, 3)] * 2 and np.ptp(colours[0]) > 100


# The command.


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    frames = video(wander(24, 1), times(24)) + video(wander(24, 2), times(24, 100 * PERIOD))
    return write_video(tmp_path_factory.mktemp("bags") / "b", {"/image/compressed": (COMPRESSED, frames)})


@pytest.mark.parametrize("method", ["vjepa", "ijepa"])
def test_pretraining_on_a_bag_writes_an_encoder_and_a_report(bag, tmp_path, method):
    out = tmp_path / "out"
    assert pretrain(bags=[bag], out=out, method=method, **OPTIONS) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["stopped"] is None and summary["frames"]["train"] + summary["frames"]["held_out"] == 48
    assert summary["encoder"] == {"directory": "encoder", "sha256": weights_digest(out / "encoder")}
    assert summary["validation"]["update"] == 6 and 0 <= summary["loader_share"] < 1
    page = (out / "report.html").read_text()
    assert "Effective rank" in page and "Masks" in page and page.count("<img") >= 6
    assert load_frozen_encoder(out / "encoder", 16).tokens == 16
    # A second call has nothing left to train, and writes the same encoder.
    assert pretrain(bags=[bag], out=out, method=method, **OPTIONS) == 0
    assert json.loads((out / "summary.json").read_text())["encoder"] == summary["encoder"]
    with pytest.raises(InputError, match=r"holds a run with other options \(schedule\)"):
        pretrain(bags=[bag], out=out, method=method, **OPTIONS | {"batch": 5})


def test_several_bags_are_combined(bag, tmp_path):
    other = write_video(tmp_path / "o", {"/image/compressed": (COMPRESSED, video(wander(10, 3), times(10)))})
    pretrain(bags=[bag, other], out=tmp_path / "out", **OPTIONS | {"updates": 1})
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["frames"]["stretches"] == 3


def test_a_collapsed_run_writes_no_encoder(bag, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jepa_ros.training.pretraining.loop.MIN_SPREAD", 2.0)  # more than any features have
    assert pretrain(bags=[bag], out=tmp_path, **OPTIONS | {"updates": 20}) == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["stopped"].startswith("stopped at update 2: the features have collapsed: the spread")
    assert summary["encoder"] is None and not (tmp_path / "encoder").exists()
    assert summary["stopped"] in capsys.readouterr().err
    assert "No encoder was written" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    "options, found",
    [
        ({"size": 18}, r"--size 18: must be a multiple of --patch \(4 px\)"),
        ({"size": 12}, "--size 12: must be at least 4 patches of 4 px a side"),
        ({"frames": 3}, "--frames 3: must be a multiple of 2, the frames of a tubelet"),
        ({"width": 26}, r"--width 26: must be a multiple of four times --heads \(3\)"),
        ({"method": "mae"}, "--method mae: must be vjepa or ijepa"),
        ({"topic": ("front",)}, "expected the image topic front, found /image/compressed"),
        ({"frames": 26}, "two clips of 26 frames, 1 apart, .* the longest run has 24 frames"),
        ({"frames": 4, "stride": 9}, "need two runs of 28 frames .* the longest run has 24 frames"),
        ({"learning_rate": 1e30}, "pre-training diverged at update .*: the loss is nan; a lower --learning-rate"),
    ],
)
def test_invalid_options_are_refused_in_one_line(bag, tmp_path, options, found):
    with pytest.raises(InputError, match=found) as refused:
        pretrain(bags=[bag], out=tmp_path / "out", **OPTIONS | options)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out" / "encoder").exists() and not (tmp_path / "out" / "summary.json").exists()
