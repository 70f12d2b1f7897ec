"""Noise for sampling searches: smooth enough to move the arm instead of shaking it."""

from __future__ import annotations

import numpy as np


def coloured(shape: tuple[int, int, int, int], exponent: float, rng: np.random.Generator) -> np.ndarray:
    """(P, S, n, A) Gaussian noise of unit variance whose power falls with frequency f as f^-exponent along the n knots.

    0 is white. Timmer and König 1995; used for planning by iCEM (arXiv 2008.06389, section 3.1).
    """
    problems, samples, n, actions = shape
    if exponent == 0.0 or n < 2:
        return rng.standard_normal(shape)
    frequencies = np.fft.rfftfreq(n)
    amplitude = np.maximum(frequencies, 1.0 / n) ** (-exponent / 2)
    real, imaginary = rng.standard_normal((2, problems, samples, actions, len(frequencies)))
    imaginary[..., 0] = 0.0  # the mean has no phase, nor, with even n, the highest frequency
    weight = np.full(len(frequencies), 2.0)
    weight[0] = 1.0
    real[..., 0] *= np.sqrt(2.0)
    if n % 2 == 0:
        imaginary[..., -1] = 0.0
        weight[-1] = 1.0
        real[..., -1] *= np.sqrt(2.0)
    noise = np.fft.irfft((real + 1j * imaginary) * amplitude, n=n)
    # Variance of a sample: the sum over frequencies of amplitude² times how often each is counted, twice 1 / n².
    deviation = np.sqrt(2.0 * (weight * amplitude**2).sum()) / n
    return np.moveaxis(noise / deviation, -1, 2)
