"""`jepa_ros import vjepa2-ac`: a checkpoint that works, or one line and nothing left behind."""

import math

import pytest
import torch
from typer.testing import CliRunner

from helpers import official_vjepa2
from jepa_ros.cli import app
from jepa_ros.world_model import checkpoint
from jepa_ros.world_model.config import read_config

transformers = pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def command(path, out, *options):
    size = ("--size", str(official_vjepa2.SIZE))
    return CliRunner().invoke(app, ["import", "vjepa2-ac", str(path), "--out", str(out), *size, *options])


def refused(path, out, *options):
    before = sorted(out.parent.iterdir())
    done = command(path, out, *options)
    assert done.exit_code == 2, done.output
    assert len(done.stderr.splitlines()) == 1
    assert sorted(out.parent.iterdir()) == before
    return done.stderr


def test_the_official_file_layout_is_converted_to_a_checkpoint(tmp_path):
    done = command(official_vjepa2.write(tmp_path / "official.pt"), tmp_path / "model")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("model: family vjepa2_ac, 16 px to 4 x 64 numbers, steps of 0.25 s, pose_delta")
    config = read_config(tmp_path / "model")
    assert (config.predictor.width, config.predictor.depth, config.predictor.heads) == (64, 1, 1)
    assert (config.block, config.control_rate, config.history) == (1, 4.0, 2)
    assert (config.proprioception.kind, config.proprioception.dimension) == ("tool_pose", 7)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "README.md", "config.json", "encoder", "model.safetensors",
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "official.pt"]


def test_prefixes_of_tensor_names_do_not_matter(tmp_path):
    torch.manual_seed(2)
    plain = {"encoder": official_vjepa2.encoder(), "predictor": official_vjepa2.predictor()}
    for name, prefix in (("plain", ""), ("wrapped", "module.backbone.")):
        held = {part: {prefix + key: value for key, value in tensors.items()} for part, tensors in plain.items()}
        torch.save(held, tmp_path / f"{name}.pt")
        assert command(tmp_path / f"{name}.pt", tmp_path / name).exit_code == 0
    states = [checkpoint.load_checkpoint(tmp_path / name).model.state_dict() for name in ("plain", "wrapped")]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_missing_file_is_refused(tmp_path):
    assert "no such file" in refused(tmp_path / "none.pt", tmp_path / "model")


def test_a_truncated_file_is_refused(tmp_path):
    path = official_vjepa2.write(tmp_path / "official.pt")
    path.write_bytes(path.read_bytes()[:-2000])
    assert f"{path}: expected a file of tensors that torch.save wrote" in refused(path, tmp_path / "model")
    path.write_bytes(b"")
    refused(path, tmp_path / "model")


def test_pickled_objects_are_refused_and_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    torch.save({"encoder": Evil(), "predictor": {}}, tmp_path / "evil.pt")
    assert "which is not unpickled" in refused(tmp_path / "evil.pt", tmp_path / "model")
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize("held", [[1, 2], {}, {"state_dict": {}}, {"encoder": {}, "predictor": {}}, {"predictor": 3}])
def test_a_file_without_encoder_and_predictor_is_refused(held, tmp_path):
    torch.save(held, tmp_path / "foreign.pt")
    assert f"{tmp_path / 'foreign.pt'}: expected" in refused(tmp_path / "foreign.pt", tmp_path / "model")


@pytest.mark.parametrize(
    ("part", "key", "value", "reason"),
    [
        (
            "predictor",
            "predictor_blocks.0.attn.qkv.weight",
            torch.zeros(100, 64),
            "expected shape (192, 64), found (100",
        ),
        ("predictor", "predictor_norm.weight", None, "the tensor predictor_norm.weight is missing"),
        ("predictor", "mask_token", torch.zeros(1), "unexpected tensor mask_token"),
        ("predictor", "predictor_proj.bias", torch.full((64,), math.nan), "expected finite values, found NaN or Inf"),
        ("predictor", "action_encoder.weight", torch.zeros(64, 9), "expected actions of 7 numbers, found 9"),
        ("predictor", "predictor_embed.weight", torch.zeros(64, 32), "encoder of width 32 for its predictor, found 64"),
        ("predictor", "predictor_embed.weight", torch.zeros(60, 64), "expected a width that is a multiple of 64"),
        ("encoder", "blocks.0.norm1.bias", None, "the tensor encoder.layer.0.norm1.bias is missing"),
        ("encoder", "blocks.0.mlp.fc2.weight", torch.zeros(64, 9), "expected shape (64, 256), found (64, 9)"),
        ("encoder", "blocks.0.attn.qkv.bias", torch.zeros(100), "expected three parts of one size, found (100,)"),
        ("encoder", "norm.weight", torch.full((64,), math.inf), "expected finite values, found NaN or Inf"),
        ("encoder", "head.weight", torch.zeros(1), "found one named head.weight"),
    ],
)
def test_missing_and_misshapen_tensors_are_refused(part, key, value, reason, tmp_path):
    tensors = {"encoder": official_vjepa2.encoder, "predictor": official_vjepa2.predictor}[part]() | {key: value}
    path = official_vjepa2.write(
        tmp_path / "official.pt", **{part: {k: v for k, v in tensors.items() if v is not None}}
    )
    found = refused(path, tmp_path / "model")
    assert reason in found and str(path) in found


def test_an_encoder_of_another_kind_or_width_is_refused(tmp_path):
    path = official_vjepa2.write(tmp_path / "official.pt")
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    transformers.Dinov2Model(transformers.Dinov2Config(**sizes)).save_pretrained(tmp_path / "dinov2")
    found = refused(path, tmp_path / "model", "--encoder", str(tmp_path / "dinov2"))
    assert "expected a V-JEPA 2 encoder (model_type vjepa2), found dinov2" in found
    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "crop_size": 16, "patch_size": 8}
    config = transformers.VJEPA2Config(**small, pred_num_hidden_layers=0)
    transformers.VJEPA2Model(config).save_pretrained(tmp_path / "narrow")
    found = refused(path, tmp_path / "model", "--encoder", str(tmp_path / "narrow"))
    assert "expected an encoder of width 64 for its predictor, found 24" in found


def test_an_image_size_not_divisible_by_the_patch_size_is_refused(tmp_path):
    path = official_vjepa2.write(tmp_path / "official.pt")
    assert "a multiple of 8 px, found 20 px" in refused(path, tmp_path / "model", "--size", "20")


def test_a_directory_with_files_is_not_overwritten(tmp_path):
    path = official_vjepa2.write(tmp_path / "official.pt")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").touch()
    assert "expected a directory that is new or empty" in refused(path, tmp_path / "model")
