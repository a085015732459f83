"""Reference solutions by Diffrax, for equations without an exact one."""

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float64


def burgers_reference(
    t: ArrayLike, nu: float, *, n: int | None = None, rtol: float = 1e-9
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "m n"]]:
    """Burgers' equation by the method of lines: Fourier in space, Diffrax in time.

    The sine is odd and periodic on [-1, 1], and stays so: a periodic solver satisfies
    the boundary condition by itself. The flux is dealiased by the 2/3 rule.

    Args:
        t: m increasing times in [0, 1].
        nu: the viscosity.
        n: points in x; by default enough for the shock, about 5.5 / ν.
        rtol: relative tolerance in time; the absolute one is a thousandth of it.

    Returns:
        The grid x, shape (n,), without the right end, and u, shape (m, n), in float64.

    Raises:
        ValueError: times not increasing or outside [0, 1], or ν not positive.
    """
    t = np.atleast_1d(np.asarray(t, dtype=np.float64))
    # Everything the right way round, so that NaN is an error too.
    inside = np.all((t >= 0) & (t <= 1)) and np.all(np.diff(t) > 0)
    if t.ndim != 1 or t.size == 0 or not inside:
        raise ValueError(f"t = {t}, expected increasing times in [0, 1]")
    if not nu > 0:
        raise ValueError(f"nu = {nu}, expected a positive number")
    if n is None:
        n = max(128, 2 ** int(np.ceil(np.log2(5.5 / nu))))
    # JAX's strict mode would forbid products of real and complex numbers.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        x = jnp.linspace(-1, 1, n, endpoint=False)
        k = jnp.pi * jnp.arange(n // 2 + 1)
        keep = (jnp.arange(n // 2 + 1) < n // 3).astype(jnp.float64)

        def slope(t: ArrayLike, u: jax.Array, args: None) -> jax.Array:
            flux = jnp.fft.rfft(u * u / 2) * keep
            return jnp.fft.irfft(-1j * k * flux - nu * k**2 * jnp.fft.rfft(u), n)

        solution = dfx.diffeqsolve(
            dfx.ODETerm(slope),
            dfx.Dopri8(),
            t0=0.0,
            t1=1.0,
            dt0=None,
            y0=-jnp.sin(jnp.pi * x),
            saveat=dfx.SaveAt(ts=jnp.asarray(t)),
            # Diffusion is stiff for an explicit solver: the step is bounded by
            # stability, so PI coefficients keep it from being rejected all the time.
            stepsize_controller=dfx.PIDController(
                rtol=rtol, atol=rtol * 1e-3, pcoeff=0.3, icoeff=0.4
            ),
            max_steps=1_000_000,
        )
        return np.asarray(x), np.asarray(solution.ys)
