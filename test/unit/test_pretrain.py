"""Pre-training: hidden patches come to be predicted, interrupted runs go on exactly, encoders load elsewhere."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import IJepaModel, VJEPA2Model
from video_bench import COMPRESSED, PERIOD, times, video, wander, write_video

from jepa_ros.bags.clips import Stretch
from jepa_ros.errors import InputError
from jepa_ros.training import pretrain
from jepa_ros.training.pretrain_data import PIECE, Clips, Crops, cropped, divide, normalised
from jepa_ros.training.pretrain_health import PATIENCE, collapse, effective_rank, feature_health
from jepa_ros.training.pretrain_loop import Pretrainer, Schedule, learning_rate_factor
from jepa_ros.training.pretrain_models import Sizes, build, save_encoder, sine_cosine, taken
from jepa_ros.training.pretrain_report import component_pictures, mask_pictures
from jepa_ros.world_model.frozen_encoder import load_frozen_encoder, weights_digest

torch.set_num_threads(1)

VIDEO = Sizes("vjepa", size=16, patch=4, frames=4, width=24, depth=2, heads=3)
IMAGE = replace(VIDEO, method="ijepa", frames=1)
SCHEDULE = Schedule(updates=12, batch=4, warm_up=3, every=4, momentum=0.9)
OPTIONS = {
    "size": 16,
    "patch": 4,
    "frames": 4,
    "width": 24,
    "depth": 2,
    "updates": 6,
    "batch": 4,
    "topic": ("image",),
}
both = pytest.mark.parametrize("sizes", [VIDEO, IMAGE], ids=["vjepa", "ijepa"])


def stretches(count=4, length=20):
    return [Stretch(wander(length, seed=k), np.arange(length) * 0.05, f"{k}") for k in range(count)]


def trainer(sizes, seed=0, schedule=SCHEDULE, weights=0):
    train, held = divide(stretches(), sizes.frames, 1, np.random.default_rng(0))
    clips = (Clips(part, sizes.frames, 1) for part in (train, held))
    return Pretrainer(build(sizes, weights), *clips, schedule, seed)


def pictures(count=3, frames=4):
    return normalised(np.stack([wander(frames, seed=90 + k) for k in range(count)]))


# What the models compute.


@both
def test_an_encoder_that_sees_all_is_the_transformers_one(sizes):
    model, clips = build(sizes, 0), pictures(frames=sizes.frames)
    everything = torch.arange(sizes.grid**2 * max(1, sizes.frames // 2)).expand(3, -1)
    seen = model.encode_visible(model.embed(clips), everything)
    torch.testing.assert_close(seen, model.features(clips), atol=1e-5, rtol=0)
    shuffled = everything[:, torch.randperm(everything.shape[1], generator=torch.Generator().manual_seed(0))]
    torch.testing.assert_close(
        model.encode_visible(model.embed(clips), shuffled), taken(seen, shuffled), atol=1e-5, rtol=0
    )


@both
def test_hidden_patches_do_not_reach_the_encoder(sizes):
    model, clips = build(sizes, 0), pictures(frames=sizes.frames)
    (masks, *_) = model.draw_masks(3, np.random.default_rng(0))
    index = torch.from_numpy(masks.context)
    embedded = model.embed(clips)
    hidden = torch.ones(embedded.shape[:2], dtype=torch.bool).scatter(1, index, False)
    changed = torch.where(hidden[..., None], embedded + 7.0, embedded)
    assert hidden.any() and torch.equal(model.encode_visible(embedded, index), model.encode_visible(changed, index))


def test_predictions_are_those_of_the_transformers_predictor():
    """Which puts its tokens in order, and always takes its second mask token."""
    model, clips = build(VIDEO, 0), pictures()
    with torch.no_grad():
        model.predictor.embeddings.mask_tokens[1].normal_(generator=torch.Generator().manual_seed(0))
    tokens = model.features(clips)
    (masks, *_) = model.draw_masks(3, np.random.default_rng(0))
    seen, hidden = torch.from_numpy(masks.context), torch.from_numpy(masks.targets[:, 0])
    found = model.predict(taken(tokens, seen), seen, hidden, 1)
    wanted = model.predictor(tokens, [seen], [hidden]).last_hidden_state
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert not torch.allclose(found, model.predict(taken(tokens, seen), seen, hidden, 0), atol=1e-3)


def test_groups_of_targets_are_predicted_apart():
    model, clips = build(IMAGE, 0), pictures(frames=1)
    (masks,) = model.draw_masks(3, np.random.default_rng(0))
    seen, hidden = torch.from_numpy(masks.context), torch.from_numpy(masks.targets)
    context = taken(model.features(clips), seen)
    whole = model.predictor(context, seen, hidden)
    assert whole.shape == (*hidden.shape, IMAGE.width)
    for group in range(4):
        alone = model.predictor(context, seen, hidden[:, group : group + 1])
        torch.testing.assert_close(whole[:, group : group + 1], alone, atol=1e-5, rtol=0)


def test_the_loss_is_l1_to_normalised_teacher_tokens():
    model, clips = build(VIDEO, 0).eval(), pictures()
    masks = model.draw_masks(3, np.random.default_rng(0))
    found = model.losses(clips, masks)
    for kind, (loss, mask) in enumerate(zip(found, masks, strict=True)):
        seen, hidden = torch.from_numpy(mask.context), torch.from_numpy(mask.targets[:, 0])
        predicted = model.predict(model.encode_visible(model.embed(clips), seen), seen, hidden, kind)
        tokens = model.teacher(clips).last_hidden_state
        tokens = (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
        wanted = (predicted - tokens.gather(1, hidden[..., None].expand(-1, -1, VIDEO.width))).abs().mean()
        torch.testing.assert_close(loss, wanted)


@both
def test_gradients_reach_encoder_and_predictor_and_never_the_teacher(sizes):
    model, clips = build(sizes, 0), pictures(frames=sizes.frames)
    if sizes is VIDEO:  # mask tokens begin as zeros, whose queries learn nothing in a predictor of one layer
        torch.nn.init.normal_(model.predictor.embeddings.mask_tokens)
    torch.stack(model.losses(clips, model.draw_masks(3, np.random.default_rng(0)))).mean().backward()
    for part in (model.encoder, model.predictor):
        for name, parameter in part.named_parameters():
            assert not parameter.requires_grad or parameter.grad.abs().max() > 0, name
    assert all(p.grad is None for p in model.teacher.parameters())


def test_the_teacher_is_the_moving_average_of_the_encoder():
    model = build(VIDEO, 0)
    before = {k: v.clone() for k, v in model.teacher.state_dict().items()}
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(1.0)
    model.follow(0.75)
    for name, value in model.teacher.state_dict().items():
        torch.testing.assert_close(value, before[name] + 0.25)


def test_positions_of_stills_tell_row_from_column():
    places = sine_cosine(4, 16)[0].unflatten(0, (4, 4))
    assert torch.equal(places[0, :, 8:], places[0, :1, 8:].expand(4, -1)), "the second half is the row"
    assert torch.equal(places[:, 0, :8], places[:1, 0, :8].expand(4, -1)), "the first half is the column"
    assert len(torch.unique(places.flatten(0, 1), dim=0)) == 16
    model = build(IMAGE, 0)
    assert torch.equal(model.encoder.embeddings.position_embeddings, sine_cosine(4, 24))
    assert not model.encoder.embeddings.position_embeddings.requires_grad


# Clips.


def test_clips_are_frames_at_their_stride_of_one_stretch():
    data = Clips(stretches(3, 10), 3, 2)
    assert len(data) == 3 * 6 and data.frames == 30
    clips = data.take(np.arange(len(data)))
    for number, clip in enumerate(clips):
        source, at = data.stretches[number // 6], number % 6
        np.testing.assert_array_equal(clip, source.frames[at : at + 5 : 2])
    assert len(data.spread(7)) == 7 and len(data.spread(100)) == 18
    assert data.draw(5, np.random.default_rng(0)).shape == (5, 3, 16, 16, 3)


def numbered(lengths):
    """Stretches whose frames are numbered, 0 on."""
    ids = np.arange(sum(lengths), dtype=np.uint8)
    frames = np.broadcast_to(ids[:, None, None, None], (len(ids), 4, 4, 3))
    edges = np.cumsum([0, *lengths])
    return [Stretch(frames[a:b], ids[a:b] * 0.1, "x") for a, b in zip(edges, edges[1:], strict=False)]


@pytest.mark.parametrize("lengths", [[20] * 10, [200], [9], [8, 3, 4], [4, 4]])
def test_no_frame_is_both_trained_on_and_held_out(lengths):
    train, held = divide(numbered(lengths), 4, 1, np.random.default_rng(0))
    seen, kept = ({int(i) for s in part for i in s.frames[:, 0, 0, 0]} for part in (train, held))
    assert seen and kept and not seen & kept
    assert len(seen | kept) == sum(n for n in lengths if n >= 4)
    if sum(lengths) == 200:
        assert len(kept) <= max(20, PIECE * 4)


def test_too_few_frames_are_refused():
    for lengths in ([3, 3], [7], []):
        found = "the longest stretch has"
        with pytest.raises(InputError, match=f"expected two clips of 4 frames, 1 apart, .* {found}"):
            divide(numbered(lengths), 4, 1, np.random.default_rng(0))


def test_a_crop_is_the_same_in_all_frames_of_a_clip_and_another_in_the_next():
    clips = pictures(1).expand(6, -1, -1, -1, -1)[:, :1].expand(-1, 4, -1, -1, -1)
    found = cropped(clips, Crops(), np.random.default_rng(0))
    assert torch.equal(found, found[:, :1].expand_as(found))
    assert len(torch.unique(found[:, 0].flatten(1), dim=0)) == 6
    assert found.min() >= clips.min() - 1e-4 and found.max() <= clips.max() + 1e-4
    whole = cropped(clips, Crops((1.0, 1.0), (1.0, 1.0)), np.random.default_rng(0))
    torch.testing.assert_close(whole, clips, atol=1e-4, rtol=0)


def test_a_crop_covers_the_share_that_is_asked_for():
    ramp = torch.arange(64.0).expand(1, 1, 3, 64, 64)
    found = cropped(ramp, Crops((0.25, 0.25), (1.0, 1.0)), np.random.default_rng(0))
    assert float(found.max() - found.min()) == pytest.approx(31.5, abs=0.6)  # half of the width


# The loop.


@pytest.fixture(scope="module", params=[VIDEO, IMAGE], ids=["vjepa", "ijepa"])
def whole(request, tmp_path_factory):
    """A run that was never interrupted, and its losses."""
    made, losses = trainer(request.param), []
    made.run(tmp_path_factory.mktemp("whole") / "state", losses.append)
    return made, losses


def test_an_interrupted_run_goes_on_with_the_same_losses(whole, tmp_path):
    class Interrupt(Exception):
        pass

    done, losses = whole
    seen, state, sizes = [], tmp_path / "state", done.model.sizes

    def note(values):
        seen.append(values)
        if values["update"] == 6:
            raise Interrupt

    with pytest.raises(Interrupt):
        trainer(sizes).run(state, note, save_every=0.0)
    second = trainer(sizes, weights=99)  # other weights: all must come from the file
    second.load(state)
    at = second.progress.update
    assert at == 5, "the last state that was saved"
    second.run(state, seen.append)
    assert seen[:at] + seen[at + 1 :] == losses
    assert second.progress.validation == done.progress.validation and second.progress.curve == done.progress.curve
    for name, tensor in done.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name


def test_validation_changes_nothing_that_is_trained(whole, tmp_path):
    done, losses = whole
    often, seen = trainer(done.model.sizes, schedule=replace(SCHEDULE, every=1)), []
    often.run(tmp_path / "state", seen.append)
    assert seen == losses and len(often.progress.validation) == 13


@both
def test_the_loss_falls_and_the_rank_stays(sizes, tmp_path):
    schedule = replace(SCHEDULE, updates=60, batch=8, warm_up=6, every=30, learning_rate=3e-3)
    made = trainer(sizes, schedule=schedule)
    made.run(tmp_path / "state", lambda values: None)
    first, *_, last = made.progress.validation
    assert last["loss"] < 0.8 * first["loss"]
    assert made.progress.stopped is None and last["effective_rank"] > 3


def test_another_seed_gives_other_losses():
    one, same, other = (trainer(VIDEO, seed).step()["loss"] for seed in (0, 0, 1))
    assert one == same != other


@both
def test_gains_and_offsets_do_not_decay(sizes):
    made = trainer(sizes)
    decay, rest = made.optimizer.param_groups
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.04, 0.0)
    names = {id(p): name for name, p in made.model.named_parameters() if p.requires_grad}
    assert {id(p) for p in decay["params"] + rest["params"]} == set(names)
    assert all(names[id(p)].endswith(("bias", "weight", "predictor.mask")) and p.ndim == 1 for p in rest["params"])
    assert any("norm" in names[id(p)] for p in rest["params"]) and not any(
        "norm" in names[id(p)] for p in decay["params"]
    )


def test_the_learning_rate_rises_and_falls():
    rates = [learning_rate_factor(u, 100, 10) for u in range(100)]
    assert rates[0] == 0.1 and rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and 0.01 <= rates[-1] < 0.012


def test_a_loss_that_is_no_number_is_said_with_its_update():
    made = trainer(VIDEO)
    with torch.no_grad():
        made.model.predictor.proj.bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="update 0: expected a finite loss, found nan"):
        made.step()


def test_features_that_are_all_alike_stop_the_run(tmp_path):
    made = trainer(VIDEO, schedule=replace(SCHEDULE, updates=40, every=2, learning_rate=1e-5))
    with torch.no_grad():
        for part in (made.model.encoder, made.model.teacher):
            part.layernorm.bias.copy_(torch.linspace(-100, 100, VIDEO.width))
    made.run(tmp_path / "state", lambda values: None)
    assert made.progress.update == 4, "the first validation is of update 0"
    assert "stopped at update 4: the features have collapsed: tokens differ" in made.progress.stopped
    again = trainer(VIDEO, schedule=made.schedule)
    again.load(tmp_path / "state")
    again.run(tmp_path / "state", lambda values: pytest.fail("it trained"))


def test_collapse_is_said_only_of_validations_in_a_row():
    good, flat = (
        {"update": 5, "spread": 0.5, "effective_rank": 9.0},
        {"update": 7, "spread": 0.5, "effective_rank": 1.2},
    )
    assert collapse([flat] * (PATIENCE - 1)) is None
    assert collapse([flat, good] * PATIENCE) is None
    sentence = collapse([good] + [flat] * PATIENCE)
    assert sentence.startswith("stopped at update 7: the features have collapsed: ")
    assert "effective rank is 1.2, expected 2 or more, in 3 validations in a row" in sentence


def test_health_counts_the_directions_that_are_used():
    rng = torch.Generator().manual_seed(0)
    rows = torch.zeros(400, 12)
    rows[:, :4] = torch.randn(400, 4, generator=rng)
    assert effective_rank(rows) == pytest.approx(4, abs=0.1)
    assert effective_rank(rows * 0 + 3.0) == pytest.approx(1, abs=0.01) or effective_rank(rows * 0 + 3.0) < 13
    health = feature_health(rows.view(10, 40, 12) + 0.0, steps=4)
    assert health["effective_rank"] == pytest.approx(4, abs=0.1)
    assert 2.5 < health["pooled_rank"] <= 4.1
    alike = feature_health(torch.randn(12, generator=rng).expand(10, 40, 12), steps=4)
    assert alike["spread"] < 1e-3 < 0.5 < health["spread"]
    partly = torch.randn(10, 40, 12, generator=rng)
    partly[..., :3] *= 1e-3
    assert feature_health(partly, 4)["dead_dimensions"] == 0.25


# What is written.


@both
def test_the_encoder_loads_in_transformers_and_in_the_families_that_freeze_one(sizes, tmp_path):
    made = trainer(sizes)
    made.step()
    save_encoder(made.model, tmp_path / "encoder")
    clips = pictures(2, 2)
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
    assert not torch.equal(wanted, made.model.features(pictures(2, 2).flip(-1)))
    prepared = json.loads((tmp_path / "encoder" / "preprocessor_config.json").read_text())
    assert prepared["size"] == {"height": 16, "width": 16} and prepared["image_mean"] == [0.485, 0.456, 0.406]


def test_an_encoder_that_is_there_is_replaced_whole(tmp_path):
    save_encoder(build(VIDEO, 0), tmp_path / "encoder")
    first = weights_digest(tmp_path / "encoder")
    (tmp_path / "encoder" / "left_over").touch()
    save_encoder(build(VIDEO, 1), tmp_path / "encoder")
    assert [p.name for p in tmp_path.iterdir()] == ["encoder"]
    assert weights_digest(tmp_path / "encoder") != first
    assert not (tmp_path / "encoder" / "left_over").exists()


def test_pictures_of_masks_hide_what_is_hidden():
    clip = np.full((4, 16, 16, 3), 200, np.uint8)
    model = build(VIDEO, 0)
    masks = model.draw_masks(2, np.random.default_rng(0))[1]
    shown = mask_pictures(clip, masks, 1, 4)
    assert len(shown) == 2 and np.array_equal(shown[0], shown[1])
    seen = (shown[0][::4, ::4, 0] == 200).sum()
    assert seen == masks.context.shape[1] // 2
    colours = component_pictures(model, np.stack([wander(4, 1), wander(4, 2)]))
    assert [c.shape for c in colours] == [(16, 16, 3)] * 2 and np.ptp(colours[0]) > 100


# The command.


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    frames = video(wander(24, 1), times(24)) + video(wander(24, 2), times(24, 100 * PERIOD))
    return write_video(tmp_path_factory.mktemp("bags") / "b", {"/image/compressed": (COMPRESSED, frames)})


@pytest.mark.parametrize("method", ["vjepa", "ijepa"])
def test_a_bag_becomes_an_encoder_with_its_report(bag, tmp_path, method):
    out = tmp_path / "out"
    assert pretrain.run(bags=[bag], out=out, method=method, **OPTIONS) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["stopped"] is None and summary["frames"]["train"] + summary["frames"]["held_out"] == 48
    assert summary["encoder"] == {"directory": "encoder", "sha256": weights_digest(out / "encoder")}
    assert summary["validation"]["update"] == 6 and 0 <= summary["loader_share"] < 1
    page = (out / "report.html").read_text()
    assert "Effective rank" in page and "What is hidden" in page and page.count("<img") >= 6
    assert load_frozen_encoder(out / "encoder", 16).tokens == 16
    # A second call has nothing left to train, and writes the same encoder.
    assert pretrain.run(bags=[bag], out=out, method=method, **OPTIONS) == 0
    assert json.loads((out / "summary.json").read_text())["encoder"] == summary["encoder"]
    with pytest.raises(InputError, match="expected to go on with the options it was begun with, found other schedule$"):
        pretrain.run(bags=[bag], out=out, method=method, **OPTIONS | {"batch": 5})


def test_several_bags_are_one_set(bag, tmp_path):
    other = write_video(tmp_path / "o", {"/image/compressed": (COMPRESSED, video(wander(10, 3), times(10)))})
    pretrain.run(bags=[bag, other], out=tmp_path / "out", **OPTIONS | {"updates": 1})
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["frames"]["stretches"] == 3


def test_a_collapse_ends_the_run_without_an_encoder(bag, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jepa_ros.training.pretrain_health.LEAST_SPREAD", 2.0)  # more than any features have
    assert pretrain.run(bags=[bag], out=tmp_path, **OPTIONS | {"updates": 20}) == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["stopped"].startswith("stopped at update 2: the features have collapsed: tokens differ")
    assert summary["encoder"] is None and not (tmp_path / "encoder").exists()
    assert summary["stopped"] in capsys.readouterr().err
    assert "No encoder was written" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    "options, found",
    [
        ({"size": 18}, r"size: expected a multiple of the patch \(4 px\), found 18"),
        ({"size": 12}, "size: expected at least 4 patches of 4 px a side, found 12 px"),
        ({"frames": 3}, "frames: expected a multiple of 2, the frames of a tubelet, found 3"),
        ({"width": 26}, "width: expected a multiple of four times the heads, .* found 26 and 3"),
        ({"method": "mae"}, "method: expected vjepa or ijepa, found mae"),
        ({"topic": ("front",)}, "expected the image topic front, found /image/compressed"),
        ({"frames": 26}, "expected two clips of 26 frames, 1 apart, .* the longest stretch has 24 frames"),
        ({"frames": 4, "stride": 9}, r"\(28 frames each, .* the longest stretch has 24 frames"),
        ({"learning_rate": 1e30}, "pre-training: update .*: expected a finite loss, found nan; a lower learning rate"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(bag, tmp_path, options, found):
    with pytest.raises(InputError, match=found) as refused:
        pretrain.run(bags=[bag], out=tmp_path / "out", **OPTIONS | options)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out" / "encoder").exists() and not (tmp_path / "out" / "summary.json").exists()
