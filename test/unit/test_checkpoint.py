"""Checkpoints: what is saved comes back, and what does not fit is named in one line."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import small_models
from jepa_ros.errors import InputError
from jepa_ros.robot.config import load_robot
from jepa_ros.world_model.checkpoint import WEIGHTS, build_reachability, check_robot, load_checkpoint, save_checkpoint
from jepa_ros.world_model.config import ProbeConfig, ReachabilityConfig, identify
from jepa_ros.world_model.heads import Probe

SOME = "model.predictor.input_projection.weight"


@pytest.fixture
def saved(tmp_path):
    config = small_models.config()
    save_checkpoint(tmp_path / "m", config, *small_models.fresh(config))
    return tmp_path / "m"


def refusal(directory):
    with pytest.raises(InputError) as error:
        load_checkpoint(directory)
    text = str(error.value)
    assert "\n" not in text and str(directory) in text, text
    assert ("expected" in text.lower() and "found" in text) or "tensor" in text, text
    return text


def change_tensors(directory, change):
    tensors = load_file(directory / WEIGHTS)
    change(tensors)
    save_file(tensors, directory / WEIGHTS)


def change_config(directory, change):
    values = json.loads((directory / "config.json").read_text())
    change(values)
    (directory / "config.json").write_text(json.dumps(values))


def test_a_checkpoint_is_loaded_bit_for_bit(saved):
    config = small_models.config()
    model, policy = small_models.fresh(config)
    found = load_checkpoint(saved)
    assert found.config == config and found.directory == saved.resolve()
    for module, again in ((model, found.model), (policy, found.policy)):
        assert not again.training and not any(p.requires_grad for p in again.parameters())
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[name]), name
    assert sorted(p.name for p in saved.iterdir()) == ["config.json", WEIGHTS]


def with_heads(directory):
    """The tiny model with a learned distance and two probes; what was saved."""
    sizes = ReachabilityConfig(width=16, embedding=4)
    probes = {n: Probe(n, torch.randn(5, k), 0.01 * k, (4,)) for n, k in (("tool", 3), ("puck", 2))}
    named = tuple(ProbeConfig(name=p.name, dimension=p.dimension, error_m=p.error) for p in probes.values())
    config = small_models.config(reachability=sizes, probes=named)
    reachability = build_reachability(config)
    save_checkpoint(directory, config, *small_models.fresh(config), reachability, probes)
    return reachability, probes


def test_heads_are_loaded_bit_for_bit(tmp_path):
    reachability, probes = with_heads(tmp_path / "m")
    found = load_checkpoint(tmp_path / "m")
    assert not found.reachability.training and not any(p.requires_grad for p in found.reachability.parameters())
    for name, tensor in reachability.state_dict().items():
        assert torch.equal(tensor, found.reachability.state_dict()[name]), name
    assert list(found.probes) == ["tool", "puck"]
    for name, probe in probes.items():
        again = found.probes[name]
        assert torch.equal(probe.weights, again.weights) and (probe.error, probe.name) == (again.error, again.name)
        assert again.read(torch.zeros(7, 2, 4)).shape == (7, 2, probe.dimension)


def test_a_checkpoint_from_before_heads_existed_keeps_its_id(saved):
    def old(values):
        del values["reachability"], values["probes"]

    change_config(saved, old)
    found = load_checkpoint(saved)
    assert found.reachability is None and found.probes == {}
    assert found.model_id == identify(saved)
    assert "reachability" not in (saved / "config.json").read_text()


def test_the_shipped_model_keeps_its_id():
    checkpoint = load_checkpoint("openarm_reach")
    assert checkpoint.model_id == identify(checkpoint.directory)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.pop("probe.puck"), "the tensor probe.puck is missing"),
        (lambda t: t.update({"probe.cup": torch.zeros(5, 3)}), "unexpected tensor probe.cup"),
        (lambda t: t.update({"probe.puck": torch.zeros(4, 2)}), "probe.puck: expected shape (5, 2), found (4, 2)"),
        (lambda t: t["probe.tool"].fill_(float("nan")), "probe.tool: expected finite values"),
        (lambda t: t.pop("reachability.haste.0.bias"), "the tensor reachability.haste.0.bias is missing"),
        (lambda t: t.update({"reachability.more": torch.zeros(1)}), "unexpected tensor reachability.more"),
        (lambda t: t["reachability.embed.0.bias"].fill_(float("inf")), "reachability.embed.0.bias: expected finite"),
    ],
)
def test_missing_surplus_and_misshapen_head_tensors_are_refused(tmp_path, change, words):
    with_heads(tmp_path / "m")
    change_tensors(tmp_path / "m", change)
    assert words in refusal(tmp_path / "m")


def test_heads_missing_from_the_configuration_are_refused(tmp_path):
    with_heads(tmp_path / "m")
    change_config(tmp_path / "m", lambda c: c.update(reachability=None))
    assert "unexpected tensor reachability." in refusal(tmp_path / "m")
    change_config(tmp_path / "m", lambda c: c.update(policy=None))
    assert "unexpected tensor policy." in refusal(tmp_path / "m")


def test_the_id_changes_with_one_weight_and_with_the_configuration(saved):
    before = load_checkpoint(saved).model_id
    assert load_checkpoint(saved).model_id == before and len(before) == 16
    change_tensors(saved, lambda tensors: tensors[SOME].view(-1)[0].add_(1e-3))
    one_weight = load_checkpoint(saved).model_id
    change_config(saved, lambda c: c["distance"].update(tolerance=0.06))
    assert len({before, one_weight, load_checkpoint(saved).model_id}) == 3


def test_saving_again_replaces_the_checkpoint(saved):
    config = small_models.config(name="other")
    save_checkpoint(saved, config, *small_models.fresh(config, seed=1))
    assert load_checkpoint(saved).config.name == "other"


def test_a_missing_directory_is_refused(tmp_path):
    assert "nothing of that name" in refusal(tmp_path / "none")


@pytest.mark.parametrize("file", ["config.json", WEIGHTS])
def test_a_missing_file_is_named(saved, file):
    (saved / file).unlink()
    assert ("config.json" if file == "config.json" else WEIGHTS) in refusal(saved)


@pytest.mark.parametrize("keep", [0, 4, 200, -10])
def test_truncated_weights_are_refused(saved, keep):
    path = saved / WEIGHTS
    path.write_bytes(path.read_bytes()[:keep])
    assert f"{path}: expected a safetensors file" in refusal(saved)


def test_a_pickle_in_place_of_safetensors_is_not_run(saved, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "run"), "w"))

    (saved / WEIGHTS).write_bytes(pickle.dumps(Bomb()))
    assert "expected a safetensors file" in refusal(saved)
    torch.save({"weights": torch.zeros(3)}, saved / WEIGHTS)
    assert "expected a safetensors file" in refusal(saved)
    assert not (tmp_path / "run").exists()


def test_a_tensor_of_another_shape_is_refused(saved):
    change_tensors(saved, lambda tensors: tensors.update({SOME: torch.zeros(3, 5)}))
    text = refusal(saved)
    assert SOME in text and "found (3, 5)" in text and "expected shape (16, " in text


def test_a_renamed_tensor_is_refused(saved):
    change_tensors(saved, lambda tensors: tensors.update({f"{SOME}s": tensors.pop(SOME)}))
    assert f"the tensor {SOME} is missing" in refusal(saved)


def test_an_unexpected_tensor_is_refused(saved):
    change_tensors(saved, lambda tensors: tensors.update({"policy.more": torch.zeros(1)}))
    assert "unexpected tensor policy.more" in refusal(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", [SOME, "policy.layers.0.bias"])
def test_a_weight_with_nan_or_inf_is_refused(saved, name, value):
    change_tensors(saved, lambda tensors: tensors[name].view(-1)[-1].fill_(value))
    assert f"{name}: expected finite values" in refusal(saved)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c: c.update(schema_version=1), ["schema_version", "2", "found 1"]),
        (lambda c: c.update(family="other"), ["family", "lewm", "found other"]),
        (lambda c: c.pop("block"), ["block", "expected a value"]),
        (lambda c: c.update(surplus=1), ["surplus", "no such field"]),
        (lambda c: c.update(latent_shape=["many"]), ["latent_shape.0", "found many"]),
        (lambda c: c["proprioception"].update(std=[1.0]), ["proprioception", "expected 4 values", "1"]),
        (lambda c: c["proprioception"].update(std=[1.0, 0.0, 1.0, 1.0]), ["proprioception", "positive"]),
        (lambda c: c["proprioception"].update(std=[1.0, 1.0, 1.0, float("nan")]), ["proprioception.std.3", "nan"]),
        (lambda c: c["distance"].update(tolerance=float("inf")), ["distance.tolerance", "inf"]),
        (lambda c: c.update(latent_shape=[6]), ["shape"]),
        (lambda c: c.update(probes=[{"name": "a b", "dimension": 3, "error_m": 0.1}]), ["probes", "letters", "a b"]),
        (lambda c: c.update(probes=[{"name": "a", "dimension": 1, "error_m": 0.1}] * 2), ["probes", "different names"]),
        (lambda c: c.update(reachability={"width": 0}), ["reachability.width", "found 0"]),
        (lambda c: c.update(family="dino_wm"), ["family dino_wm", "transformers", "found conv and causal"]),
    ],
)
def test_an_invalid_configuration_is_refused_with_the_field(saved, change, words):
    change_config(saved, change)
    text = refusal(saved)
    assert all(word in text for word in words), text


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe\x00", b"null"])
def test_a_configuration_that_is_not_a_json_object(saved, content):
    (saved / "config.json").write_bytes(content)
    assert "config.json" in refusal(saved)


ROBOT = load_robot("openarm")


@pytest.mark.parametrize(
    "config, words",
    [
        (small_models.config(ROBOT.joints[:6]), ["joints", "joint6", "joint7"]),
        (small_models.config(ROBOT.joints[::-1]), ["joints"]),
        (
            small_models.config(ROBOT.joints, action={"name": "planar_velocity", "dimension": 2, "max_speed": 0.5}),
            ["action space", "0.5 m/s", "0.2 m/s"],
        ),
    ],
)
def test_a_model_for_another_arm_is_refused(config, words):
    with pytest.raises(InputError) as error:
        check_robot(config, ROBOT)
    text = str(error.value)
    assert "\n" not in text and text.startswith("model tiny: expected") and "openarm" in text
    assert all(word in text for word in words), text


def test_a_model_of_this_arm_is_accepted():
    check_robot(small_models.config(ROBOT.joints), ROBOT)
