"""How far apart two attractors are: in the states they visit, and in their spectra."""

import numpy as np
from jaxtyping import Float, Float64

from .._arguments import ArrayLike, Count, Finite, Positive, checked


@checked
def occupancy_divergence(
    found: Float64[ArrayLike, "T d"],
    true: Finite[Float64[ArrayLike, "S d"]],
    *,
    bins: Count = 20,
) -> float:
    """D_stsp: the Kullback-Leibler divergence of state-space occupancies.

    KL(true ‖ found) over a histogram of `bins` cells an axis on the range of the true
    states, with an outer cell for what lies outside and Laplace smoothing (Koppe et
    al. 2019). 0 is perfect. States of `found` that are not finite lie outside.

    Raises:
        ValueError: bins that make more than 10⁸ cells.

    >>> x = np.linspace(0, 1, 1000)[:, None]
    >>> occupancy_divergence(x, x), round(occupancy_divergence(x / 2, x), 1)
    (0.0, 6.8)
    """
    d = true.shape[1]
    if bins**d > 10**8:
        raise ValueError(
            f"bins = {bins} in {d} components, expected at most 1e8 cells in all"
        )
    low, high = true.min(0), true.max(0)
    width = np.maximum(high - low, 1e-12)

    def occupancy(states: np.ndarray) -> np.ndarray:
        inside = np.all((states >= low) & (states <= high), axis=1)
        cell = np.floor((states[inside] - low) / width * bins).astype(int)
        flat = np.ravel_multi_index(tuple(np.minimum(cell, bins - 1).T), (bins,) * d)
        counts = np.bincount(flat, minlength=bins**d + 1).astype(float)
        counts[-1] = np.sum(~inside)
        counts += 1e-5
        return counts / counts.sum()

    p, q = occupancy(true), occupancy(found)
    return float(np.sum(p * np.log(p / q)))


@checked
def spectrum_distance(
    found: Float64[ArrayLike, "T d"],
    true: Finite[Float64[ArrayLike, "T d"]],
    *,
    smoothing: Positive = 5.0,
) -> float:
    """D_H: the Hellinger distance of power spectra, averaged over components.

    Spectra are smoothed by a Gaussian over `smoothing` frequencies and normalised
    (Mikhaeil, Monfared and Durstewitz 2022). 0 is perfect, 1 is disjoint. A component
    at rest has no spectrum: it differs by 1 from any other, and by 0 from itself.
    A run that is not finite, or beyond 10⁷⁵, differs by 1.

    Raises:
        ValueError: a smoothing of more than a 16th of the number of states.
    """
    if 16 * smoothing > len(true):
        raise ValueError(
            f"smoothing = {smoothing:g}, expected at most a 16th of the "
            f"{len(true)} states"
        )
    # The squares of larger ones would overflow in the sums below.
    if not np.all(np.abs(found) < 1e75):
        return 1.0

    p, q = _spectrum(true, smoothing), _spectrum(found, smoothing)
    overlap = np.minimum(np.sum(np.sqrt(p * q), axis=0), 1.0)
    return float(np.mean(np.sqrt(1 - overlap)))


def _spectrum(
    states: Float[np.ndarray, "T d"], smoothing: float
) -> Float[np.ndarray, "F d"]:
    power = np.abs(np.fft.rfft(states - states.mean(0), axis=0)) ** 2
    reach = np.arange(1 + 2 * np.ceil(4 * smoothing)) - np.ceil(4 * smoothing)
    kernel = np.exp(-((reach / smoothing) ** 2) / 2)
    smooth = np.stack(
        [np.convolve(p, kernel / kernel.sum(), "same") for p in power.T], axis=1
    )
    total = smooth.sum(0)
    # Rounding is no motion.
    rest = total < 1e-20 * np.maximum(1.0, np.sum(states**2, axis=0)) ** 2
    shares = smooth / np.where(rest, 1.0, total)
    return np.vstack([np.where(rest, 0.0, shares), rest])
