"""Reference solutions by Diffrax, for equations without an exact one."""

from typing import Annotated

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from .._arguments import ArrayLike, Tolerance, at_least, checked

_MAX_STEPS = 1_000_000


@checked
def burgers_reference(
    t: Float64[ArrayLike, "..."],
    nu: Annotated[float, at_least(1e-5)],
    *,
    n: Annotated[int, at_least(8)] | None = None,
    rtol: Tolerance = 1e-9,
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "m n"]]:
    """Burgers' equation by the method of lines: Fourier in space, Diffrax in time.

    The sine is odd and periodic on [-1, 1], and stays so: a periodic solver satisfies
    the boundary condition by itself. The flux is dealiased by the 2/3 rule.

    Args:
        t: m increasing times in [0, 1].
        nu: the viscosity, at least 1e-5.
        n: points in x, 8 or more; by default enough for the shock, about 5.5 / ν.
        rtol: relative tolerance in time, below 1; the absolute one is a thousandth of
            it.

    Returns:
        The grid x, shape (n,), without the right end, and u, shape (m, n), in float64.

    Raises:
        ValueError: times not increasing or outside [0, 1], or a tolerance that takes
            more than 1 000 000 steps.
    """
    t = np.atleast_1d(t)
    if t.ndim != 1 or not np.all((t >= 0) & (t <= 1)) or np.any(np.diff(t) <= 0):
        raise ValueError(f"t = {t}, expected increasing times in [0, 1]")
    if n is None:
        n = max(128, 2 ** int(np.ceil(np.log2(5.5 / nu))))
    # JAX's strict mode would forbid products of real and complex numbers.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        x = jnp.linspace(-1, 1, n, endpoint=False)
        k = jnp.pi * jnp.arange(n // 2 + 1)
        keep = (jnp.arange(n // 2 + 1) < n // 3).astype(jnp.float64)
        # As arrays: Python floats would be compiled in.
        nu_, rtol_ = jnp.asarray(nu), jnp.asarray(rtol)
        solution = dfx.diffeqsolve(
            dfx.ODETerm(_slope),
            dfx.Dopri8(),
            t0=0.0,
            t1=1.0,
            dt0=None,
            y0=-jnp.sin(jnp.pi * x),
            args=(k, keep, nu_),
            saveat=dfx.SaveAt(ts=jnp.asarray(t)),
            # Diffusion is stiff for an explicit solver: the step is bounded by
            # stability, so PI coefficients keep it from being rejected all the time.
            stepsize_controller=dfx.PIDController(
                rtol=rtol_, atol=rtol_ * 1e-3, pcoeff=0.3, icoeff=0.4
            ),
            max_steps=_MAX_STEPS,
            throw=False,
        )
        if solution.result != dfx.RESULTS.successful:
            raise ValueError(
                f"rtol = {rtol:g} takes more than {_MAX_STEPS} steps, expected a "
                f"larger one, or fewer points than n = {n}"
            )
        return np.asarray(x), np.asarray(solution.ys)


def _slope(t: ArrayLike, u: jax.Array, args: tuple) -> jax.Array:
    k, keep, nu = args
    flux = jnp.fft.rfft(u * u / 2) * keep
    return jnp.fft.irfft(-1j * k * flux - nu * k**2 * jnp.fft.rfft(u), u.size)
