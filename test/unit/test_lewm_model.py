"""LeWM: frames in, latents out, the next of them from those up to now and the actions."""

import numpy as np
import pytest
import torch

from jepa_ros.errors import InputError
from jepa_ros.world_model.anti_collapse.sigreg import sigreg
from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.lewm.encoders import ConvEncoder
from jepa_ros.world_model.lewm.model import LeWM
from jepa_ros.world_model.protocol import Context, PredictiveModel

torch.set_num_threads(1)

CONV = {"type": "conv", "channels": [4, 8]}
VIT = {"type": "vit", "patch": 8, "width": 24, "depth": 2, "heads": 3, "mlp": 32}
CAUSAL = {"type": "causal", "width": 32, "depth": 2, "heads": 2, "head_dim": 8, "mlp": 24}
PUBLISHED = {
    "encoder": {"type": "vit"},
    "predictor": {"type": "causal"},
    "projector_hidden": 2048,
    "latent_shape": [192],
    "preprocessing": {"size": 224, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    "history": 3,
    "block": 5,
}


def config(joints=0, **changes) -> ModelConfig:
    """joints: each is two numbers of proprioception."""
    values = {
        "name": "lewm",
        "encoder": CONV,
        "predictor": CAUSAL,
        "projector_hidden": 20,
        "latent_shape": [6],
        "preprocessing": {"size": 16},
        "history": 3,
        "control_rate": 10.0,
        "block": 2,
        "action": {"name": "planar_velocity", "dimension": 2},
        "proprioception": {
            "joints": [f"j{i}" for i in range(joints)],
            "mean": [0.0] * 2 * joints,
            "std": [1.0] * 2 * joints,
        },
        "distance": {"tolerance": 0.1, "far": 1.0},
        "surprise": {"levels": [1.0], "errors": [0.1], "threshold": 0.2},
    }
    return ModelConfig.model_validate(values | changes)


def fresh(made: ModelConfig):
    """A model whose conditioning does something already: it is zero at first."""
    torch.manual_seed(0)
    model = LeWM(made).eval()
    for block in model.predictor.blocks:
        torch.nn.init.normal_(block.modulation.weight, std=0.3)
        torch.nn.init.normal_(block.modulation.bias, std=0.3)
    return model


RESIDUAL = CAUSAL | {"residual": True}
CONFIGS = {
    "conv": config(),
    "conv, proprioception, residual": config(joints=2, predictor=RESIDUAL),
    "vit, proprioception": config(joints=1, encoder=VIT),
    "vit, one frame": config(encoder=VIT, history=1),
}
MODELS = {name: fresh(made) for name, made in CONFIGS.items()}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]


def draw(model, steps, batch=5, seed=0):
    """latents (B, T, D), states (B, T, P), actions (B, T, K)."""
    rng = torch.Generator().manual_seed(seed)
    sizes = model.latent_shape[0], model.predictor.positions.shape[-1] - model.latent_shape[0], 4
    return [torch.randn(batch, steps, size, generator=rng) for size in sizes]


def test_a_prediction_does_not_depend_on_later_inputs(model):
    first, other = draw(model, model.history), draw(model, model.history, seed=1)
    before = model.predict(*first)
    for now in range(model.history):
        mixed = [torch.cat([a[:, : now + 1], b[:, now + 1 :]], dim=1) for a, b in zip(first, other, strict=True)]
        after = model.predict(*mixed)
        for a, b in zip(before, after, strict=True):
            torch.testing.assert_close(a[:, : now + 1], b[:, : now + 1], atol=1e-6, rtol=0)
        if now + 1 < model.history:
            assert (before[0][:, now + 1] - after[0][:, now + 1]).abs().min(dim=0)[0].max() > 1e-3


@pytest.mark.parametrize("what", [0, 1, 2], ids=["oldest latent", "oldest proprioception", "oldest action"])
def test_every_input_has_an_effect(what):
    model = MODELS["conv, proprioception, residual"]
    inputs = draw(model, model.history)
    before = model.predict(*inputs)
    inputs[what][:, 0] += 1.0
    for a, b in zip(before, model.predict(*inputs), strict=True):
        assert (a[:, -1] - b[:, -1]).abs().max() > 1e-3


def test_actions_have_no_effect_before_training():
    model = LeWM(config()).eval()
    latents, states, actions = draw(model, 3)
    torch.testing.assert_close(model.predict(latents, states, actions), model.predict(latents, states, 0 * actions))


def test_a_residual_model_and_the_state_head_predict_changes():
    model = fresh(config(joints=2, predictor=RESIDUAL))
    for layer in (model.prediction_projector.layers[-1], model.state_head):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.constant_(layer.bias, 0.25)
    latents, states, actions = draw(model, 3)
    next_latents, next_states = model.predict(latents, states, actions)
    torch.testing.assert_close(next_latents, latents + 0.25)
    torch.testing.assert_close(next_states, states + 0.25)


@pytest.mark.parametrize("seen", [1, 3, 5])
def test_a_rollout_equals_repeated_prediction_on_a_sliding_window(model, seen):
    latents, states, actions = draw(model, seen + 6)
    context = Context(latents[:, :seen], states[:, :seen], actions[:, : seen - 1])
    rolled = model.rollout(context, actions[:, seen - 1 : seen + 5])

    z, s = context.latents, context.states
    for step in range(6):
        window = slice(max(0, seen + step - model.history), seen + step)
        latent, state = model.predict(z[:, window], s[:, window], actions[:, window])
        z, s = torch.cat([z, latent[:, -1:]], 1), torch.cat([s, state[:, -1:]], 1)
    torch.testing.assert_close(rolled[0], z[:, seen:], atol=5e-6, rtol=1e-5)
    torch.testing.assert_close(rolled[1], s[:, seen:], atol=5e-6, rtol=1e-5)


def test_a_batch_of_plans_is_rolled_out_like_each_plan(model):
    latents, states, _ = draw(model, model.history, batch=1)
    actions = draw(model, 4, batch=7)[2]
    context = Context(latents, states, torch.zeros(1, model.history - 1, 4))
    together = model.rollout(context.expand(7), actions)
    for n in range(7):
        alone = model.rollout(context, actions[n : n + 1])
        torch.testing.assert_close(together[0][n : n + 1], alone[0], atol=1e-5, rtol=1e-5)


def test_a_rollout_uses_the_present_weights(model):
    latents, states, actions = draw(model, model.history + 2)
    context = Context(*(x[:, : model.history - k] for x, k in ((latents, 0), (states, 0), (actions, 1))))
    before = model.rollout(context, actions[:, -2:])[0]
    with torch.no_grad():
        model.predictor.blocks[0].attention.qkv.weight.mul_(1.5)
    after = model.rollout(context, actions[:, -2:])[0]
    assert (after - before).abs().max() > 1e-4
    torch.testing.assert_close(after, PredictiveModel.rollout(model, context, actions[:, -2:])[0], atol=5e-6, rtol=1e-5)
    with torch.no_grad():
        model.predictor.blocks[0].attention.qkv.weight.div_(1.5)  # the models are shared


def test_a_rollout_in_training_mode_uses_predict():
    model = fresh(config(joints=1, predictor=CAUSAL | {"dropout": 0.0})).train()
    latents, states, actions = draw(model, 6)
    context = Context(latents[:, :3], states[:, :3], actions[:, :2])
    rolled = model.rollout(context, actions[:, 2:])
    torch.testing.assert_close(rolled, PredictiveModel.rollout(model, context, actions[:, 2:]))
    assert (rolled[0] - model.eval().rollout(context, actions[:, 2:])[0]).abs().max() > 1e-3


def test_rollout_gradients_reach_every_action(model):
    latents, states, actions = draw(model, model.history + 4)
    context = Context(latents[:, : model.history], states[:, : model.history], actions[:, : model.history - 1])
    plan = actions[:, model.history :].clone().requires_grad_()
    model.rollout(context, plan)[0][:, -1].square().sum().backward()
    assert (plan.grad[:, -1].abs().sum(-1) > 1e-4).all() and (plan.grad[:, 0].abs().sum(-1) > 0).all()


def test_frames_are_normalised_by_the_configured_mean_and_std():
    mean, std = (0.2, 0.4, 0.6), (0.1, 0.2, 0.4)
    model = fresh(config(preprocessing={"size": 16, "mean": mean, "std": std}))
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    frames = np.full((2, 16, 16, 3), (51, 102, 153), np.uint8)
    frames[1, 3, 5] = (255, 0, 102)
    model.encode(frames)
    torch.testing.assert_close(seen[0][0], torch.zeros(3, 16, 16), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[0][1, :, 3, 5], torch.tensor([8.0, -2.0, -0.5]), atol=1e-5, rtol=0)
    model.encode(torch.from_numpy(frames))
    torch.testing.assert_close(seen[1], seen[0])


def test_latents_do_not_depend_on_the_batch_size(model):
    frames = np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3), dtype=np.uint8)
    together = model.encode(frames)
    assert together.shape == (5, *model.latent_shape)
    torch.testing.assert_close(torch.cat([model.encode(f[None]) for f in frames]), together, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [16, 40, 64, 70, 97])
def test_the_width_of_a_convolutional_encoder_is_correct(size):
    encoder = ConvEncoder(size, (2, 3, 4))
    assert encoder(torch.zeros(2, 3, size, size)).shape == (2, encoder.width)


def test_the_published_sizes_have_the_parameter_count_of_the_release():
    """Without the pooler of transformers' ViT, 37,056 more, which no one reads."""
    with torch.device("meta"):
        model = LeWM(config(**PUBLISHED))
    assert sum(p.numel() for p in model.parameters()) == 18_034_478
    assert model.latent_shape == (192,) and model.state_head is None


def test_proprioception_only_adds_parameters_to_the_published_model():
    with torch.device("meta"):
        without, having = (LeWM(config(joints=n, **PUBLISHED)).state_dict() for n in (0, 3))
    changed = {k for k in having if k not in without or having[k].shape != without[k].shape}
    assert changed == {
        "predictor.positions",
        "predictor.input_projection.weight",
        "predictor.input_projection.bias",
        "predictor.condition_projection.weight",
        "predictor.condition_projection.bias",
        *(f"action_encoder.layers.{n}.{kind}" for n in (0, 2) for kind in ("weight", "bias")),
        "state_head.weight",
        "state_head.bias",
    }


def test_the_published_model_trains_and_rolls_out_on_a_cpu():
    torch.manual_seed(0)
    model = LeWM(config(**PUBLISHED)).train()
    frames = torch.randint(0, 256, (6, 224, 224, 3), dtype=torch.uint8)
    actions, nothing = torch.randn(2, 3, 10), torch.zeros(2, 2, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=1e-3)

    def loss():
        torch.manual_seed(1)  # the same dropout and directions
        latents = model.encode(frames).unflatten(0, (2, 3))
        predicted, _ = model.predict(latents[:, :-1], nothing, actions[:, :-1])
        return (predicted - latents[:, 1:]).square().mean() + 0.1 * sigreg(latents.transpose(0, 1), 1024)

    before = loss()
    before.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    optimizer.step()
    with torch.inference_mode():
        assert loss() < before
        latents = model.eval().encode(frames[:3])
        context = Context(latents[None], torch.zeros(1, 3, 0), torch.zeros(1, 2, 10))
        imagined, _ = model.rollout(context.expand(16), torch.randn(16, 5, 10))
    assert imagined.shape == (16, 5, 192) and imagined.isfinite().all()


def test_all_weights_belong_to_a_named_part_of_the_model(model):
    parts = {"encoder", "projector", "action_encoder", "predictor", "prediction_projector", "state_head"}
    assert {key.split(".")[0] for key in model.state_dict()} <= parts


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"latent_shape": [4, 6]}, r"latent_shape: expected one number for family lewm, found \[4, 6\]"),
        ({"encoder": VIT | {"heads": 5}}, "expected a width that 5 heads divide, found 24"),
        ({"encoder": VIT | {"patch": 5}}, "expected images of a multiple of 5 pixels, the patch, found 16"),
    ],
)
def test_inconsistent_sizes_are_refused(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        LeWM(config(**changes))
