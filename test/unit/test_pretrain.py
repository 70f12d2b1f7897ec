"""Pre-training: hidden patches come to be predicted, and interrupted runs go on exactly."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.pretraining_models import IMAGE, SCHEDULE, VIDEO, both, make_clips, trainer
from jepa_ros.training.pretraining.loop import (
    PATIENCE,
    describe_collapse,
    effective_rank,
    feature_health,
    pretraining_rate_factor,
)
from jepa_ros.training.pretraining.models import build_masked_predictor, gather_tokens, sine_cosine

# What the models compute.


@both
def test_the_unmasked_encoder_equals_the_transformers_model(sizes):
    model, clips = build_masked_predictor(sizes, 0), make_clips(frames=sizes.frames)
    everything = torch.arange(sizes.grid**2 * max(1, sizes.frames // 2)).expand(3, -1)
    seen = model.encode_visible(model.embed(clips), everything)
    torch.testing.assert_close(seen, model.features(clips), atol=1e-5, rtol=0)
    shuffled = everything[:, torch.randperm(everything.shape[1], generator=torch.Generator().manual_seed(0))]
    torch.testing.assert_close(
        model.encode_visible(model.embed(clips), shuffled), gather_tokens(seen, shuffled), atol=1e-5, rtol=0
    )


@both
def test_hidden_patches_do_not_reach_the_encoder(sizes):
    model, clips = build_masked_predictor(sizes, 0), make_clips(frames=sizes.frames)
    (masks, *_) = model.draw_masks(3, np.random.default_rng(0))
    index = torch.from_numpy(masks.context)
    embedded = model.embed(clips)
    hidden = torch.ones(embedded.shape[:2], dtype=torch.bool).scatter(1, index, False)
    changed = torch.where(hidden[..., None], embedded + 7.0, embedded)
    assert hidden.any() and torch.equal(model.encode_visible(embedded, index), model.encode_visible(changed, index))


def test_predictions_equal_the_transformers_predictor():
    """Which puts its tokens in order, and always takes its second mask token."""
    model, clips = build_masked_predictor(VIDEO, 0), make_clips()
    with torch.no_grad():
        model.predictor.embeddings.mask_tokens[1].normal_(generator=torch.Generator().manual_seed(0))
    tokens = model.features(clips)
    (masks, *_) = model.draw_masks(3, np.random.default_rng(0))
    seen, hidden = torch.from_numpy(masks.context), torch.from_numpy(masks.targets[:, 0])
    found = model.predict(gather_tokens(tokens, seen), seen, hidden, 1)
    wanted = model.predictor(tokens, [seen], [hidden]).last_hidden_state
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert not torch.allclose(found, model.predict(gather_tokens(tokens, seen), seen, hidden, 0), atol=1e-3)


def test_target_groups_are_predicted_independently():
    model, clips = build_masked_predictor(IMAGE, 0), make_clips(frames=1)
    (masks,) = model.draw_masks(3, np.random.default_rng(0))
    seen, hidden = torch.from_numpy(masks.context), torch.from_numpy(masks.targets)
    context = gather_tokens(model.features(clips), seen)
    whole = model.predictor(context, seen, hidden)
    assert whole.shape == (*hidden.shape, IMAGE.width)
    for group in range(4):
        alone = model.predictor(context, seen, hidden[:, group : group + 1])
        torch.testing.assert_close(whole[:, group : group + 1], alone, atol=1e-5, rtol=0)


def test_the_loss_is_the_l1_distance_to_normalised_teacher_tokens():
    model, clips = build_masked_predictor(VIDEO, 0).eval(), make_clips()
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
def test_gradients_reach_encoder_and_predictor_but_not_the_teacher(sizes):
    model, clips = build_masked_predictor(sizes, 0), make_clips(frames=sizes.frames)
    if sizes is VIDEO:  # mask tokens begin as zeros, whose queries learn nothing in a predictor of one layer
        torch.nn.init.normal_(model.predictor.embeddings.mask_tokens)
    torch.stack(model.losses(clips, model.draw_masks(3, np.random.default_rng(0)))).mean().backward()
    for part in (model.encoder, model.predictor):
        for name, parameter in part.named_parameters():
            assert not parameter.requires_grad or parameter.grad.abs().max() > 0, name
    assert all(p.grad is None for p in model.teacher.parameters())


def test_the_teacher_is_the_moving_average_of_the_encoder():
    model = build_masked_predictor(VIDEO, 0)
    before = {k: v.clone() for k, v in model.teacher.state_dict().items()}
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(1.0)
    model.update_teacher(0.75)
    for name, value in model.teacher.state_dict().items():
        torch.testing.assert_close(value, before[name] + 0.25)


def test_image_position_embeddings_distinguish_rows_and_columns():
    places = sine_cosine(4, 16)[0].unflatten(0, (4, 4))
    assert torch.equal(places[0, :, 8:], places[0, :1, 8:].expand(4, -1)), "the second half is the row"
    assert torch.equal(places[:, 0, :8], places[:1, 0, :8].expand(4, -1)), "the first half is the column"
    assert len(torch.unique(places.flatten(0, 1), dim=0)) == 16
    model = build_masked_predictor(IMAGE, 0)
    assert torch.equal(model.encoder.embeddings.position_embeddings, sine_cosine(4, 24))
    assert not model.encoder.embeddings.position_embeddings.requires_grad


# The loop.


@pytest.fixture(scope="module", params=[VIDEO, IMAGE], ids=["vjepa", "ijepa"])
def whole(request, tmp_path_factory):
    """A run that was never interrupted, and its losses."""
    made, losses = trainer(request.param), []
    made.run(tmp_path_factory.mktemp("whole") / "state", losses.append)
    return made, losses


def test_a_resumed_run_gives_the_same_losses(whole, tmp_path):
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


def test_validation_does_not_change_training(whole, tmp_path):
    done, losses = whole
    often, seen = trainer(done.model.sizes, schedule=replace(SCHEDULE, every=1)), []
    often.run(tmp_path / "state", seen.append)
    keys = ("loss", "update", *done.model.groups)
    assert [[v[key] for key in keys] for v in seen] == [[v[key] for key in keys] for v in losses]
    assert len(often.progress.validation) == 13


@both
def test_the_loss_falls_without_collapse(sizes, tmp_path):
    schedule = replace(SCHEDULE, updates=60, batch=8, warm_up=6, every=30, learning_rate=3e-3)
    made = trainer(sizes, schedule=schedule)
    made.run(tmp_path / "state", lambda values: None)
    first, *_, last = made.progress.validation
    assert last["loss"] < 0.8 * first["loss"]
    assert made.progress.stopped == "" and last["effective_rank"] > 3


def test_the_seed_determines_the_losses():
    one, same, other = (trainer(VIDEO, seed).step()["loss"] for seed in (0, 0, 1))
    assert one == same != other


@both
def test_norm_weights_and_biases_have_no_weight_decay(sizes):
    made = trainer(sizes)
    decay, rest = made.optimizer.param_groups
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.04, 0.0)
    names = {id(p): name for name, p in made.model.named_parameters() if p.requires_grad}
    assert {id(p) for p in decay["params"] + rest["params"]} == set(names)
    assert all(names[id(p)].endswith(("bias", "weight", "predictor.mask")) and p.ndim == 1 for p in rest["params"])
    assert any("norm" in names[id(p)] for p in rest["params"]) and not any(
        "norm" in names[id(p)] for p in decay["params"]
    )


def test_the_learning_rate_warms_up_and_decays():
    rates = [pretraining_rate_factor(u, 100, 10) for u in range(100)]
    assert rates[0] == 0.1 and rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and 0.01 <= rates[-1] < 0.012


def test_a_nan_loss_is_reported_with_its_update():
    made = trainer(VIDEO)
    with torch.no_grad():
        made.model.predictor.proj.bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="update 0: the loss is nan"):
        made.step()


def test_collapsed_features_stop_the_run(tmp_path):
    made = trainer(VIDEO, schedule=replace(SCHEDULE, updates=40, every=2, learning_rate=1e-5))
    with torch.no_grad():
        for part in (made.model.encoder, made.model.teacher):
            part.layernorm.bias.copy_(torch.linspace(-100, 100, VIDEO.width))
    made.run(tmp_path / "state", lambda values: None)
    assert made.progress.update == 4, "the first validation is of update 0"
    assert "stopped at update 4: the features have collapsed: the spread of the tokens" in made.progress.stopped
    again = trainer(VIDEO, schedule=made.schedule)
    again.load(tmp_path / "state")
    again.run(tmp_path / "state", lambda values: pytest.fail("it trained"))


def test_collapse_is_reported_only_after_consecutive_validations():
    good, flat = (
        {"update": 5, "spread": 0.5, "effective_rank": 9.0},
        {"update": 7, "spread": 0.5, "effective_rank": 1.2},
    )
    assert describe_collapse([flat] * (PATIENCE - 1)) == ""
    assert describe_collapse([flat, good] * PATIENCE) == ""
    sentence = describe_collapse([good] + [flat] * PATIENCE)
    assert sentence.startswith("stopped at update 7: the features have collapsed: ")
    assert "effective rank of the features is 1.2, below 2, in 3 validations in a row" in sentence


def test_feature_health_measures_rank_spread_and_dead_dimensions():
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
