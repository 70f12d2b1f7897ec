"""SIGReg: small for an isotropic Gaussian, large for anything else."""

import numpy as np
import pytest
import torch

from jepa_ros.world_model.anti_collapse.sigreg import sigreg

torch.set_num_threads(1)

BATCH, DIM = 512, 8
FLOOR = 1.06
"""Expected value for N(0, I): the integral of (1 - exp(-t^2)) exp(-t^2 / 2)."""


def latents(seed=0):
    return torch.randn(2, BATCH, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def statistic(z):
    return float(sigreg(z, 64, torch.Generator().manual_seed(5)))


def test_it_is_near_its_minimum_for_a_gaussian():
    values = [statistic(latents(seed)) for seed in range(6)]
    assert np.mean(values) == pytest.approx(FLOOR, rel=0.2)


@pytest.mark.parametrize(
    "change",
    {
        "collapsed": lambda z: 0.01 * z,
        "all the same": lambda z: z[:, :1].expand_as(z),
        "one line": lambda z: z[..., :1].expand_as(z),
        "shifted": lambda z: z + 0.5,
        "scaled up": lambda z: 2.0 * z,
        "scaled down": lambda z: 0.5 * z,
        "bimodal": lambda z: 0.1 * z + torch.sign(z),
    }.values(),
)
def test_it_is_clearly_larger_for_other_distributions(change):
    assert statistic(change(latents())) > 4 * FLOOR


@pytest.mark.parametrize("scale, shift", [(1.3, 0.2), (0.01, 0.0)])
def test_sigreg_agrees_with_the_epps_pulley_integral(scale, shift):
    """The same axes, the characteristic function as complex numbers, integrated finely over [-3, 3] by numpy."""
    z = latents()[:1] * scale + shift
    axes = torch.randn(DIM, 64, generator=torch.Generator().manual_seed(5), dtype=torch.float64).numpy()
    axes /= np.linalg.norm(axes, axis=0)
    t = np.linspace(-3, 3, 241)
    projected = z[0].numpy() @ axes  # (B, directions)
    phi = np.array([np.exp(1j * s * projected).mean(0) for s in t])
    integrand = np.abs(phi - np.exp(-0.5 * t**2)[:, None]) ** 2 * np.exp(-0.5 * t**2)[:, None]
    integral = (0.5 * (integrand[1:] + integrand[:-1])).sum(0) * (t[1] - t[0])
    assert statistic(z) == pytest.approx(BATCH * integral.mean(), rel=2e-3)


def test_gradients_equal_finite_differences():
    z = latents()[:, :7].requires_grad_()
    torch.autograd.gradcheck(lambda z: sigreg(z, 5, torch.Generator().manual_seed(0)), z)


@pytest.mark.parametrize("scale", [1.0, 0.0, 1e-6, 1e3])
def test_gradients_are_finite(scale):
    z = (latents().float() * scale).requires_grad_()
    sigreg(z, 32, torch.Generator().manual_seed(0)).backward()
    assert torch.isfinite(z.grad).all()


def test_gradient_descent_restores_a_collapsed_batch():
    z, generator = 0.05 * latents(3)[:1, :128], torch.Generator().manual_seed(1)
    first = statistic(z)
    for _ in range(60):
        z.requires_grad_()
        (slope,) = torch.autograd.grad(sigreg(z, 32, generator), z)
        z = z.detach() - 0.05 * slope / slope.square().mean().sqrt()
    assert statistic(z) < 0.1 * first
    assert float(z.std()) == pytest.approx(1.0, abs=0.25)


def test_the_generator_seed_determines_the_directions():
    z = latents()
    assert statistic(z) == statistic(z) != float(sigreg(z, 64, torch.Generator().manual_seed(6)))
