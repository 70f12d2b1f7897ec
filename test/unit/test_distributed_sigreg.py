"""Anti-collapse in two processes: losses and gradients are those of one process on the whole batch."""

import pytest
import torch
from torch import nn

from helpers import two_ranks
from jepa_ros.distributed import mean_over_ranks
from jepa_ros.world_model.anti_collapse import SigReg, VicReg
from jepa_ros.world_model.anti_collapse.sigreg import sigreg

torch.set_num_threads(1)

METHODS = {"sigreg": SigReg(32), "vicreg": VicReg()}
SPLITS = {"equal": (6, 6), "unequal": (4, 8)}


def inputs(tokens=False):
    """(T, B, [tokens,] 5), the first rank's part unlike the second's."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(3, 12, *((2,) if tokens else ()), 5, generator=g, dtype=torch.float64)
    return torch.cat([0.3 * x[:, :6] + 0.5, 2.0 * x[:, 6:]], dim=1)


def part(x, split, rank):
    sizes = SPLITS[split]
    return x[:, sum(sizes[:rank]) : sum(sizes[: rank + 1])]


def encoder():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4)).double()


def loss_and_gradients(method, x):
    model = encoder()
    loss = METHODS[method].loss(model(x), None, torch.Generator().manual_seed(7))
    loss.backward()
    return loss.detach(), two_ranks.averaged_gradients(model)


def everything(rank):
    found = {}
    for method in METHODS:
        for split in SPLITS:
            for tokens in (False, True):
                found[f"{method} {split} {tokens}"] = loss_and_gradients(method, part(inputs(tokens), split, rank))
    try:
        sigreg(inputs(), 8)
    except ValueError as error:
        found["without a generator"] = str(error)
    found["mean"] = mean_over_ranks(torch.tensor([1.0 + rank, 2.0]), 1 + 2 * rank)
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return two_ranks.on_each_rank(everything, tmp_path_factory.mktemp("sigreg"))


@pytest.mark.parametrize("tokens", (False, True))
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("method", METHODS)
def test_loss_and_gradients_equal_those_of_the_whole_batch(found, method, split, tokens):
    loss, gradients = loss_and_gradients(method, inputs(tokens))
    for rank in range(two_ranks.RANKS):
        theirs, their_gradients = found[rank][f"{method} {split} {tokens}"]
        torch.testing.assert_close(theirs, loss, rtol=1e-10, atol=1e-12)
        assert their_gradients.keys() == gradients.keys()
        assert max(gradient.abs().max() for gradient in gradients.values()) > 1e-2
        for name, gradient in gradients.items():
            torch.testing.assert_close(their_gradients[name], gradient, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("method", METHODS)
def test_the_mean_of_the_losses_per_process_differs_from_the_loss_of_the_batch(method):
    """Else the test above would pass without any exchange."""
    whole, _ = loss_and_gradients(method, inputs())
    alone = [loss_and_gradients(method, part(inputs(), "equal", rank))[0] for rank in range(two_ranks.RANKS)]
    assert abs(sum(alone) / len(alone) - whole) > 0.02 * whole


def test_sigreg_without_a_shared_random_generator_is_refused(found):
    assert all("generator" in one["without a generator"] for one in found)


def test_means_are_weighted_by_the_number_of_samples_of_each_rank(found):
    for one in found:
        mean, count = one["mean"]
        torch.testing.assert_close(mean, torch.tensor([(1 * 1 + 3 * 2) / 4, 2.0]))
        assert int(count) == 4
