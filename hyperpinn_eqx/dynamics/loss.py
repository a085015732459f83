"""The loss of paper eq. 9."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from .. import _arguments as checks
from .._arguments import ArrayLike, Count, Finite, above, checked
from ..loss import AbstractLeastSquares, Batch, Term
from .multistep import Multistep, residual
from .trajectories import Trajectories


class MultistepLoss(AbstractLeastSquares):
    """The loss of paper eq. 9 on trajectories, with means in place of sums.

    Its one term is `multistep`. A batch has every λ of the data, and random windows of
    each. It is computed in the precision of the model's weights.

    Args:
        data: trajectories, one set for each λ.
        scheme: the multistep method.
        scale: divides each component of the residual, shape (d,).
        n_windows: windows for each λ.

    Raises:
        ValueError: the scheme does not converge for discovery; the trajectories are too
            short for it or not finite, which the message tells with indices.
    """

    data: Trajectories
    scheme: Multistep = eqx.field(static=True)
    scale: Float[Array, " d"]
    n_windows: int = eqx.field(static=True)

    @checked
    def __init__(
        self,
        data: Trajectories,
        scheme: Multistep,
        scale: Annotated[Float[ArrayLike, " d"], above(0)],
        *,
        n_windows: Count = 400,
    ):
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
        self.scale = checks.array("scale", scale, data.states.shape[3])
        self.n_windows = n_windows

    @property
    def terms(self) -> Mapping[str, Term]:
        """The scheme's residual on windows."""
        return {"multistep": Term(self._residuals)}

    def _residuals(
        self,
        field: Callable[[Array], Array],
        lam: Float[Array, " p"],
        windows: Float[Array, "n length d"],
    ) -> Float[Array, "n d"]:
        def one(states: Array) -> Array:
            return residual(self.scheme, field, states, self.data.dt)

        r = jax.vmap(one)(windows)
        return r / self.scale.astype(r.dtype)[None]

    @checked
    @eqx.filter_jit
    def sample(self, model: Any = None, *, key: PRNGKeyArray) -> Batch:
        """Every λ of the data and random windows of each; `model` is not asked."""
        windows = self.data.windows(self.scheme.steps + 1, self.n_windows, key=key)
        return Batch(self.data.lam, {"multistep": windows})

    @checked
    def at(self, windows: Finite[Float[ArrayLike, "M n length d"]]) -> Batch:
        """The batch of these windows, runs of consecutive states for each λ."""
        m, _, _, d = self.data.states.shape
        length = self.scheme.steps + 1
        windows = checks.array("windows", windows, m, "n", length, d)
        return Batch(self.data.lam, {"multistep": windows})
