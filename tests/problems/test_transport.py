import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np

import hyperpinn_eqx as hpx

exact = hpx.Transport().exact


def solve(lam, n):
    """u(1, x) by the method of lines: central differences of order two, Diffrax."""
    c, D, r = lam
    x, h = jnp.linspace(0, 2, n + 1), 2 / n

    def slope(t, inside, _):
        # Written without the exact solution: it is zero at walls far from the pulse.
        u = jnp.pad(inside, 1)
        u_x = (u[2:] - u[:-2]) / (2 * h)
        u_xx = (u[2:] - 2 * u[1:-1] + u[:-2]) / h**2
        return D * u_xx - c * u_x - r * inside

    solution = dfx.diffeqsolve(
        dfx.ODETerm(slope),
        dfx.Tsit5(),
        t0=0.0,
        t1=1.0,
        dt0=None,
        y0=jnp.exp(-((x[1:-1] - 0.5) ** 2) / (2 * 0.15**2)),
        stepsize_controller=dfx.PIDController(rtol=1e-8, atol=1e-10),
    )
    return x, jnp.pad(solution.ys[0], 1)


def test_a_solver_comes_to_the_same_pulse_with_its_order(order_of, x64):
    lam, sizes, errors = np.array([0.6, 2e-3, 0.8]), np.array([64, 128, 256]), []
    for n in sizes:
        with jax.numpy_dtype_promotion("standard"):
            x, u = jax.jit(solve, static_argnums=1)(lam, int(n))
        errors.append(float(jnp.sqrt(jnp.mean((u - exact(1.0, x, lam)) ** 2))))
    order = order_of(1 / sizes, errors)
    assert 1.8 < order < 2.2 and errors[-1] < 1e-3
