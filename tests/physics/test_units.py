"""Units of a family's own: in other units of the same equation they are the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx.physics.units import Dimensionless, dimensionless

pytestmark = pytest.mark.usefixtures("x64")


def rod(time=1.0, length=1.0, heat=1.0, offset=0.0, equation=1.0, begin=0.0):
    """A cooling rod of conductivity k, in units of the author's choice."""

    class Rod(hpx.AbstractPDE):
        domain = hpx.Box(t=(begin, begin + time), x=(0.0, length))
        parameters = hpx.Box(
            k=(0.01 * length**2 / time, length**2 / time, "log"), q=(0.0, heat / time)
        )
        derivatives = ("t", "xx")

        def residual(self, u, tx, lam):
            k, q = lam
            return equation * (u.t - k * u.xx - q * jnp.sin(tx[1] / length))

        def initial(self, tx, lam):
            return offset + heat * jnp.sin(jnp.pi * tx[1] / length)

        def boundary(self, tx, lam):
            return offset + 0 * tx[1]

    return Rod()


UNITS = {
    "time": {"time": 1024.0},
    "length": {"length": 2.0**-10},
    "heat": {"heat": 2.0**9, "offset": 2.0**8},
    "equation": {"equation": 2.0**20},
    "all": {"time": 2.0**8, "length": 64.0, "heat": 0.25, "equation": 0.5},
}


def evaluated(made):
    """Residual and conditions at places and for u that mean the same in all units."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(5):
        place, derivatives = jnp.asarray(rng.uniform(size=2)), rng.normal(size=3)
        lam = made.parameters.unscale(jnp.asarray(rng.uniform(-1, 1, 2)))
        value, u_t, u_xx = map(jnp.asarray, derivatives)
        jet = hpx.Jet(value, {"t": u_t, "xx": u_xx})
        found += [made.residual(jet, place, lam), made.initial(place, lam)]
        found.append(made.boundary(place, lam))
    return np.array(found)


@pytest.mark.parametrize("units", UNITS.values(), ids=UNITS)
def test_other_units_are_the_same_family(units):
    one, other = dimensionless(rod()), dimensionless(rod(**units))
    assert one.domain == other.domain == hpx.Box(t=(0, 1), x=(0, 1))
    np.testing.assert_allclose(evaluated(other), evaluated(one), rtol=1e-9, atol=1e-12)


def test_a_solution_stays_one():
    made = dimensionless(rod(time=8.0, length=0.25, heat=300.0, offset=20.0))
    lam = jnp.array([0.1 * 0.25**2 / 8.0, 0.0])
    rate = 0.1 * np.pi**2

    def exact(place):
        u = 20 + 300 * jnp.exp(-rate * place[0]) * jnp.sin(jnp.pi * place[1])
        return (u - made.mean) / made.half

    points = hpx.uniform(made.domain, (20,), key=jax.random.key(0))
    r = hpx.residuals(exact, made, lam, points)
    np.testing.assert_allclose(r, 0, atol=1e-12)
    start = points.at[:, 0].set(0.0)
    known = jax.vmap(made.initial, (0, None))(start, lam)
    np.testing.assert_allclose(known, jax.vmap(exact)(start), atol=1e-12)


def beam(length):
    class Beam(hpx.AbstractPDE):
        domain = hpx.Box(x=(0, length))
        parameters = hpx.Box(q=(0.5, 2.0))
        derivatives = ("xx",)

        def residual(self, u, x, lam):
            return u.xx + lam

        def boundary(self, x, lam):
            return 0.0 * lam

    return Beam()


def test_where_all_conditions_are_zero_the_source_tells_the_size_of_u():
    small, large = (dimensionless(beam(length)) for length in (1.0, 1000.0))
    assert small.mean == large.mean == 0.0
    np.testing.assert_allclose(large.half, 1e6 * small.half, rtol=1e-9)
    # The largest deflection is q / 8.
    assert 2 / 8 < small.half < 10 * 2 / 8


def test_one_value_alone_is_where_u_is_and_not_how_far_it_goes():
    class Cooling(hpx.AbstractPDE):
        domain = hpx.Box(t=(0, 1))
        parameters = hpx.Box(k=(0.5, 2.0))
        derivatives = ("t",)

        def residual(self, u, t, lam):
            return u.t + lam * (u.value - 299.0)

        def initial(self, t, lam):
            return 300.0 + 0 * lam

    made = dimensionless(Cooling())
    assert made.mean == 300.0 and 0.1 < made.half < 3.0


def test_who_knows_better_may_say_so():
    made = dimensionless(beam(1.0), 7.0)
    assert made.half == 7.0 and made.outputs == hpx.Box(u=(-7.0, 7.0))


def test_what_nothing_tells_is_asked_for():
    class Free(type(beam(1.0))):
        def residual(self, u, x, lam):
            return u.xx + lam * u.value

    with pytest.raises(ValueError, match="scale"):
        dimensionless(Free())
    assert dimensionless(Free(), 2.0).half == 2.0


def test_a_residual_that_does_not_change_with_u_is_an_error():
    class Deaf(type(beam(1.0))):
        def residual(self, u, x, lam):
            return 1.0 + 0 * u.xx

    with pytest.raises(ValueError, match="residual"):
        dimensionless(Deaf(), 1.0)


def test_a_coefficient_may_be_singular_at_an_end():
    class Disk(hpx.AbstractPDE):
        domain = hpx.Box(r=(0, 1))
        parameters = hpx.Box(q=(0.5, 2.0))
        derivatives = ("r", "rr")

        def residual(self, u, r, lam):
            return u.rr + u.r / r[0] + lam

        def boundary(self, r, lam):
            return lam * (1 - r[0] ** 2) / 4

    made = dimensionless(Disk())
    assert 0.1 < made.half < 2.0 and 0.1 < made.size < 20.0


def test_logarithmic_and_periodic_coordinates_keep_their_kind():
    class Shell(hpx.AbstractPDE):
        domain = hpx.Box(r=(2.0, 8.0, "log"), a=(1.0, 3.0, "periodic"))
        parameters = hpx.Box(q=(0.5, 2.0))
        derivatives = ("r", "rr", "aa")

        def residual(self, u, at, lam):
            return u.rr + u.r / at[0] + u.aa / at[0] ** 2 - lam

        def boundary(self, at, lam):
            return lam * at[0]

    made = dimensionless(Shell())
    wanted = hpx.Box(r=(1.0, 4.0, "log"), a=(0.0, 1.0, "periodic"))
    assert isinstance(made, Dimensionless) and made.domain == wanted
    # u = log(r) solves it for q = 0, in its own units too.
    points = hpx.uniform(made.domain, (10,), key=jax.random.key(0))
    r = hpx.residuals(
        lambda p: (jnp.log(2 * p[0]) - made.mean) / made.half,
        made,
        jnp.zeros(1),
        points,
    )
    np.testing.assert_allclose(r, 0, atol=1e-12)
