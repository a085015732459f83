"""Chebyshev collocation, for references of families that have no formula."""

import numpy as np
from jaxtyping import Float64


def collocation(
    n: int,
) -> tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, "m m"]]:
    """Chebyshev points in [-1, 1], n + 1 of them, and the derivative there.

    The points come from the left; the derivative is a matrix of values at them.
    (Trefethen 2000, Spectral Methods in MATLAB, chapter 6.)
    """
    x = -np.cos(np.pi * np.arange(n + 1) / n)
    x[[0, -1]] = -1, 1
    sign = np.array([2, *[1] * (n - 1), 2]) * (-1.0) ** np.arange(n + 1)
    matrix = np.outer(sign, 1 / sign) / (x[:, None] - x + np.eye(n + 1))
    return x, matrix - np.diag(matrix.sum(axis=1))
