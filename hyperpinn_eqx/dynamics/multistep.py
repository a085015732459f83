"""Linear multistep methods, read backwards: from a trajectory to its vector field.

A linear multistep method with k steps ties states to slopes f by

    Σ_j α_j x_{n-j} = Δt Σ_j β_j f(x_{n-j}),    j = 0, …, k.

A solver knows f and looks for the next state. Discovery knows the states and looks
for f (Raissi, Perdikaris and Karniadakis 2018), and other schemes are good for that.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _arguments as checks
from .._arguments import ArrayLike, Count, Positive, at_least, at_most, checked

Steps = Annotated[int, at_least(1), at_most(10)]
Field = Callable[[Float[Array, " d"]], Float[Array, " d"]]


@checked
@dataclasses.dataclass(frozen=True)
class Multistep:
    """A linear multistep method; make one by `adams_bashforth` and its like.

    Attributes:
        name: how tables call it.
        alpha: α_0, …, α_k, the weights of x_n, …, x_{n-k}.
        beta: β_0, …, β_k, the weights of f(x_n), …, f(x_{n-k}).
        order: of consistency, p: the scheme's residual is O(Δt^p).

    Raises:
        ValueError: not as many β as α, or the scheme is not consistent of this order.

    >>> scheme = adams_moulton(1)
    >>> print(*scheme.alpha, *scheme.beta)
    1 -1 1/2 1/2
    """

    name: str
    alpha: tuple[Fraction, ...]
    beta: tuple[Fraction, ...]
    order: Count

    def __post_init__(self) -> None:
        defects = (_defect(self.alpha, self.beta, q) for q in range(self.order + 1))
        # A scheme whose β add up to 0 would say nothing of a constant slope.
        fits = len(self.alpha) == len(self.beta) and abs(float(sum(self.beta))) > 1e-9
        if not (fits and all(abs(defect) <= 1e-9 for defect in defects)):
            raise ValueError(
                f"alpha = {self.alpha}, beta = {self.beta}, order = {self.order}, "
                "expected as many α as β, of a scheme that is consistent of this order"
            )

    @property
    def steps(self) -> int:
        """The number of steps k; a residual needs k + 1 consecutive states."""
        return len(self.alpha) - 1

    @property
    def error_constant(self) -> float:
        """The constant C of the leading error of the scheme.

        `Σ α_j x_{n-j} / Δt - Σ β_j x'_{n-j} = C Δt^p x^(p+1) + O(Δt^(p+1))`.
        """
        return _defect(self.alpha, self.beta, self.order + 1)

    @property
    def discovery_root(self) -> float:
        """The largest `|r|` among the roots of `Σ β_j r^(k-j)`.

        Slopes follow from states by the recursion Σ β_j f_{n-j} = known. An error
        made in one of them is multiplied by such a root at every step: below 1 it
        dies out, at 1 it stays, above 1 it grows without bound. (Keller and Du 2021,
        SIAM J. Numer. Anal. 59(1).)
        """
        beta = np.trim_zeros(np.array([float(b) for b in self.beta]))
        return float(np.max(np.abs(np.roots(beta)), initial=0.0))

    def check_discovery(self) -> None:
        """Makes sure that the scheme can discover a vector field.

        Raises:
            ValueError: an error in the slopes grows from step to step.
        """
        root = self.discovery_root
        if root > 1 + 1e-9:
            raise ValueError(
                f"scheme = {self.name}, expected one that converges for discovery: an "
                f"error in f grows by {root:.2f} at every step; Adams-Moulton with one "
                "step (the trapezoid rule), Adams-Bashforth with up to six and all "
                "BDF converge"
            )


@checked
def adams_bashforth(k: Steps) -> Multistep:
    """Adams-Bashforth with k steps, order k: slopes at the k states before the last."""
    beta = (Fraction(0), *_adams([1] * k))
    return Multistep(f"Adams-Bashforth {k}", _increment(k), beta, k)


@checked
def adams_moulton(k: Steps) -> Multistep:
    """Adams-Moulton with k steps, order k + 1; k = 1 is the trapezoid rule.

    It is the scheme of paper eqs. 8 and 9. (k = 0 would be backward Euler, `bdf(1)`.)
    """
    return Multistep(f"Adams-Moulton {k}", _increment(k), _adams([1] + [0] * k), k + 1)


@checked
def bdf(k: Steps) -> Multistep:
    """The backward differentiation formula with k steps, order k.

    As a solver it is unstable beyond six steps; for discovery every k converges.
    """
    # Δt f_n = Σ_m ∇^m x_n / m; the usual form has α_0 = 1.
    alpha = _differences([Fraction(0), *(Fraction(1, m) for m in range(1, k + 1))])
    beta = (1 / alpha[0], *[Fraction(0)] * k)
    return Multistep(f"BDF {k}", tuple(a / alpha[0] for a in alpha), beta, k)


@checked
def residual(
    scheme: Multistep, field: Field, states: Float[ArrayLike, "n d"], dt: Positive
) -> Float[Array, " d"]:
    """`Σ α_j x_{n-j} / Δt - Σ β_j f(x_{n-j})`: paper eq. 9 for the trapezoid rule.

    Divided by Δt, it is an error in f, in the units of f and in f's precision.

    Args:
        scheme: the multistep method.
        field: the vector field f.
        states: k + 1 consecutive states, oldest first, shape (k + 1, d).
        dt: the time Δt between them.

    Raises:
        ValueError: another number of states, or a field that gives something else than
            a slope for each component of the state.

    >>> x = jnp.array([[1.0], [1.1]])
    >>> print(residual(adams_moulton(1), lambda x: x, x, 0.1).round(6))
    [-0.05]
    """
    if len(states) != scheme.steps + 1:
        raise ValueError(
            f"states has shape {states.shape}, expected ({scheme.steps + 1}, d): "
            f"{scheme.name} needs {scheme.steps + 1} consecutive states"
        )
    change, slopes = jnp.zeros_like(states[0]), []
    for a, b, x in zip(scheme.alpha, scheme.beta, states[::-1], strict=True):
        # Zero weights cost no evaluation of the field.
        if a:
            change = change + float(a) / dt * x
        if b:
            slopes.append(float(b) * slope(field, x))
    return functools.reduce(operator.sub, slopes, change.astype(slopes[0].dtype))


def slope(field: Field, x: Float[Array, " d"]) -> Float[Array, " d"]:
    """f(x), shape (d,); a network with a single output may give a scalar.

    Raises:
        ValueError: f(x) is no slope for each component of x.
    """
    value = checks.array("field(x)", field(x), "...")
    return checks.array("field(x)", jnp.atleast_1d(value), *x.shape)


def _increment(k: int) -> tuple[Fraction, ...]:
    """α of x_n - x_{n-1}."""
    return (Fraction(1), Fraction(-1), *[Fraction(0)] * (k - 1))


def _defect(alpha: Sequence[Fraction], beta: Sequence[Fraction], q: int) -> float:
    """What the scheme with Δt = 1 makes of x(t) = t^q / q! around t_n = 0."""
    states = sum(a * (-j) ** q for j, a in enumerate(alpha)) / math.factorial(q)
    if q == 0:
        return float(states)
    slopes = sum(b * (-j) ** (q - 1) for j, b in enumerate(beta))
    return float(states - slopes / math.factorial(q - 1))


def _differences(weights: Sequence[Fraction]) -> tuple[Fraction, ...]:
    """The backward differences `Σ_m w_m ∇^m x_n` as weights of x_n, x_{n-1}, ...."""
    return tuple(
        sum(w * (-1) ** j * math.comb(m, j) for m, w in enumerate(weights))
        for j in range(len(weights))
    )


def _adams(totals: Sequence[int]) -> tuple[Fraction, ...]:
    """The β of an Adams method, from `Σ_i γ_{m-i} / (i+1)` of its differences' weights.

    Hairer, Nørsett and Wanner (1993), Solving Ordinary Differential Equations I, III.1.
    """
    gamma: list[Fraction] = []
    for m, total in enumerate(totals):
        known = (gamma[m - i] / (i + 1) for i in range(1, m + 1))
        gamma.append(Fraction(total) - sum(known))
    return _differences(gamma)
