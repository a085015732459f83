"""Losses as rows of a least-squares problem, for Gauss-Newton."""

import functools
import itertools
import math

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from . import checks, programs
from .devices import map_lam
from .kernel import AbstractRows, Row
from .losses import Weight, residuals, targets
from .mainnet import MainNet
from .model import AbstractModel
from .multistep import Multistep, residual
from .problems.base import AbstractPDE
from .sampling import residual_adaptive, spread
from .trajectories import Trajectories


class Place(eqx.Module):
    """A collocation point, and by how much its row counts."""

    point: Float[Array, "*n d"]
    scale: Float[Array, "*n"]


class Known(eqx.Module):
    """A point where u is prescribed, the value there, and how much its row counts."""

    point: Float[Array, "*n d"]
    target: Float[Array, "*n"]
    scale: Float[Array, "*n"]


class PINNRows(AbstractRows):
    """The loss of paper eq. 6 as a sum of squares over rows.

    For each λ there are `n_points` rows √(α/n) w N[u; λ] at residual-adaptive points,
    and a row for every initial and boundary point; none of the latter where a problem
    needs no conditions. Their squares add up to `pinn_loss` at those points.

    Attributes:
        problem: the family of equations.
        initial: points of the initial time, shape (I, d).
        boundary: points of the boundary in space, shape (B, d).
        n_points: collocation points for each λ.
        alpha: the weight α of the physics term.
        weight: multiplies each residual, see `slope_weight`.

    Raises:
        ValueError: points of another shape or not finite; a number out of its range.
        TypeError: `problem` is no problem, or `weight` no function.
    """

    problem: AbstractPDE
    initial: Float[Array, "I d"]
    boundary: Float[Array, "B d"]
    n_points: int = eqx.field(static=True)
    alpha: float = eqx.field(static=True)
    weight: Weight | None = eqx.field(static=True)

    def __init__(
        self,
        problem: AbstractPDE,
        initial: Float[ArrayLike, "I d"],
        boundary: Float[ArrayLike, "B d"],
        n_points: int,
        alpha: float = 1.0,
        weight: Weight | None = None,
    ):
        checks.instance("problem", problem, AbstractPDE)
        if weight is not None:
            checks.function("weight", weight)
        d = len(problem.domain)
        points = {
            name: checks.array(name, value, "n", d, finite=True, empty=True)
            for name, value in (("initial", initial), ("boundary", boundary))
        }
        self.problem, self.weight = problem, weight
        self.initial, self.boundary = points["initial"], points["boundary"]
        self.n_points = checks.count("n_points", n_points)
        self.alpha = checks.number("alpha", alpha, 0.0)

    @property
    def groups(self) -> tuple[Row, ...]:
        """The row of a collocation point, and that of a prescribed value."""
        return self.equation, self.condition

    def equation(
        self, net: MainNet, lam: Float[Array, " p"], item: Place
    ) -> Float[Array, ""]:
        """The row of a collocation point."""
        r = residuals(net, self.problem, lam, item.point[None], weight=self.weight)
        return item.scale * r[0]

    def condition(
        self, net: MainNet, lam: Float[Array, " p"], item: Known
    ) -> Float[Array, ""]:
        """The row of a prescribed value."""
        return item.scale * (net(item.point) - item.target)

    def draw(
        self, model: AbstractModel, lams: Float[ArrayLike, "M p"], key: PRNGKeyArray
    ) -> tuple[Place, Known]:
        """The rows of M values of λ, arrays of shape (M, K).

        Raises:
            ValueError: λ of another shape or not finite, or no key.
            TypeError: `model` is no function.
        """
        checks.function("model", model)
        p = len(self.problem.parameters)
        lams = checks.array("lams", lams, "M", p, finite=True)
        return programs.call(self._draw, model, lams, checks.random_key("key", key))

    def _draw(
        self, model: AbstractModel, lams: Array, key: PRNGKeyArray
    ) -> tuple[Place, Known]:
        def one(pair: tuple[Array, PRNGKeyArray]) -> tuple[Place, Known]:
            lam, key = pair
            net = model(lam)
            points = residual_adaptive(
                lambda p: residuals(net, self.problem, lam, p, weight=self.weight),
                self.problem.domain,
                self.n_points,
                key=key,
            )
            wanted = targets(self.problem, lam, self.initial, self.boundary)
            edges = jnp.concatenate([self.initial, self.boundary])
            share = math.sqrt(1 / max(len(edges), 1))
            return (
                Place(
                    points, jnp.full(len(points), math.sqrt(self.alpha / self.n_points))
                ),
                Known(edges, wanted, jnp.full(len(edges), share)),
            )

        return map_lam(one, (lams, jr.split(key, len(lams))))

    def batch(
        self, model: AbstractModel, key: PRNGKeyArray, n_lam: int
    ) -> tuple[Float[Array, "M p"], tuple[Place, Known]]:
        """n_lam values of λ, the corners of the range among them, and their rows.

        All corners where they are at most half of the values, else two opposite ones.

        Raises:
            ValueError: fewer than two values, or no key.
            TypeError: `model` is no function.
        """
        checks.function("model", model)
        n_lam = checks.count("n_lam", n_lam, 2)
        draw = functools.partial(self._batch, n_lam)
        return programs.call(draw, model, checks.random_key("key", key))

    def _batch(
        self, n_lam: int, model: AbstractModel, key: PRNGKeyArray
    ) -> tuple[Array, tuple[Place, Known]]:
        box = self.problem.parameters
        lam_key, key = jr.split(key)
        # Nothing between them speaks for the ends, and they are the hardest.
        ends = list(zip(box.low, box.high, strict=True))
        corners = list(dict.fromkeys(itertools.product(*ends)))
        if 2 * len(corners) > max(n_lam, 4):
            corners = [corners[0], corners[-1]]
        inside = spread(box, n_lam - len(corners), key=lam_key)
        lams = jnp.concatenate([jnp.array(corners), inside])
        return lams, self._draw(model, lams, key)


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
        ValueError: the scheme does not converge for discovery; the trajectories are too
            short for it or not finite, which the message tells with indices; or a
            scale, or number of windows, is not positive.
        TypeError: `data` are no trajectories, or `scheme` no scheme.
    """

    data: Trajectories
    scheme: Multistep = eqx.field(static=True)
    scale: Float[Array, " d"]
    n_windows: int = eqx.field(static=True)

    def __init__(
        self,
        data: Trajectories,
        scheme: Multistep,
        scale: Float[ArrayLike, " d"],
        n_windows: int,
    ):
        checks.instance("data", data, Trajectories)
        checks.instance("scheme", scheme, Multistep)
        scheme.check_discovery()
        data.check_finished("data")
        # Also of data whose states were replaced, as by noisy ones.
        checks.array("data.states", data.states, "M", "I", "T", "d", finite=True)
        if data.states.shape[2] <= scheme.steps:
            raise ValueError(
                f"data has {data.states.shape[2]} states a trajectory, expected more "
                f"than the {scheme.steps} step(s) of {scheme.name}"
            )
        self.data, self.scheme = data, scheme
        self.scale = checks.array("scale", scale, data.states.shape[3], finite=True)
        checks.positive("the least entry of scale", float(jnp.min(self.scale)))
        self.n_windows = checks.count("n_windows", n_windows)

    def __call__(
        self, net: MainNet, lam: Float[Array, " p"], item: Window
    ) -> Float[Array, ""]:
        """One row."""
        r = residual(self.scheme, net, item.states, self.data.dt)
        r = r / self.scale.astype(r.dtype)
        return r[item.component] / math.sqrt(self.n_windows * len(r))

    def batch(
        self, model: AbstractModel, key: PRNGKeyArray
    ) -> tuple[Float[Array, "M p"], Window]:
        """Every λ of the data and random windows of each; `model` is not asked.

        Raises:
            ValueError: no key.
        """
        return self._batch(checks.random_key("key", key))

    @eqx.filter_jit
    def _batch(self, key: PRNGKeyArray) -> tuple[Array, Window]:
        windows = self.data.windows(self.scheme.steps + 1, self.n_windows, key=key)
        m, n, _, d = windows.shape
        component = jnp.broadcast_to(jnp.arange(d), (m, n, d)).reshape(m, n * d)
        return self.data.lam, Window(jnp.repeat(windows, d, axis=1), component)
