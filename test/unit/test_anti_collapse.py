"""Anti-collapse: what each method penalises, where its gradients flow, and that it goes on where it was stopped."""

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from helpers import small_lewm
from jepa_ros.errors import InputError
from jepa_ros.world_model.anti_collapse import METHODS, AntiCollapse, SigReg, VicReg, make_anti_collapse
from jepa_ros.world_model.anti_collapse.ema_teacher import _copy_encoder
from jepa_ros.world_model.anti_collapse.vicreg import variance_and_covariance

torch.set_num_threads(1)

UPDATES = 8
PIXELS = small_lewm.SIZE**2


def make(name, model=None, **settings):
    torch.manual_seed(11)
    model = small_lewm.fresh() if model is None else model
    if name == "sigreg":
        settings = {"directions": 32} | settings
    return make_anti_collapse(name, model, small_lewm.config(), updates=UPDATES, **settings)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def drawn(batch=6, steps=3, seed=0):
    """Latents (T, B, D) with gradients and the frames (T * B, S, S, 3) that they are of."""
    model = small_lewm.fresh()
    frames = small_lewm.windows(batch, steps, seed)["frames"].transpose(0, 1).flatten(0, 1)
    return model, model.encode(frames).unflatten(0, (steps, batch)), frames


# --- what is penalised -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ("sigreg", "vicreg"))
def test_constant_latents_are_penalised(name):
    method = make(name)
    healthy = method.loss(gaussian(2, 256, 6), None, seeded())
    constant = method.loss(gaussian(2, 1, 6).expand(2, 256, 6), None, seeded())
    assert constant > 4 * healthy


def test_redundant_latents_are_penalised():
    line = gaussian(2, 256, 1).expand(2, 256, 6)
    for name in ("sigreg", "vicreg"):
        method = make(name)
        assert method.loss(line, None, seeded()) > 2 * method.loss(gaussian(2, 256, 6), None, seeded())


@pytest.mark.parametrize("name", ("sigreg", "vicreg"))
def test_tokens_that_encode_only_their_position_are_penalised(name):
    """Over batch and tokens together, these are as Gaussian as can be; over the batch they are constant."""
    method = make(name)
    by_place = gaussian(1, 1, 16, 6).expand(2, 64, 16, 6)
    assert method.loss(by_place, None, seeded()) > 4 * method.loss(gaussian(2, 64, 16, 6), None, seeded())


@pytest.mark.parametrize("masked", (0.0, 0.5))
def test_constant_latents_cannot_be_reconstructed(masked):
    """The best that a decoder of one latent for all can draw is the mean frame, where one that is told draws each."""
    frames = torch.cat([torch.full((8, 16, 16, 3), value, dtype=torch.uint8) for value in (40, 220)])
    told = torch.cat([torch.full((8, 6), value) for value in (-1.0, 1.0)]).unsqueeze(0)
    best = {}
    for name, latents in {"told": told, "constant": torch.zeros_like(told)}.items():
        method = make("reconstruction", model=Fixed(latents[0]), masked=masked)
        optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
        for _ in range(60):
            loss = method.loss(latents, frames, seeded())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        best[name] = loss.item()
    spread = ((frames / 127.5 - 1.0).var(0, unbiased=False)).mean().item()
    assert best["constant"] > 0.9 * spread > 10 * best["told"]


class Fixed(torch.nn.Module):
    """Encodes frames as it was told to."""

    def __init__(self, latents):
        super().__init__()
        self.latents = latents

    def encode(self, frames):
        return self.latents


def test_vicreg_equals_the_published_one():
    """Equations 1, 3 and 4 of arXiv 2105.04906, number by number."""
    z = 0.7 * gaussian(1, 40, 3) @ gaussian(3, 3, seed=1) + 2.0
    n, d, total, off = 40, 3, 0.0, 0.0
    mean = [sum(float(z[0, i, j]) for i in range(n)) / n for j in range(d)]
    for j in range(d):
        for k in range(d):
            c = sum((float(z[0, i, j]) - mean[j]) * (float(z[0, i, k]) - mean[k]) for i in range(n)) / (n - 1)
            if j == k:
                total += max(0.0, 1.0 - math.sqrt(c + 1e-4)) / d
            else:
                off += c**2 / d
    variance, covariance = variance_and_covariance(z)
    assert float(variance) == pytest.approx(total, rel=1e-9) and total > 0
    assert float(covariance) == pytest.approx(off, rel=1e-9) and off > 0
    assert float(VicReg().loss(z, None, None)) == pytest.approx(total + off / 25, rel=1e-9)


def test_half_precision_is_measured_in_full_precision():
    z = gaussian(1, 64, 6).bfloat16()
    for method in (SigReg(16), VicReg()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = method.loss(z, None, seeded())
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, method.loss(z.float(), None, seeded()))


# --- where gradients flow --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, flows", {"sigreg": 1, "vicreg": 1, "none": 1, "ema": 0, "reconstruction": 0}.items())
def test_gradients_flow_through_the_targets_only_where_the_method_allows(name, flows):
    model, latents, frames = drawn()
    method = make(name, model)
    targets = method.targets(model, frames, latents.flatten(0, 1))
    assert targets.shape == latents.flatten(0, 1).shape and targets.requires_grad == bool(flows)


@pytest.mark.parametrize("masked", (0.0, 0.4))
@pytest.mark.parametrize("name", METHODS)
def test_the_regulariser_has_gradients_of_encoder_and_own_parts_only(name, masked):
    settings = {"masked": masked, "patch": 4} if name == "reconstruction" else {}
    model, latents, frames = drawn()
    method = make(name, model, **settings)
    loss = method.loss(latents, frames, seeded())
    assert loss.shape == () and torch.isfinite(loss)
    if name in ("ema", "none"):
        assert loss == 0 and not loss.requires_grad
        return
    loss.backward()
    taught = {key.split(".")[0] for key, p in model.named_parameters() if p.grad is not None}
    assert taught == {"encoder", "projector"}
    assert max(p.grad.abs().max() for p in model.encoder.parameters()) > 0
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())


def test_the_method_does_not_contain_the_model():
    """Else the optimiser would have it twice, and a checkpoint of the training state too."""
    model = small_lewm.fresh()
    for name in METHODS:
        own = {id(p) for p in make(name, model).parameters()}
        assert not own & {id(p) for p in model.parameters()}


# --- the teacher -----------------------------------------------------------------------------------------------------


def test_the_teacher_starts_as_the_student_without_predictor():
    model, latents, frames = drawn()
    method = make("ema", model)
    torch.testing.assert_close(method.targets(model, frames, latents), latents.flatten(0, 1).detach())
    assert {name.split(".")[1] for name, _ in method.named_parameters()} == {"encoder", "projector"}
    assert not any(p.requires_grad for p in method.parameters())


def test_the_teacher_follows_the_momentum_schedule():
    model = small_lewm.fresh()
    method = make("ema", model, start=0.9)
    name = "encoder.stages.0.weight"
    expected = model.state_dict()[name].clone()
    for k in range(UPDATES + 2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1)
        momentum = 1 - 0.1 * (math.cos(math.pi * min(k, UPDATES) / UPDATES) + 1) / 2
        assert method.momentum() == pytest.approx(momentum)
        method.after_step(model)
        expected = momentum * expected + (1 - momentum) * model.state_dict()[name]
        torch.testing.assert_close(method.teacher.state_dict()[name], expected)
    assert method.momentum() == 1.0


def test_the_teacher_does_not_change_the_student():
    model = small_lewm.fresh()
    method = make("ema", model)
    before = copy.deepcopy(model.state_dict())
    method.after_step(model)
    method.targets(model, small_lewm.windows(4, 1)["frames"][:, 0], None)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_teacher_keeps_all_modules_that_encode_uses():
    class Nested(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList([torch.nn.Linear(3, 2)])  # never called itself
            self.scale = torch.nn.Parameter(torch.ones(2))
            self.unused = torch.nn.Linear(2, 2)

        def encode(self, frames):
            return self.layers[0](frames.float().mean((1, 2))) * self.scale

    kept = _copy_encoder(Nested(), (8, 8, 3))
    assert {name for name, _ in kept.named_parameters()} == {"layers.0.weight", "layers.0.bias", "scale"}


# --- masks -----------------------------------------------------------------------------------------------------------


def test_hidden_patches_are_seen_by_the_loss_only():
    model, latents, frames = drawn()
    method = make("reconstruction", model, masked=0.25, patch=4)
    seen = []
    encode = model.encode
    model.encode = lambda shown: seen.append(shown) or encode(shown)
    before = copy.deepcopy(dict(model.named_buffers()))
    method.loss(latents, frames, seeded(3))
    (shown,) = seen
    hidden = method._draw_mask(frames, seeded(3))
    assert torch.equal(shown[~hidden], frames[~hidden])
    assert (shown[hidden] == 128).all(), "the middle of the colours"
    assert (hidden.flatten(1).sum(1) == PIXELS // 4).all()
    patches = hidden.unflatten(2, (4, 4)).unflatten(1, (4, 4)).permute(0, 1, 3, 2, 4).flatten(3)
    assert (patches.all(-1) | ~patches.any(-1)).all()
    assert len({tuple(h.flatten().tolist()) for h in hidden}) > 1, "each frame has its own"
    for name, value in model.named_buffers():
        assert torch.equal(before[name], value), f"{name} remembers masked frames"


def test_images_of_any_size_can_be_reconstructed():
    for size in (16, 20, 33):
        config = small_lewm.config(preprocessing={"size": size})
        method = make_anti_collapse("reconstruction", small_lewm.fresh(), config)
        assert method.decoder(torch.zeros(2, small_lewm.LATENT)).shape == (2, 3, size, size)


# --- making and resuming ---------------------------------------------------------------------------------------------


class Run:
    """A few steps of training, as plainly as can be."""

    def __init__(self, name, seed=0):
        self.model = small_lewm.fresh(seed)
        self.method = make(name, self.model)
        self.parameters = [p for m in (self.model, self.method) for p in m.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=3e-3)
        self.directions = seeded(5)

    def step(self, k):
        windows = small_lewm.windows(8, 3, seed=k)
        frames = windows["frames"]
        flat = self.model.encode(frames.flatten(0, 1))
        targets = self.method.targets(self.model, frames.flatten(0, 1), flat).unflatten(0, (8, 3))
        predicted, _ = self.model.predict(
            flat.unflatten(0, (8, 3))[:, :2], windows["states"][:, :2], windows["actions"][:, :2]
        )
        loss = F.mse_loss(predicted, targets[:, 1:])
        time_first = flat.unflatten(0, (8, 3)).transpose(0, 1)
        loss = loss + 0.1 * self.method.loss(time_first, frames.transpose(0, 1).flatten(0, 1), self.directions)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.method.after_step(self.model)
        return loss.item()

    def state(self):
        return copy.deepcopy([x.state_dict() for x in (self.model, self.method, self.optimizer)]), (
            self.directions.get_state()
        )

    def resume(self, state):
        states, directions = state
        for x, saved in zip((self.model, self.method, self.optimizer), states, strict=True):
            x.load_state_dict(saved)
        self.directions.set_state(directions)


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_run_gives_the_same_result(name):
    whole = Run(name)
    for k in range(3):
        whole.step(k)
    state = whole.state()
    expected = [whole.step(k) for k in range(3, 6)]
    resumed = Run(name, seed=99)  # other weights: all must come from the state
    resumed.resume(state)
    assert [resumed.step(k) for k in range(3, 6)] == expected
    for one, other in zip((whole.model, whole.method), (resumed.model, resumed.method), strict=True):
        for key, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]), key


@pytest.mark.parametrize(
    "name, settings, said",
    [
        ("dropout", {}, "anti-collapse: expected one of sigreg, vicreg, ema, reconstruction, none, found 'dropout'"),
        ("sigreg", {"knots": 9}, "anti-collapse sigreg: expected settings of directions, found knots"),
        ("none", {"weight": 1}, "anti-collapse none: expected settings of no kind, found weight"),
        ("ema", {"updates": None}, "anti-collapse ema: expected the number of updates of its schedule, found None"),
    ],
)
def test_invalid_options_give_a_one_line_error(name, settings, said):
    with pytest.raises(InputError) as error:
        make_anti_collapse(name, small_lewm.fresh(), small_lewm.config(), **settings)
    assert str(error.value) == said


def test_a_frozen_encoder_takes_no_method():
    config = small_lewm.config(
        family="dino_wm",
        encoder={"type": "transformers", "sha256": "0" * 64},
        predictor={"type": "patch"},
        latent_shape=(4, 6),
    )
    assert type(make_anti_collapse("none", torch.nn.Identity(), config)) is AntiCollapse
    with pytest.raises(InputError, match="expected none, as the encoder of small is frozen, found 'sigreg'"):
        make_anti_collapse("sigreg", torch.nn.Identity(), config)
