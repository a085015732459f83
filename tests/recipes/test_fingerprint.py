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

    @hpx.condition(t=0)
    def start(self, u, tx, lam):
        return u.value - OUTER * tx[1]


HERE = sys.modules[__name__]


def flat(problem):
    """The fingerprint, with the program of each method by its name."""
    found = fingerprint(problem)
    return found | found.pop("programs")


@pytest.mark.parametrize(
    ("of", "name", "value", "parts"),
    [
        (Mine, "speed", 3.0, {"physics"}),
        (HERE, "OUTER", 1.0 + 1e-6, {"physics", "start"}),
        (HERE, "TABLE", np.where(np.arange(5000) == 4321, 7.0, TABLE), {"physics"}),
        (Mine, "walls", lambda self, u, tx, lam: u.value - 1, {"walls"}),
        (Mine, "walls", lambda self, u, tx, lam: u.xx, {"walls"}),
        (Mine, "domain", hpx.Box(t=(0, 5), x=(0, 10)), {"domain"}),
        (Mine, "parameters", hpx.Box(D=(0.01, 1.0)), {"parameters"}),
        (Mine, "fields", ("v",), {"fields"}),
    ],
)
def test_whatever_a_family_says_or_reads_is_part_of_it(
    of, name, value, parts, monkeypatch
):
    before = flat(Mine())
    assert flat(Mine()) == before
    if name in Mine().conditions:
        value = hpx.condition(x=(0, 10))(value)
    monkeypatch.setattr(of, name, value)
    after = flat(Mine())
    assert {name for name in before if before[name] != after[name]} == parts


def test_families_differ_and_so_do_orders_of_parameters():
    problems = hpx.Burgers(), hpx.AllenCahn(), hpx.Plume(), hpx.Kovasznay()
    assert len({flat(problem)["physics"] for problem in problems}) == 4
    found = []
    for names in ("cDr", "Dcr"):
        box = hpx.Box(**dict.fromkeys(names, (0, 1)))
        other = type("Transport", (hpx.Transport,), {"parameters": box})
        found.append(fingerprint(other())["parameters"])
    assert found[0] != found[1]


def test_the_place_of_a_condition_is_part_of_it():
    class Moved(Mine):
        @hpx.condition(x=0)
        def walls(self, u, tx, lam):
            return u.value - self.exact(tx[0], tx[1], lam)

    one, other = fingerprint(Mine()), fingerprint(Moved())
    differ = {name for name in one if one[name] != other[name]}
    assert differ == {"class", "conditions"}


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
