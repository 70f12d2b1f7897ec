"""Checkpoints of stable-worldmodel become ours, or one line says why not and nothing is left behind."""

import re

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from helpers.official_lewm import CONFIG, MODEL, SETTINGS, TRANSFORMERS_4, TRANSFORMERS_5, foreign, write
from jepa_ros.cli import app
from jepa_ros.errors import InputError
from jepa_ros.world_model import checkpoint
from jepa_ros.world_model.importers.lewm import import_lewm
from jepa_ros.world_model.protocol import Context


def outputs(model):
    rng = torch.Generator().manual_seed(3)
    frames = np.random.default_rng(1).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    latents = model.encode(frames).unflatten(0, (2, 4))
    context = Context(latents, torch.zeros(2, 4, 0), torch.randn(2, 3, 10, generator=rng))
    return latents, model.rollout(context, torch.randn(2, 6, 10, generator=rng))[0]


@pytest.mark.parametrize(
    ("wrap", "name"),
    [
        (lambda tensors: tensors, "weights.pt"),
        (lambda tensors: tensors, "model.safetensors"),
        (lambda tensors: {f"module.{k}": v for k, v in tensors.items()}, "weights.pth"),
        (lambda tensors: {f"world_model._orig_mod.{k}": v for k, v in tensors.items()}, "weights.pt"),
        (lambda tensors: {"model": tensors, "epoch": 3}, "weights.pt"),
        (
            lambda tensors: {
                "state_dict": {f"model.{k}": v for k, v in tensors.items()} | {"sigreg.t": torch.zeros(17)},
                "global_step": 7,
            },
            "last.ckpt",
        ),
    ],
    ids=["plain", "safetensors", "DistributedDataParallel", "compiled", "nested", "Lightning"],
)
@pytest.mark.parametrize("vit", [TRANSFORMERS_4, TRANSFORMERS_5], ids=["transformers 4", "transformers 5"])
def test_an_imported_model_computes_the_same(tmp_path, wrap, name, vit):
    source = write(tmp_path / "theirs", wrap(foreign(vit)), name=name)
    out = import_lewm(source, tmp_path / "ours", block=5, control_rate=20.0, name="small")
    loaded = checkpoint.load_checkpoint(out)
    measured = {"distance", "surprise"}
    assert loaded.config.model_dump(exclude=measured) == CONFIG.model_dump(exclude=measured)
    assert loaded.policy is None
    for ours, theirs in zip(outputs(loaded.model), outputs(MODEL), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_folder_with_one_weights_file_is_accepted_and_named_in_the_card(tmp_path):
    source = write(tmp_path / "theirs", foreign() | {"encoder.pooler.dense.weight": torch.zeros(24, 24)})
    out = import_lewm(source.parent, tmp_path / "made" / "ours", block=2, control_rate=15.0)
    config = checkpoint.load_checkpoint(out).config
    assert (config.name, config.block, config.action.dimension, config.step) == ("ours", 2, 5, 2 / 15)
    card = (out / "README.md").read_text()
    assert {"config.json", "model.safetensors", "README.md"} == {p.name for p in out.iterdir()}
    for fact in (
        "weights.pt",
        "16 x 16 pixels",
        "2 heads x 8",
        "10 numbers: 2 ticks x 5",
        "15 Hz",
        "actions with mean",
    ):
        assert fact in card
    # Nothing was measured, and nothing pretends to have been.
    assert config.distance.tolerance < 1e-300 and config.surprise.errors == ()


def test_without_settings_the_published_attention_heads_are_assumed(tmp_path):
    tensors = foreign()
    for layer in range(3):
        stem = f"predictor.transformer.layers.{layer}.attn"
        tensors[f"{stem}.to_qkv.weight"] = torch.zeros(3 * 128, 24)
        tensors[f"{stem}.to_out.0.weight"] = torch.zeros(24, 128)
    config = checkpoint.load_checkpoint(import_lewm(write(tmp_path / "a", tensors, None), tmp_path / "b")).config
    assert (config.predictor.heads, config.predictor.head_dim, config.predictor.dropout) == (2, 64, 0.1)


class Harmful:
    """Unpickling it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def without(key):
    tensors = foreign()
    del tensors[key]
    return tensors


BAD = {
    "not a model": (lambda: {"weight": torch.zeros(3)}, "expected one tensor predictor.pos_embedding, found none"),
    "two models": (
        lambda: {f"{m}.{k}": v for k, v in foreign().items() for m in "ab"},
        "expected one tensor predictor.pos_embedding, found 2",
    ),
    "bare tensor": (lambda: torch.zeros(3), "expected tensors by name, found an object of type Tensor"),
    "empty file": (lambda: {}, "expected tensors by name, found nothing"),
    "entries that are no tensors": (lambda: foreign() | {"epoch": 3}, "found an object of type int under 'epoch'"),
    "convolutional encoder": (
        lambda: foreign() | {"encoder.layer1.0.conv1.weight": torch.zeros(3)},
        "with a ViT, found one named encoder.layer1.0.conv1.weight",
    ),
    "no class token": (
        lambda: without("encoder.embeddings.cls_token"),
        "the tensor encoder.class_token is missing",
    ),
    "no position embeddings": (
        lambda: without("encoder.embeddings.position_embeddings"),
        "expected a tensor encoder.positions",
    ),
    "missing attention key": (
        lambda: without("encoder.encoder.layer.1.attention.attention.key.weight"),
        "expected query, key and value of one shape",
    ),
    "missing layer tensor": (
        lambda: without("predictor.transformer.layers.1.adaLN_modulation.1.bias"),
        "the tensor predictor.blocks.1.modulation.bias is missing",
    ),
    "unexpected layer": (
        lambda: foreign() | {"predictor.transformer.output_proj.weight": torch.zeros(2, 2)},
        "found one named predictor.transformer.output_proj.weight",
    ),
    "wrong shape": (
        lambda: foreign() | {"pred_proj.net.0.weight": torch.zeros(5, 24)},
        r"prediction_projector.layers.0.weight: expected shape \(26, 24\), found \(5, 24\)",
    ),
    "wrong number of dimensions": (
        lambda: foreign() | {"projector.net.3.weight": torch.zeros(5)},
        r"projector.layers.3.weight: expected 2 dimensions, found the shape \(5,\)",
    ),
    "temporal convolution kernel": (
        lambda: foreign() | {"action_encoder.patch_embed.weight": torch.zeros(7, 10, 3)},
        "expected a kernel of 1",
    ),
    "NaN": (
        lambda: foreign() | {"pred_proj.net.3.bias": torch.full((22,), torch.nan)},
        "prediction_projector.layers.3.bias: expected finite values",
    ),
    "history too long": (
        lambda: foreign() | {"predictor.pos_embedding": torch.zeros(1, 40, 22)},
        "history: expected less than or equal to 16, found 40",
    ),
}


def refuse(tmp_path, source, sentence, **options):
    with pytest.raises(InputError, match=sentence) as caught:
        import_lewm(source, tmp_path / "ours", **options)
    assert "\n" not in str(caught.value) and str(source.name) in str(caught.value)
    assert {p.name for p in tmp_path.iterdir()} <= {source.parent.name, source.name}


@pytest.mark.parametrize("what", BAD)
def test_another_checkpoint_is_refused(tmp_path, what):
    make, sentence = BAD[what]
    refuse(tmp_path, write(tmp_path / "theirs", make()), sentence)


@pytest.mark.parametrize("name", ["weights.pt", "model.safetensors"])
@pytest.mark.parametrize("part", [0, 0.02, 0.6, 0.999])
def test_a_truncated_file_is_refused(tmp_path, name, part):
    source = write(tmp_path / "theirs", foreign(), name=name)
    whole = source.read_bytes()
    source.write_bytes(whole[: int(part * len(whole))])
    refuse(tmp_path, source, "found one that cannot be read")


@pytest.mark.parametrize("content", [b"hello", b"PK\x03\x04" + bytes(100), bytes(range(256)), b"\x80\x05K\x01."])
def test_a_file_of_another_format_is_refused(tmp_path, content):
    source = tmp_path / "weights.pt"
    source.write_bytes(content)
    refuse(tmp_path, source, "expected (a file of tensors that torch.save wrote|tensors by name), found")


def test_no_code_in_a_pickle_is_run(tmp_path):
    source = write(tmp_path / "theirs", foreign() | {"extra": Harmful(tmp_path / "harm")})
    refuse(tmp_path, source, "found an object .*open.*, which is not unpickled")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"predictor": {"dim_head": "many"}}, "config.json: predictor.dim_head: expected a number as 64, found many"),
        ({"predictor": {"dim_head": 0}}, "config.json: predictor.dim_head: expected a number as 64, found 0"),
        ({"predictor": {"dim_head": 7}}, "expected predictor heads of 7 channels, found 16 in all"),
        ({"predictor": {"dim_head": 8, "dropout": 2}}, "predictor.causal.dropout: expected less than 1, found 2"),
        (SETTINGS | {"encoder": {"num_attention_heads": 5}}, "expected a width that 5 heads divide, found 24"),
    ],
)
def test_invalid_settings_are_refused(tmp_path, settings, sentence):
    source = write(tmp_path / "theirs", foreign(), settings)
    with pytest.raises(InputError, match=sentence):
        import_lewm(source, tmp_path / "ours")
    assert [p.name for p in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"block": 3}, "a number of ticks that divides 10 numbers, found 3"),
        ({"control_rate": 0.0}, "control_rate: expected greater than 0, found 0"),
    ],
)
def test_invalid_options_are_refused(tmp_path, options, sentence):
    refuse(tmp_path, write(tmp_path / "theirs", foreign()), sentence, **options)


def test_a_directory_with_files_is_not_changed(tmp_path):
    source = write(tmp_path / "theirs", foreign())
    with pytest.raises(InputError, match="expected a directory that is new or empty, found one with files in it"):
        import_lewm(source, tmp_path / "theirs")
    assert {p.name for p in source.parent.iterdir()} == {"weights.pt", "config.json"}


@pytest.mark.parametrize("files", [[], ["a.pt", "b.pt"]])
def test_a_folder_with_no_or_several_weights_files_is_refused(tmp_path, files):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=f"a directory with one, found {', '.join(files) or 'none'}"):
        import_lewm(tmp_path, tmp_path / "ours")


def test_the_command_prints_one_line(tmp_path):
    source = write(tmp_path / "theirs", foreign())
    made = CliRunner().invoke(app, ["import", "lewm", str(source), "--out", str(tmp_path / "ours")])
    assert made.exit_code == 0, made.output
    assert re.fullmatch(r"ours: family lewm, 16 px to 22 numbers, steps of 0.5 s, foreign, .*\n", made.output)
    missing = CliRunner().invoke(app, ["import", "lewm", str(tmp_path / "none.pt"), "--out", str(tmp_path / "other")])
    assert missing.exit_code == 2 and missing.output.count("\n") == 1 and "no such file" in missing.output
