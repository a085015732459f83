import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx

residuals = eqx.filter_jit(hpx.residuals)


def exact(kappa):
    return lambda tx: -jnp.exp(-kappa * jnp.pi**2 * tx[0]) * jnp.sin(jnp.pi * tx[1])


def test_a_users_equation_tells_its_solution_from_a_wrong_one(heat, x64, getkey):
    points = hpx.uniform(heat.domain, 20, key=getkey())
    for kappa in (0.01, 0.3, 1.0):
        r = residuals(exact(kappa), heat, jnp.array([kappa]), points)
        np.testing.assert_allclose(r, np.zeros(20), atol=1e-13)
    wrong = residuals(exact(0.3), heat, jnp.array([0.4]), points)
    assert jnp.max(jnp.abs(wrong)) > 1e-2


def test_several_parameters_and_space_dimensions(x64, getkey):
    class Advection(hpx.AbstractPDE):
        domain = hpx.Box(t=(0, 1), x=(-1, 1), y=(-1, 1))
        parameters = hpx.Box(a=(0, 1), b=(0, 1))
        derivatives = ("t", "x", "y")

        def residual(self, u, tx, lam):
            return u.t + lam[0] * u.x + lam[1] * u.y

        def initial(self, tx, lam):
            return tx[1] * tx[2]

        def boundary(self, tx, lam):
            return (tx[1] - lam[0] * tx[0]) * (tx[2] - lam[1] * tx[0])

    problem, lam = Advection(), jnp.array([[0.3, 0.8], [0.9, 0.1]])
    points = hpx.uniform(problem.domain, (2, 10), key=getkey())
    loss = hpx.PINNLoss(problem, *hpx.conditions(problem, 4, 6, key=getkey()))
    # A family of functions is a model too.
    found = loss(lambda lam: lambda p: problem.boundary(p, lam), loss.at(lam, points))
    assert found.terms.keys() == {"physics", "data"} and found.total < 1e-28


def test_an_unfinished_equation_cannot_be_made(heat):
    for name in ("residual", "domain"):
        body = {n: getattr(type(heat), n) for n in ("parameters", "derivatives")}
        body |= {n: lambda self, *_: 0.0 for n in ("initial", "boundary")}
        body |= {"domain": heat.domain, "residual": lambda self, *_: 0.0}
        body.pop(name)
        with pytest.raises(TypeError, match="abstract|domain"):
            type("Unfinished", (hpx.AbstractPDE,), body)()


@pytest.mark.parametrize(
    ("attribute", "value", "error"),
    [
        ("domain", {"t": (0, 1)}, TypeError),
        ("domain", hpx.Box(time=(0, 1)), ValueError),
        ("parameters", (0.01, 1.0), TypeError),
        ("derivatives", "xx", TypeError),
        ("derivatives", ("t", "y"), ValueError),
        ("derivatives", ("t", ""), ValueError),
        ("derivatives", (1,), ValueError),
    ],
)
def test_an_equation_with_a_wrong_attribute_cannot_be_made(
    attribute, value, error, heat
):
    wrong = type("Wrong", (type(heat),), {attribute: value})
    with pytest.raises(error, match=attribute):
        wrong()


def known(names, **methods):
    """A problem over coordinates of the given names that prescribes what is given."""
    ranges = {n: (0, 1, "periodic") if n.isupper() else (0, 1) for n in names}
    body = {
        "domain": hpx.Box(**{n.lower(): r for n, r in ranges.items()}),
        "parameters": hpx.Box(k=(0.5, 2.0)),
        "derivatives": (names[0].lower(),),
        "residual": lambda self, u, at, lam: u.value,
    }
    given = {
        name: lambda self, at, lam, value=value: value + 0 * lam
        for name, value in methods.items()
    }
    return type("Some", (hpx.AbstractPDE,), body | given)


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        ("t", {"initial"}),
        ("x", {"boundary"}),
        ("tx", {"initial", "boundary"}),
        ("tX", {"initial"}),
        ("Tx", {"boundary"}),
        ("TX", set()),
        ("s", {"boundary"}),
    ],
)
def test_a_problem_says_what_it_is_asked_and_no_more(names, asked, getkey):
    problem = known(names, **dict.fromkeys(asked, 1.0))()
    counts = [len(p) for p in hpx.conditions(problem, 3, 4, key=getkey())]
    assert counts == [3 * ("initial" in asked), 4 * ("boundary" in asked)]
    for name in asked:
        rest = dict.fromkeys(asked - {name}, 1.0)
        with pytest.raises(TypeError, match=name):
            known(names, **rest)()
    for name in {"initial", "boundary"} - asked:
        with pytest.raises(ValueError, match=f"Some.{name}"):
            known(names, **dict.fromkeys(asked | {name}, 1.0))()


def test_zero_where_nobody_asks_is_a_warning():
    with pytest.warns(UserWarning, match="Some.initial"):
        known("sx", initial=0.0, boundary=1.0)()
    with pytest.warns(UserWarning, match="Some.boundary"):
        known("tX", initial=1.0, boundary=0.0)()
    # Where there is no space, there is nothing that zero could be meant for.
    known("t", initial=1.0, boundary=0.0)()
