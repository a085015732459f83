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
        places, table = jnp.linspace(0, 1, 5000), jnp.asarray(TABLE, "float32")
        source = jnp.interp(tx[1], places, table)
        return u.t - lam * u.xx + self.speed * OUTER * source

    def initial(self, tx, lam):
        return OUTER * tx[1]


HERE = sys.modules[__name__]


@pytest.mark.parametrize(
    ("of", "name", "value", "parts"),
    [
        (Mine, "speed", 3.0, {"residual"}),
        (HERE, "OUTER", 1.0 + 1e-6, {"residual", "initial"}),
        (HERE, "TABLE", np.where(np.arange(5000) == 4321, 7.0, TABLE), {"residual"}),
        (Mine, "boundary", lambda self, tx, lam: jnp.ones(()), {"boundary"}),
        (Mine, "domain", hpx.Box(t=(0, 4), x=(0, 11)), {"domain"}),
        (Mine, "parameters", hpx.Box(D=(0.01, 1.0)), {"parameters"}),
        (Mine, "derivatives", ("xx", "t"), {"derivatives", "residual"}),
    ],
)
def test_whatever_a_family_says_or_reads_is_part_of_it(
    of, name, value, parts, monkeypatch
):
    before = fingerprint(Mine())
    assert fingerprint(Mine()) == before
    monkeypatch.setattr(of, name, value)
    after = fingerprint(Mine())
    assert {name for name in before if before[name] != after[name]} == parts


def test_families_differ_and_so_do_orders_of_parameters(monkeypatch):
    problems = hpx.Burgers(), hpx.AllenCahn(), hpx.Plume(), hpx.Transport()
    assert len({fingerprint(problem)["residual"] for problem in problems}) == 4
    found = []
    for box in (hpx.Box(D=(0, 1), C=(0, 1)), hpx.Box(C=(0, 1), D=(0, 1))):
        monkeypatch.setattr(Mine, "parameters", box)
        found.append(fingerprint(Mine())["parameters"])
    assert found[0] != found[1]


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
    first, second = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        for _ in range(2)
    )
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert first.stdout.startswith(str(fingerprint(Mine())))
