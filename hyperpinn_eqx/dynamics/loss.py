"""The loss of paper eq. 9: as mean squares, and as rows for Gauss-Newton."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from .. import _arguments as checks
from .._arguments import array, function, instance, positive
from .._blocks import each_lam
from ..loss import Loss
from ..networks.main import MainNet
from ..networks.model import AbstractModel
from .multistep import Multistep, residual
from .trajectories import Trajectories


def multistep_loss(
    model: AbstractModel,
    lam: Float[ArrayLike, "M p"],
    windows: Float[ArrayLike, "M n length d"],
    *,
    scheme: Multistep,
    dt: float,
    scale: Float[ArrayLike, " d"],
) -> Loss:
    """The multistep loss of paper eq. 9, with means in place of sums.

    It is computed in the precision of the model's weights.

    Args:
        model: a HyperPINN or a baseline.
        lam: M values of λ, shape (M, p).
        windows: n runs of consecutive states for each, shape (M, n, k + 1, d).
        scheme: the multistep method, with k steps.
        dt: the time between states.
        scale: divides each component of the residual, shape (d,).

    Returns:
        A `Loss` with the term `multistep`.

    Raises:
        ValueError: an array of another shape or not finite, or Δt not positive.
        TypeError: an argument of another kind.
    """
    function("model", model)
    instance("scheme", scheme, Multistep)
    dt = positive("dt", dt)
    lam = array("lam", lam, "M", "p", finite=True)
    windows = array("windows", windows, "M", "n", "k + 1", "d", finite=True)
    if len(lam) != len(windows):
        raise ValueError(f"lam has {len(lam)} rows, expected {len(windows)} as windows")
    array("windows", windows, len(lam), "n", scheme.steps + 1, "d")
    scale = array("scale", scale, windows.shape[3], finite=True)

    def one(lam: Array, windows: Array) -> Array:
        net = model(lam)
        r = jax.vmap(lambda states: residual(scheme, net, states, dt))(windows)
        return jnp.mean((r / scale.astype(r.dtype)[None]) ** 2)

    size = windows.shape[1] * windows.shape[2]
    return Loss({"multistep": jnp.mean(each_lam(one, lam, windows, size))})


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
