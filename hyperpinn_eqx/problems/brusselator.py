"""A reaction that oscillates, and diffuses: the Brusselator, and its reference."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64
from numpy.polynomial import chebyshev
from scipy.integrate import solve_ivp

from .._arguments import ArrayLike, Finite, MayBeEmpty, checked
from ..box import Box
from ..networks.jets import Jet
from .base import AbstractPDE, condition
from .chebyshev import collocation

Jets = tuple[Jet, Jet]

_D = 1 / 50  # how fast both diffuse
# Chebyshev points of the reference.
_N = 40


class Brusselator(AbstractPDE):
    """The Brusselator, u_t = 1 + u²v - (B + 1) u + D u_xx, v_t = Bu - u²v + D v_xx.

    For t in [0, 6] and x in [0, 1], with D = 1/50, from u = 1 + sin 2πx and v = B; at
    both walls u = 1 and v = B, which is the steady state. It is stable for B < 2, and
    above that the reaction by itself oscillates; B in [1, 3]. (Hairer and Wanner 1996,
    Solving Ordinary Differential Equations II, IV.1, there with B = 3.)

    >>> u, v = Brusselator().exact(6.0, np.array([0.0, 0.5]), 1.0)
    >>> bool(np.all(abs(u - 1) < 0.01) and np.all(abs(v - 1) < 0.01))
    True
    """

    fields: ClassVar[tuple[str, ...]] = ("u", "v")
    domain: ClassVar[Box] = Box(t=(0.0, 6.0), x=(0.0, 1.0))
    parameters: ClassVar[Box] = Box(B=(1.0, 3.0))

    def residual(
        self, w: Jets, tx: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> tuple[Float[Array, ""], ...]:
        u, v = w
        made, turned = lam * u.value, u.value**2 * v.value
        return (
            u.t - 1 - turned + made + u.value - _D * u.xx,
            v.t - made + turned - _D * v.xx,
        )

    @condition(t=0)
    def start(
        self, w: Jets, tx: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> tuple[Float[Array, ""], ...]:
        u, v = w
        return u.value - 1 - jnp.sin(2 * jnp.pi * tx[1]), v.value - lam

    @condition(x=(0, 1))
    def walls(
        self, w: Jets, tx: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> tuple[Float[Array, ""], ...]:
        u, v = w
        return u.value - 1, v.value - lam

    @checked
    def exact(
        self,
        t: MayBeEmpty[Finite[Float64[ArrayLike, "..."]]],
        x: MayBeEmpty[Finite[Float64[ArrayLike, "..."]]],
        lam: Finite[Float64[ArrayLike, ""]],
    ) -> tuple[Float64[np.ndarray, "*n"], ...]:
        """A reference, by Chebyshev collocation in x and an implicit method in time.

        Args:
            t: time in [0, 6].
            x: position in [0, 1]; broadcasts against t.
            lam: B.

        Returns:
            u and v, with an error of at most 1e-6.
        """
        t, x = np.broadcast_arrays(t, x)
        if not t.size:
            return np.zeros(t.shape), np.zeros(t.shape)
        nodes, slopes = collocation(_N)
        second = 4 * slopes @ slopes
        inside = slice(1, -1)

        def whole(state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            u, v = np.ones(_N + 1), np.full(_N + 1, lam)
            u[inside], v[inside] = np.split(state, 2)
            return u, v

        def rate(_: float, state: np.ndarray) -> np.ndarray:
            u, v = whole(state)
            turned = u**2 * v
            du = 1 + turned - (lam + 1) * u + _D * second @ u
            dv = lam * u - turned + _D * second @ v
            return np.concatenate([du[inside], dv[inside]])

        def slope(_: float, state: np.ndarray) -> np.ndarray:
            u, v = whole(state)
            spread = _D * second[inside, inside]
            uv, uu = np.diag((2 * u * v)[inside]), np.diag((u**2)[inside])
            eye = np.eye(_N - 1)
            return np.block(
                [[uv - (lam + 1) * eye + spread, uu], [lam * eye - uv, spread - uu]]
            )

        start = np.concatenate(
            [1 + np.sin(np.pi * (nodes[inside] + 1)), np.full(_N - 1, lam)]
        )
        times, which = np.unique(t, return_inverse=True)
        found = solve_ivp(
            rate,
            (0.0, max(float(times[-1]), 1e-9)),
            start,
            method="Radau",
            t_eval=times,
            jac=slope,
            rtol=1e-8,
            atol=1e-10,
        )
        to = np.linalg.inv(chebyshev.chebvander(nodes, _N))
        basis = chebyshev.chebvander(2 * x - 1, _N)
        # Both fields at all nodes, one row for each time.
        states = np.array([whole(state) for state in found.y.T]) @ to.T
        u, v = np.einsum("...n,...fn->f...", basis, states[which.reshape(t.shape)])
        return u, v
