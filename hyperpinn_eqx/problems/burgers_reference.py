"""Reference solutions by Diffrax, for equations without an exact one."""

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float64

from .. import _arguments as checks

_MAX_STEPS = 1_000_000


def burgers_reference(
    t: ArrayLike, nu: float, *, n: int | None = None, rtol: float = 1e-9
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
        ValueError: times not increasing or outside [0, 1], ν or n too small, or a
            tolerance that is not between 0 and 1, or takes more than 1 000 000 steps.
    """
    t = np.atleast_1d(checks.numpy_array("t", t, "...", finite=True))
    if t.ndim != 1 or np.any((t < 0) | (t > 1)) or np.any(np.diff(t) <= 0):
        raise ValueError(f"t = {t}, expected increasing times in [0, 1]")
    nu, rtol = checks.number("nu", nu, 1e-5), checks.positive("rtol", rtol)
    if rtol >= 1:
        raise ValueError(f"rtol = {rtol}, expected a number below 1")
    if n is None:
        n = max(128, 2 ** int(np.ceil(np.log2(5.5 / nu))))
    n = checks.count("n", n, 8)
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
