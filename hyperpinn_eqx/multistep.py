"""Linear multistep methods, read backwards: from a trajectory to its vector field.

A linear multistep method with k steps ties states to slopes f by

    Σ_j α_j x_{n-j} = Δt Σ_j β_j f(x_{n-j}),    j = 0, …, k.

A solver knows f and looks for the next state. Discovery knows the states and looks
for f (Raissi, Perdikaris and Karniadakis 2018), and other schemes are good for that.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Field = Callable[[Float[Array, " d"]], Float[Array, " d"]]


@dataclasses.dataclass(frozen=True)
class Multistep:
    """A linear multistep method; make one by `adams_bashforth` and its like.

    Attributes:
        name: how tables call it.
        alpha: α_0, …, α_k, the weights of x_n, …, x_{n-k}.
        beta: β_0, …, β_k, the weights of f(x_n), …, f(x_{n-k}).
        order: of consistency, p: the scheme's residual is O(Δt^p).

    >>> scheme = adams_moulton(1)
    >>> print(*scheme.alpha, *scheme.beta)
    1 -1 1/2 1/2
    """

    name: str
    alpha: tuple[Fraction, ...]
    beta: tuple[Fraction, ...]
    order: int

    @property
    def steps(self) -> int:
        """The number of steps k; a residual needs k + 1 consecutive states."""
        return len(self.alpha) - 1

    @property
    def error_constant(self) -> float:
        """The constant C of the leading error of the scheme.

        `Σ α_j x_{n-j} / Δt - Σ β_j x'_{n-j} = C Δt^p x^(p+1) + O(Δt^(p+1))`.
        """
        return float(_defect(self.alpha, self.beta, self.order + 1))

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


def adams_bashforth(k: int) -> Multistep:
    """Adams-Bashforth with k steps, order k: slopes at the k states before the last.

    Raises:
        ValueError: k outside 1, …, 10.
    """
    _steps("adams_bashforth", k)
    alpha = _increment(k)
    beta = _exact_for(lambda b: (alpha, (Fraction(0), *b)), range(1, k + 1))
    return Multistep(f"Adams-Bashforth {k}", alpha, (Fraction(0), *beta), k)


def adams_moulton(k: int) -> Multistep:
    """Adams-Moulton with k steps, order k + 1; k = 1 is the trapezoid rule.

    It is the scheme of paper eqs. 8 and 9. (k = 0 would be backward Euler, `bdf(1)`.)

    Raises:
        ValueError: k outside 1, …, 10.
    """
    _steps("adams_moulton", k)
    alpha = _increment(k)
    beta = _exact_for(lambda b: (alpha, tuple(b)), range(1, k + 2))
    return Multistep(f"Adams-Moulton {k}", alpha, beta, k + 1)


def bdf(k: int) -> Multistep:
    """The backward differentiation formula with k steps, order k.

    As a solver it is unstable beyond six steps; for discovery every k converges.

    Raises:
        ValueError: k outside 1, …, 10.
    """
    _steps("bdf", k)
    beta = (Fraction(1), *[Fraction(0)] * k)
    alpha = _exact_for(lambda a: (tuple(a), beta), range(k + 1))
    # The usual form has α_0 = 1.
    alpha, beta = (tuple(c / alpha[0] for c in cs) for cs in (alpha, beta))
    return Multistep(f"BDF {k}", alpha, beta, k)


def residual(
    scheme: Multistep, field: Field, states: Float[Array, "n d"], dt: float
) -> Float[Array, " d"]:
    """`Σ α_j x_{n-j} / Δt - Σ β_j f(x_{n-j})`: paper eq. 9 for the trapezoid rule.

    Divided by Δt, it is an error in f, in the units of f.

    Args:
        scheme: the multistep method.
        field: the vector field f.
        states: k + 1 consecutive states, oldest first, shape (k + 1, d).
        dt: the time Δt between them.

    Raises:
        ValueError: another number of states, or Δt not positive.

    >>> x = jnp.array([[1.0], [1.1]])
    >>> print(residual(adams_moulton(1), lambda x: x, x, 0.1).round(6))
    [-0.05]
    """
    if states.ndim != 2 or len(states) != scheme.steps + 1:
        raise ValueError(
            f"states has shape {states.shape}, expected ({scheme.steps + 1}, d): "
            f"{scheme.name} needs {scheme.steps + 1} consecutive states"
        )
    _positive(dt)
    total = jnp.zeros_like(states[0])
    for a, b, x in zip(scheme.alpha, scheme.beta, states[::-1], strict=True):
        # Zero weights cost no evaluation of the field.
        total = total + float(a) / dt * x if a else total
        total = total - float(b) * field(x) if b else total
    return total


def remove_bias(field: Field, scheme: Multistep, dt: float) -> Field:
    """Removes the leading bias of a vector field learned by a multistep scheme.

    A network g that satisfies the scheme exactly is not f but `g = f + c Δt^p x^(p+1)`
    to leading order, with `c = C / Σ β_j`. Along the flow of g, `x^(p+1)` is the p-th
    Lie derivative `D_g^p g`, so that `f ≈ g - c Δt^p D_g^p g`: p nested Jacobian-vector
    products after training, no new data. For the trapezoid rule, this is
    `f ≈ g + Δt²/12 D_g² g`.

    Args:
        field: the learned field g.
        scheme: what it was learned by.
        dt: the time step of its data.

    Raises:
        ValueError: Δt not positive.

    >>> scheme, dt = adams_moulton(1), 0.1
    >>> g = lambda x: 2 / dt * jnp.tanh(dt / 2) * x  # what the rule makes of f(x) = x
    >>> one = jnp.ones(1)
    >>> print((g(one) - 1).round(5), (remove_bias(g, scheme, dt)(one) - 1).round(5))
    [-0.00083] [-0.]
    """
    return _shift(field, scheme, dt, -1.0)


def add_bias(field: Field, scheme: Multistep, dt: float) -> Field:
    """The field `g ≈ f + c Δt^p D_f^p f` that a perfect network would learn of f.

    The inverse of `remove_bias` to leading order, with the same arguments and errors.
    """
    return _shift(field, scheme, dt, 1.0)


def _shift(field: Field, scheme: Multistep, dt: float, sign: float) -> Field:
    _positive(dt)
    c = scheme.error_constant / float(sum(scheme.beta))
    scale = sign * c * dt**scheme.order

    def derivative(times: int) -> Field:
        if times == 0:
            return field
        inner = derivative(times - 1)
        return lambda x: jax.jvp(inner, (x,), (field(x),))[1]

    last = derivative(scheme.order)
    return lambda x: field(x) + scale * last(x)


def _positive(dt: float) -> None:
    if not (dt > 0 and math.isfinite(dt)):
        raise ValueError(f"dt = {dt}, expected a positive number")


def _increment(k: int) -> tuple[Fraction, ...]:
    """α of x_n - x_{n-1}."""
    return (Fraction(1), Fraction(-1), *[Fraction(0)] * (k - 1))


def _steps(function: str, k: int) -> None:
    if not 1 <= k <= 10:
        raise ValueError(f"{function}: k = {k}, expected 1, ..., 10")


def _defect(
    alpha: tuple[Fraction, ...], beta: tuple[Fraction, ...], q: int
) -> Fraction:
    """What the scheme with Δt = 1 makes of x(t) = t^q / q! around t_n = 0."""
    states = sum(a * (-j) ** q for j, a in enumerate(alpha)) / math.factorial(q)
    if q == 0:
        return Fraction(states)
    slopes = sum(b * (-j) ** (q - 1) for j, b in enumerate(beta))
    return Fraction(states - slopes / math.factorial(q - 1))


def _exact_for(
    scheme: Callable[[Sequence[Fraction]], tuple[tuple, tuple]], powers: range
) -> tuple[Fraction, ...]:
    """The free coefficients for which no t^q of `powers` has a defect."""
    n = len(powers)
    constant = [_defect(*scheme([Fraction(0)] * n), q) for q in powers]
    # The defect is affine in the coefficients: unit vectors give the matrix.
    units = [[Fraction(int(i == j)) for j in range(n)] for i in range(n)]
    rows = [
        [_defect(*scheme(unit), q) - c for unit in units] + [-c]
        for q, c in zip(powers, constant, strict=True)
    ]
    for i in range(n):  # Gauss-Jordan in fractions: no rounding at all
        pivot = next(r for r in range(i, n) if rows[r][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [v / rows[i][i] for v in rows[i]]
        for r in set(range(n)) - {i}:
            factor = rows[r][i]
            rows[r] = [v - factor * w for v, w in zip(rows[r], rows[i], strict=True)]
    return tuple(row[-1] for row in rows)
