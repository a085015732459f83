"""Units of a family's own: in other units of the same equation they are the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx.physics.units import dimensionless

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize(
    "units",
    [
        {"time": 1024.0},
        {"length": 2.0**-10},
        {"heat": 2.0**9, "offset": 2.0**8},
        {"equation": 2.0**20},
        {"time": 2.0**8, "length": 64.0, "heat": 0.25, "equation": 0.5},
    ],
    ids=["time", "length", "heat", "equation", "all"],
)
def test_other_units_are_the_same_family(units, rod):
    def evaluated(made):
        """Residual and conditions at places and for u that mean the same."""
        rng, found = np.random.default_rng(0), []
        for _ in range(5):
            place, derivatives = jnp.asarray(rng.uniform(size=2)), rng.normal(size=3)
            lam = made.parameters.unscale(jnp.asarray(rng.uniform(-1, 1, 2)))
            value, u_t, u_xx = map(jnp.asarray, derivatives)
            jet = hpx.Jet(value, {"t": u_t, "xx": u_xx})
            found += [made.residual(jet, place, lam), made.initial(place, lam)]
            found.append(made.boundary(place, lam))
        return np.array(found)

    one, other = dimensionless(rod()), dimensionless(rod(**units))
    assert one.domain == other.domain == hpx.Box(t=(0, 1), x=(0, 1))
    np.testing.assert_allclose(evaluated(other), evaluated(one), rtol=1e-9, atol=1e-12)


def test_a_solution_stays_one(rod):
    made = dimensionless(rod(time=8.0, length=0.25, heat=300.0, offset=20.0))
    lam = jnp.array([0.1 * 0.25**2 / 8.0, 0.0])

    def exact(place):
        rate = 0.1 * np.pi**2
        u = 20 + 300 * jnp.exp(-rate * place[0]) * jnp.sin(jnp.pi * place[1])
        return (u - made.mean) / made.half

    points = hpx.uniform(made.domain, 20, key=jax.random.key(0))
    r = hpx.residuals(exact, made, lam, points)
    np.testing.assert_allclose(r, np.zeros(20), atol=1e-12)
    start = points.at[:, 0].set(0.0)
    known = jax.vmap(made.initial, (0, None))(start, lam)
    np.testing.assert_allclose(known, jax.vmap(exact)(start), atol=1e-12)


def zero(x, lam):
    return 0.0 * lam


def test_where_all_conditions_are_zero_the_source_tells_the_size_of_u(steady):
    def beam(length):
        return dimensionless(
            steady(lambda u, x, lam: u.xx + lam, known=zero, x=(0, length))
        )

    small, large = beam(1.0), beam(1000.0)
    assert small.mean == large.mean == 0.0
    np.testing.assert_allclose(large.half, 1e6 * small.half, rtol=1e-9)
    # The largest deflection is q / 8.
    assert 2 / 8 < small.half < 10 * 2 / 8


def test_one_value_alone_is_where_u_is_and_not_how_far_it_goes(steady):
    cooling = steady(
        lambda u, t, lam: u.t + lam * (u.value - 299.0),
        ("t",),
        lambda t, lam: 300.0 + 0 * lam,
        t=(0, 1),
    )
    made = dimensionless(cooling)
    assert made.mean == 300.0 and 0.1 < made.half < 3.0


def test_what_nothing_tells_is_asked_for(steady):
    free = steady(lambda u, x, lam: u.xx + lam * u.value, known=zero)
    with pytest.raises(ValueError, match="scale"):
        dimensionless(free)
    made = dimensionless(free, 7.0)
    assert made.half == 7.0 and made.outputs == hpx.Box(u=(-7.0, 7.0))
    with pytest.raises(ValueError, match="residual"):
        dimensionless(steady(lambda u, x, lam: 1.0 + 0 * u.xx, known=zero), 1.0)


def test_a_coefficient_may_be_singular_at_an_end(steady):
    disk = steady(
        lambda u, r, lam: u.rr + u.r / r[0] + lam,
        ("r", "rr"),
        lambda r, lam: lam * (1 - r[0] ** 2) / 4,
        r=(0, 1),
    )
    made = dimensionless(disk)
    assert 0.1 < made.half < 2.0 and 0.1 < made.size < 20.0


def test_logarithmic_and_periodic_coordinates_keep_their_kind(steady):
    shell = steady(
        lambda u, at, lam: u.rr + u.r / at[0] + u.aa / at[0] ** 2 - lam,
        ("r", "rr", "aa"),
        lambda at, lam: lam * at[0],
        r=(2.0, 8.0, "log"),
        a=(1.0, 3.0, "periodic"),
    )
    made = dimensionless(shell)
    assert made.domain == hpx.Box(r=(1.0, 4.0, "log"), a=(0.0, 1.0, "periodic"))
    # u = log(r) solves it for q = 0, in its own units too.
    u = lambda p: (jnp.log(2 * p[0]) - made.mean) / made.half  # noqa: E731
    points = hpx.uniform(made.domain, 10, key=jax.random.key(0))
    r = hpx.residuals(u, made, jnp.zeros(1), points)
    np.testing.assert_allclose(r, np.zeros(10), atol=1e-12)
