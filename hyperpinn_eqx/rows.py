"""Losses as rows of a least-squares problem, for Gauss-Newton."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from .jets import jets
from .losses import Weight, residuals, targets, unpack
from .mainnet import MainNet
from .model import AbstractModel
from .multistep import Multistep, residual
from .problems.base import AbstractPDE
from .sampling import residual_adaptive, spread
from .trajectories import Trajectories


class Item(eqx.Module):
    """What one row needs to know: where it is, and what it asks for there."""

    point: Float[Array, "*n d"]
    target: Float[Array, "*n"]
    scale: Float[Array, "*n"]
    is_data: Bool[Array, "*n"]


class PINNRows(eqx.Module):
    """The loss of paper eq. 6 as a sum of squares over rows.

    For each λ there are `n_points` rows √(α/n) w N[u; λ] at residual-adaptive points,
    and a row for every initial and boundary point. Their squares add up to
    `pinn_loss` at those points.

    Attributes:
        problem: the family of equations.
        initial: points of the initial time, shape (I, d).
        boundary: points of the boundary in space, shape (B, d).
        n_points: collocation points for each λ.
        alpha: the weight α of the physics term.
        weight: multiplies each residual, see `slope_weight`.
    """

    problem: AbstractPDE
    initial: Float[Array, "I d"]
    boundary: Float[Array, "B d"]
    n_points: int = eqx.field(static=True)
    alpha: float = eqx.field(static=True, default=1.0)
    weight: Weight | None = eqx.field(static=True, default=None)

    def __call__(
        self, net: MainNet, lam: Float[Array, " p"], item: Item
    ) -> Float[Array, ""]:
        """One row."""
        problem = self.problem
        u = jets(net, item.point[None], problem.derivatives, problem.domain.names)
        u = jax.tree.map(lambda a: a[0], u)
        value = unpack(problem.parameters, lam)
        r = problem.residual(u, item.point, value)
        if self.weight is not None:
            r = self.weight(u) * r
        return item.scale * jnp.where(item.is_data, u.value - item.target, r)

    @eqx.filter_jit
    def draw(
        self, model: AbstractModel, lams: Float[Array, "M p"], key: PRNGKeyArray
    ) -> Item:
        """The rows of M values of λ, arrays of shape (M, K)."""

        def one(pair: tuple[Array, PRNGKeyArray]) -> Item:
            lam, key = pair
            net = model(lam)
            points = residual_adaptive(
                lambda p: residuals(net, self.problem, lam, p, weight=self.weight),
                self.problem.domain,
                self.n_points,
                key=key,
            )
            wanted = targets(self.problem, lam, self.initial, self.boundary)
            physics, data = jnp.zeros_like(points[:, 0]), jnp.zeros_like(wanted)
            return Item(
                jnp.concatenate([points, self.initial, self.boundary]),
                jnp.concatenate([physics, wanted]),
                jnp.concatenate(
                    [
                        physics + math.sqrt(self.alpha / len(physics)),
                        data + math.sqrt(1 / len(data)),
                    ]
                ),
                jnp.concatenate([physics > 0, data == 0]),
            )

        return jax.lax.map(one, (lams, jr.split(key, len(lams))))

    @eqx.filter_jit
    def batch(
        self, model: AbstractModel, key: PRNGKeyArray, n_lam: int
    ) -> tuple[Float[Array, "M p"], Item]:
        """n_lam values of λ, the ends of the range among them, and their rows."""
        box = self.problem.parameters
        lam_key, key = jr.split(key)
        # Nothing between them speaks for the ends, and they are the hardest.
        ends = jnp.array([box.low, box.high])
        lams = jnp.concatenate([ends, spread(box, n_lam - 2, key=lam_key)])
        return lams, self.draw(model, lams, key)


class Window(eqx.Module):
    """What one row of a multistep loss needs to know.

    Attributes:
        states: consecutive states, oldest first.
        component: which component of the residual the row is.
    """

    states: Float[Array, "*n length d"]
    component: Int[Array, "*n"]


class MultistepRows(eqx.Module):
    """The multistep loss of paper eq. 9 as a sum of squares over rows.

    The squares of a batch add up to `multistep_loss` on the same windows, once for
    each λ.

    Attributes:
        data: trajectories, one set for each λ.
        scheme: the multistep method.
        scale: divides each component of the residual, shape (d,).
        n_windows: windows for each λ; each makes d rows.

    Raises:
        ValueError: the scheme does not converge for discovery, or the trajectories
            are too short for it or not finite.
    """

    data: Trajectories
    scheme: Multistep = eqx.field(static=True)
    scale: Float[Array, " d"]
    n_windows: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        self.scheme.check_discovery()
        if not jnp.all(self.data.finished):
            raise ValueError("data holds unfinished trajectories, expected finite ones")
        if self.data.states.shape[2] <= self.scheme.steps:
            raise ValueError(
                f"data has {self.data.states.shape[2]} states a trajectory, expected "
                f"more than the {self.scheme.steps} step(s) of {self.scheme.name}"
            )

    def __call__(
        self, net: MainNet, lam: Float[Array, " p"], item: Window
    ) -> Float[Array, ""]:
        """One row."""
        r = residual(self.scheme, net, item.states, self.data.dt) / self.scale
        return r[item.component] / math.sqrt(self.n_windows * len(r))

    @eqx.filter_jit
    def batch(
        self, model: AbstractModel, key: PRNGKeyArray
    ) -> tuple[Float[Array, "M p"], Window]:
        """Every λ of the data and random windows of each; `model` is not asked."""
        windows = self.data.windows(self.scheme.steps + 1, self.n_windows, key=key)
        m, n, _, d = windows.shape
        component = jnp.broadcast_to(jnp.arange(d), (m, n, d)).reshape(m, n * d)
        return self.data.lam, Window(jnp.repeat(windows, d, axis=1), component)
