"""The class that the chapter on shapes writes is the one whose weights it loads."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np

import hyperpinn_eqx as hpx
from hyperpinn_eqx.recipes.fingerprint import fingerprint

PAGE = pathlib.Path(__file__).parents[2] / "book" / "shapes.ipynb"
CELLS = [
    "".join(cell["source"])
    for cell in json.loads(PAGE.read_text("utf-8"))["cells"]
    if cell["cell_type"] == "code"
]


def defined(*begins):
    """What the cells that begin like this define."""
    names = {"hpx": hpx, "jnp": jnp, "np": np}
    for begin in begins:
        (source,) = (cell for cell in CELLS if cell.startswith(begin))
        exec(compile(source, PAGE.name, "exec"), names)
    return names


def test_the_conductor_of_the_page_is_that_of_the_package():
    names = defined("def outline(", "class Conductor(")
    assert (
        fingerprint(names["Conductor"]())["programs"]
        == (fingerprint(hpx.Conductor())["programs"])
    )


def test_the_ring_of_the_page_is_that_of_the_package():
    domain = defined("def ring(")["domain"]
    for s in ([0.0, 0.0], [0.3, 2.0], [1.0, 5.0]):
        for R in (1.5, 3.0):
            at = jnp.array(s), jnp.array(R)
            for one, other in zip(
                domain.frame(*at), hpx.Ring.domain.frame(*at), strict=True
            ):
                np.testing.assert_allclose(one, other, atol=1e-6)
