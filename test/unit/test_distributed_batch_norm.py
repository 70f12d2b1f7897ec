"""BatchNorm over two processes: outputs, gradients and running statistics are those of one on the whole batch."""

import pytest
import torch
from torch import nn

from helpers import small_lewm, two_ranks
from jepa_ros.distributed import DistributedBatchNorm1d, DistributedBatchNorm2d, convert_batch_norm
from jepa_ros.world_model.anti_collapse import SigReg

torch.set_num_threads(1)

NORMS = {
    "vectors": (nn.BatchNorm1d(5), (12, 5)),
    "sequences": (nn.BatchNorm1d(5, momentum=None), (12, 5, 3)),
    "images": (nn.BatchNorm2d(5, momentum=0.3), (12, 5, 4, 3)),
    "no weights": (nn.BatchNorm2d(5, affine=False), (12, 5, 2, 2)),
    "no memory": (nn.BatchNorm1d(5, track_running_stats=False), (12, 5)),
}
STEPS = 3


def made(name):
    torch.manual_seed(5)
    norm, shape = NORMS[name]
    twin = type(norm)(5, norm.eps, norm.momentum, norm.affine, norm.track_running_stats).double()
    if norm.affine:
        nn.init.normal_(twin.weight)
        nn.init.normal_(twin.bias)
    x = torch.randn(STEPS, *shape, dtype=torch.float64)
    x[:, :6] = 0.2 * x[:, :6] + 3.0  # the first rank's part is unlike the second's
    return twin, x


def train(norm, batches, weigh=1):
    """Outputs, gradients of the inputs and of the weights, and what the norm remembers. `weigh`: number of ranks whose
    mean the loss is of."""
    outputs, slopes = [], []
    for x in batches:
        x = x.clone().requires_grad_()
        y = norm(x)
        y.pow(3).mean().backward()
        outputs.append(y.detach())
        slopes.append(x.grad / weigh)
    return outputs, slopes, two_ranks.averaged_gradients(norm), dict(norm.state_dict())


def evaluated(norm, x):
    with torch.no_grad():
        return norm.eval()(x)


def world_model_step(frames, states, actions):
    """A step of LeWM in float64: its loss, its gradients, and its buffers after it."""
    model = convert_batch_norm(small_lewm.fresh().double())
    b, n = frames.shape[:2]
    latents = model.encode(frames.flatten(0, 1)).unflatten(0, (b, n))
    predicted, state = model.predict(latents[:, :-1], states[:, :-1], actions)
    error = (predicted - latents[:, 1:]).square().mean() + (state - states[:, 1:]).square().mean()
    regular = SigReg(16).loss(latents.transpose(0, 1), None, torch.Generator().manual_seed(2))
    (error + 0.1 * regular).backward()
    buffers = {k: v.clone() for k, v in model.named_buffers()}
    return error.detach(), regular.detach(), two_ranks.averaged_gradients(model), buffers


def batch():
    windows = small_lewm.windows(12, 3)
    windows["frames"][:6] //= 4
    return [v if v.dtype == torch.uint8 else v.double() for v in windows.values()]


def everything(rank):
    found = {}
    for name in NORMS:
        norm, x = made(name)
        x = x[:, 6 * rank : 6 * rank + 6]
        converted = convert_batch_norm(norm)
        found[name] = train(converted, x, two_ranks.RANKS)
        found[f"{name}, evaluated"] = evaluated(converted, x[0])
    uneven = convert_batch_norm(nn.BatchNorm1d(5).double())
    found["uneven"] = uneven(uneven_batch().split([3, 9])[rank]).detach(), uneven.running_var
    halves = convert_batch_norm(nn.BatchNorm1d(5))
    found["halves"] = halves(uneven_batch().bfloat16()[6 * rank : 6 * rank + 6]).detach()
    found["world model"] = world_model_step(*(v[6 * rank : 6 * rank + 6] for v in batch()))
    return found


def uneven_batch():
    return 2.0 * torch.randn(12, 5, generator=torch.Generator().manual_seed(9), dtype=torch.float64) + 1.0


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return two_ranks.on_each_rank(everything, tmp_path_factory.mktemp("norm"))


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NORMS)
def test_outputs_gradients_and_statistics_equal_those_of_the_whole_batch(found, name):
    norm, x = made(name)
    outputs, slopes, gradients, state = train(norm, x)
    for step in range(STEPS):
        close(torch.cat([one[name][0][step] for one in found]), outputs[step])
        close(torch.cat([one[name][1][step] for one in found]), slopes[step])
    for one in found:
        close(one[name][2], gradients)
        close(one[name][3], state)
    close(torch.cat([one[f"{name}, evaluated"] for one in found]), evaluated(norm, x[0]))


def test_unequal_parts_of_a_batch_are_weighted_by_size(found):
    norm, x = nn.BatchNorm1d(5).double(), uneven_batch()
    close(torch.cat([one["uneven"][0] for one in found]), norm(x).detach())
    for one in found:
        close(one["uneven"][1], norm.running_var)


def test_bfloat16_batches_are_normalised_in_float32(found):
    """What comes out has the type of what goes in, and is no further off than its rounding."""
    theirs = torch.cat([one["halves"] for one in found])
    assert theirs.dtype == torch.bfloat16
    expected = nn.BatchNorm1d(5)(uneven_batch().bfloat16().float())
    torch.testing.assert_close(theirs.float(), expected.detach(), rtol=1e-2, atol=1e-2)


def test_a_training_step_equals_that_of_one_process(found):
    error, regular, gradients, buffers = world_model_step(*batch())
    close(sum(one["world model"][0] for one in found) / two_ranks.RANKS, error)
    for one in found:
        _, theirs, their_gradients, their_buffers = one["world model"]
        close(theirs, regular)
        close(their_gradients, gradients)
        close(their_buffers, buffers)


def test_in_one_process_it_equals_torch_batch_norm():
    for name in NORMS:
        norm, x = made(name)
        twin, _ = made(name)
        for one, other in zip(train(norm, x), train(convert_batch_norm(twin), x), strict=True):
            close(other, one)


def test_conversion_keeps_weights_buffers_and_their_names():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16))).eval()
    before = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    converted = convert_batch_norm(model)
    assert converted is model
    assert isinstance(model[1], DistributedBatchNorm2d) and isinstance(model[2][1], DistributedBatchNorm1d)
    after = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert list(after) == list(before) and all(after[name] is before[name] for name in before)
    assert not any(m.training for m in model.modules())
    assert convert_batch_norm(model)[1] is model[1], "once is enough"
