import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx.recipes.fingerprint import fingerprint

OUTER, TABLE = 1.0, np.linspace(0, 1, 5000)


class Mine(hpx.AllenCahn):
    speed = 2.0

    def residual(self, u, tx, lam):
        source = jnp.interp(
            tx[1], jnp.linspace(0, 1, 5000), jnp.asarray(TABLE, "float32")
        )
        return u.t - lam * u.xx + self.speed * OUTER * source

    def initial(self, tx, lam):
        return OUTER * tx[1]


def differences(change):
    before = fingerprint(Mine())
    with pytest.MonkeyPatch.context() as patch:
        change(patch)
        after = fingerprint(Mine())
    assert fingerprint(Mine()) == before
    return {name for name in before if before[name] != after[name]}


def test_whatever_a_method_reads_is_part_of_it():
    def attribute(patch):
        patch.setattr(Mine, "speed", 3.0)

    def variable(patch):
        patch.setattr(sys.modules[__name__], "OUTER", 1.0 + 1e-6)

    def table(patch):
        other = np.where(np.arange(5000) == 4321, 7.0, TABLE)
        patch.setattr(sys.modules[__name__], "TABLE", other)

    def method(patch):
        patch.setattr(Mine, "boundary", lambda self, tx, lam: jnp.ones(()))

    assert differences(attribute) == {"residual"}
    assert differences(variable) == {"residual", "initial"}
    assert differences(table) == {"residual"}
    assert differences(method) == {"boundary"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("domain", hpx.Box(t=(0, 4), x=(0, 11))),
        ("parameters", hpx.Box(D=(0.01, 1.0))),
        ("derivatives", ("xx", "t")),
    ],
)
def test_ranges_and_derivatives_are_part_of_it(name, value):
    assert name in differences(lambda patch: patch.setattr(Mine, name, value))


def test_the_order_of_coordinates_is_part_of_it():
    a, b = (hpx.Box(D=(0, 1), C=(0, 1)), hpx.Box(C=(0, 1), D=(0, 1)))

    def change(box):
        return lambda patch: patch.setattr(Mine, "parameters", box)

    with pytest.MonkeyPatch.context() as patch:
        change(a)(patch)
        assert "parameters" in differences(change(b))


def test_families_differ():
    problems = hpx.Burgers(), hpx.AllenCahn(), hpx.Plume(), hpx.Transport()
    assert len({fingerprint(problem)["residual"] for problem in problems}) == 4


def test_a_condition_that_nobody_asks_for_may_raise():
    class Still(Mine):
        def boundary(self, tx, lam):
            raise NotImplementedError

    assert fingerprint(Still())["boundary"] == fingerprint(Still())["boundary"]
    assert fingerprint(Still())["boundary"] != fingerprint(Mine())["boundary"]


@pytest.mark.slow
def test_another_process_finds_the_same():
    code = f"""
import sys
sys.path.insert(0, {str(__file__).rpartition("/")[0]!r})
import jax
jax.config.update("jax_numpy_rank_promotion", "raise")
import hyperpinn_eqx as hpx
from test_fingerprint import Mine, fingerprint
shift = lambda tx, lam: lam * tx[1]
print(fingerprint(Mine()), fingerprint(hpx.Manufactured(hpx.Burgers(), shift)))
"""
    done = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        for _ in range(2)
    ]
    assert done[0].returncode == 0, done[0].stderr
    assert done[0].stdout == done[1].stdout
    assert done[0].stdout.startswith(str(fingerprint(Mine())))
