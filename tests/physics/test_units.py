"""Units of a family's own: in other units of the same equation they are the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx.networks.jets import with_normal
from hyperpinn_eqx.physics.pinn import condition_residuals
from hyperpinn_eqx.physics.sampling import condition_points
from hyperpinn_eqx.physics.units import dimensionless
from hyperpinn_eqx.problems.recorded import method, use_of

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
    one, other = dimensionless(rod()), dimensionless(rod(**units))
    assert one.domain == other.domain == hpx.Box(t=(0, 1), x=(0, 1))
    same(all_numbers(one), all_numbers(other))


def same(one, other):
    np.testing.assert_allclose(other, one, rtol=1e-8, atol=1e-10)


def all_numbers(made):
    """What all methods return, at places and for jets that mean the same."""
    rng, found = np.random.default_rng(0), []
    d, p = len(made.domain), len(made.parameters)
    for name in ("physics", *made.conditions):
        for _ in range(3):
            place, signs = jnp.asarray(rng.uniform(size=d)), rng.uniform(-1, 1, p)
            lam = made.parameters.unscale(jnp.asarray(signs))
            lam = lam[0] if p == 1 else lam
            values = rng.normal(size=(len(made.fields), 10))
            jets = [jet(made.domain.names, row) for row in jnp.asarray(values)]
            u = tuple(jets) if len(jets) > 1 else jets[0]
            found += made.condition_residual(name, u, place, lam)
    return np.array(found)


def jet(letters, values):
    """On a wall of the last coordinate."""
    words = [*letters, *(a + b for a in letters for b in letters)]
    made = hpx.Jet(values[0], dict(zip(words, values[1:], strict=False)))
    normal = jnp.zeros(len(letters)).at[-1].set(-1.0)
    return with_normal(made, letters, normal)


def in_units(problem, coordinates, fields, lam=None):
    """The same family with coordinates, fields and λ in units of these sizes.

    A field is `offset + size` times the original one, by `(offset, size)`.
    """
    domain = {
        name: (low * coordinates[name], high * coordinates[name])
        for name, (low, high) in problem.domain.ranges().items()
    }
    letters = problem.domain.names
    sizes = jnp.array([coordinates[letter] for letter in letters])
    factors = jnp.ones(len(problem.parameters)) if lam is None else jnp.array(lam)
    factors = factors[0] if len(problem.parameters) == 1 else factors

    def back(name, u):
        """The jets in the original units, with what the method uses."""
        jets = [u] if len(problem.fields) == 1 else u
        found = []
        for u, words, field in zip(
            jets, use_of(problem, name).words, problem.fields, strict=True
        ):
            offset, size = fields[field]
            value = (u.value - offset) / size if "" in words else jnp.zeros(())
            slopes = {
                word: getattr(u, word) * np.prod([coordinates[x] for x in word]) / size
                for word in words - {""}
            }
            found.append(hpx.Jet(value, slopes))
        return found[0] if len(problem.fields) == 1 else tuple(found)

    def changed(name):
        def method_(self, u, at, lam):
            return method(problem, name)(back(name, u), at / sizes, lam / factors)

        return method_

    ranges = problem.parameters.ranges().items()
    by = dict(zip(problem.parameters.names, np.atleast_1d(factors), strict=True))
    body = {
        "fields": problem.fields,
        "domain": hpx.Box(**domain),
        "parameters": hpx.Box(
            **{
                n: (low * by[n], high * by[n], *kind)
                for n, (low, high, *kind) in ranges
            }
        ),
        "residual": changed("physics"),
    }
    for name, where in problem.conditions.items():
        faces = {}
        for letter, value in where.faces:
            faces.setdefault(letter, []).append(value * coordinates[letter])
        point = where.at and [
            v * coordinates[x] for v, x in zip(where.at, letters, strict=True)
        ]
        body[name] = hpx.condition(at=point, **faces)(changed(name))
    return type("Changed", (hpx.AbstractPDE,), body)()


@pytest.mark.parametrize(
    ("problem", "units"),
    [
        (hpx.Kovasznay(), {"x": 64.0, "y": 64.0, "u": (0, 4.0), "p": (0, 16.0)}),
        (hpx.Kovasznay(), {"x": 0.5, "y": 2.0**10, "v": (0, 2.0**-8)}),
        (hpx.Kovasznay(), {"u": (512.0, 1.0), "Re": 2.0**7}),
        (hpx.Rod(), {"t": 2.0**12, "x": 2.0**-5, "k": 0.25, "h": 8.0}),
        (hpx.Rod(), {"x": 16.0, "u": (20.0, 256.0)}),
        (hpx.Schroedinger(), {"t": 8.0, "u": (0, 2.0**9), "v": (3.0, 0.5)}),
    ],
    ids=lambda x: type(x).__name__ if not isinstance(x, dict) else " ".join(x),
)
def test_a_system_in_other_units_is_the_same(problem, units):
    coordinates = {x: units.get(x, 1.0) for x in problem.domain.names}
    fields = {name: units.get(name, (0.0, 1.0)) for name in problem.fields}
    lam = [units.get(name, 1.0) for name in problem.parameters.names]
    one = dimensionless(problem)
    other = dimensionless(in_units(problem, coordinates, fields, lam))
    assert one.domain == other.domain and one.conditions == other.conditions
    offsets, sizes = np.array([*fields.values()]).T
    same(offsets + sizes * one.means, other.means)
    same(sizes * one.halves, other.halves)
    same(all_numbers(one), all_numbers(other))


def test_a_solution_stays_one(rod):
    made = dimensionless(rod(time=8.0, length=0.25, heat=300.0, offset=20.0))
    lam = jnp.array([0.1 * 0.25**2 / 8.0, 0.0])

    def exact(place):
        rate = 0.1 * np.pi**2
        u = 20 + 300 * jnp.exp(-rate * place[0]) * jnp.sin(jnp.pi * place[1])
        return (u - made.means[0]) / made.halves[0]

    points = hpx.uniform(made.domain, 20, key=jax.random.key(0))
    r = hpx.residuals(exact, made, lam, points)
    np.testing.assert_allclose(r, np.zeros(20), atol=1e-12)
    for name, where in made.conditions.items():
        places = condition_points(made.domain, where, 20, key=jax.random.key(1))
        r = condition_residuals(exact, made, name, lam, places)
        np.testing.assert_allclose(r, np.zeros(20), atol=1e-12)


def zero(x, lam):
    return 0.0 * lam


def test_where_all_conditions_are_zero_the_source_tells_the_size_of_u(steady):
    def beam(length):
        return dimensionless(
            steady(lambda u, x, lam: u.xx + lam, known=zero, x=(0, length))
        )

    small, large = beam(1.0), beam(1000.0)
    assert small.means == large.means == (0.0,)
    np.testing.assert_allclose(large.halves[0], 1e6 * small.halves[0], rtol=1e-9)
    # The largest deflection is q / 8.
    assert 0.3 < small.halves[0] / (2 / 8) < 3


def test_one_value_alone_is_where_u_is_and_not_how_far_it_goes(steady):
    cooling = steady(
        lambda u, t, lam: u.t + lam * (u.value - 299.0),
        lambda t, lam: 300.0 + 0 * lam,
        t=(0, 1),
    )
    made = dimensionless(cooling)
    assert made.means == (300.0,) and 0.1 < made.halves[0] < 3.0


def test_they_are_those_of_the_family_as_it_is_now(steady):
    load = {"q": 1.0}
    beam = steady(lambda u, x, lam: u.xx + load["q"] * lam, known=zero)
    before = dimensionless(beam).halves[0]
    load["q"] = 5.0
    found = []
    # A caller that JAX traces, or one that wants shapes only, gets numbers too.
    for trace in (jax.jit, jax.make_jaxpr, lambda f: lambda x: jax.eval_shape(f, x)):
        trace(lambda x: found.append(dimensionless(beam).halves[0]) or x)(1.0)
    np.testing.assert_allclose(found, 3 * [5 * before], rtol=1e-12)


def test_what_nothing_tells_is_asked_for(steady):
    free = steady(lambda u, x, lam: u.xx + lam * u.value, known=zero)
    with pytest.raises(ValueError, match="scale"):
        dimensionless(free)
    made = dimensionless(free, 7.0)
    assert made.halves == (7.0,) and made.outputs == hpx.Box(u=(-7.0, 7.0))
    with pytest.raises(ValueError, match="residual"):
        dimensionless(steady(lambda u, x, lam: 1.0 + 0 * u.xx, known=zero), 1.0)


def test_a_coefficient_may_be_singular_at_an_end(steady):
    disk = steady(
        lambda u, r, lam: u.rr + u.r / r[0] + lam,
        lambda r, lam: lam * (1 - r[0] ** 2) / 4,
        r=(0, 1),
    )
    made = dimensionless(disk)
    assert 0.1 < made.halves[0] < 2.0 and 0.1 < made.sizes["physics"][0] < 20.0


def test_logarithmic_and_periodic_coordinates_keep_their_kind(steady):
    shell = steady(
        lambda u, at, lam: u.rr + u.r / at[0] + u.aa / at[0] ** 2 - lam,
        lambda at, lam: lam * at[0],
        r=(2.0, 8.0, "log"),
        a=(1.0, 3.0, "periodic"),
    )
    made = dimensionless(shell)
    assert made.domain == hpx.Box(r=(1.0, 4.0, "log"), a=(0.0, 1.0, "periodic"))
    # u = log(r) solves it for q = 0, in its own units too.
    u = lambda p: (jnp.log(2 * p[0]) - made.means[0]) / made.halves[0]  # noqa: E731
    points = hpx.uniform(made.domain, 10, key=jax.random.key(0))
    r = hpx.residuals(u, made, jnp.zeros(1), points)
    np.testing.assert_allclose(r, np.zeros(10), atol=1e-12)
