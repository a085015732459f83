import functools
import io
import json
import os
import stat
import tracemalloc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import _files as files
from hyperpinn_eqx import load, save
from hyperpinn_eqx.networks.checkpoint import read_card
from hyperpinn_eqx.recipes.family import untrained


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.eqx"


@pytest.fixture
def saved(path, hyper):
    """The bytes of a saved model."""
    save(path, hyper, {"seed": 7})
    return path.read_bytes()


FAMILIES = {
    "HyperPINN": functools.partial(hpx.HyperPINN, hidden=(2, 3)),
    "ConcatPINN": hpx.ConcatPINN,
    "augmented": functools.partial(hpx.ConcatPINN, augmented=True),
    "FiLM": functools.partial(hpx.FiLM, hidden=(2,)),
    "LowRank": functools.partial(hpx.LowRank, hidden=(2,), rank=2),
    "LastLayer": functools.partial(hpx.LastLayer, hidden=(2,)),
    "single": lambda main, lam, key: hpx.SingleNet(main.init(key=key), lam),
    "network": lambda main, lam, key: main.init(key=key),
}


@pytest.fixture(params=FAMILIES)
def kind(request):
    """Whatever the package can make, with names that are not in alphabetical order."""
    lam = hpx.Box(sigma=(10, 10), beta=(1, 3, "periodic"), rho=(1, 28, "log"))
    state, slopes = hpx.Box(z=(2, 22), x=(-5, 5)), hpx.Box(dz=(0, 1), dx=(0, 2))
    main, key = hpx.MainNetSpec((2, 3, 2), state, slopes, False), jax.random.key(1)
    model = eqx.filter_eval_shape(FAMILIES[request.param], main, lam, key=key)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), "f4"), model)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_a_model_comes_back_bit_by_bit(dtype, path, kind):
    with jax.enable_x64(True):
        model = hpx.cast(kind, dtype)
        save(path, model, {"seed": 1})
        found = load(path, like=kind)
        assert eqx.tree_equal(load(path), found) and read_card(path) == {"seed": 1}
    # In half precision as it was, else in JAX's.
    half = dtype == "bfloat16"
    assert eqx.tree_equal(found, model if half else hpx.cast(model, "float64"))
    assert eqx.tree_equal(load(path), model if half else hpx.cast(model, "float32"))


def test_a_model_of_a_system_comes_back_with_the_ranges_of_its_fields(path, x64):
    problem = hpx.Kovasznay()
    model = untrained(problem, (4,), (3,), key=jax.random.key(0))
    save(path, model)
    found = load(path, like=model)
    assert eqx.tree_equal(found, model)
    assert found.main.sizes == (2, 4, 3) and found.main.outputs.names == ("u", "v", "p")
    one, other = (
        hpx.family_error(m, problem, n_lam=2, n_x=3).fields for m in (model, found)
    )
    for name in problem.fields:
        np.testing.assert_array_equal(one[name].mse, other[name].mse)


def test_like_names_what_differs(path, saved, hyper, concat, getkey):
    assert eqx.tree_equal(load(str(path), like=hyper), hyper)
    wider = hpx.HyperPINN(hyper.main, hyper.parameters, (4, 5), key=getkey())
    more = hpx.HyperPINN(hyper.main, hpx.Box(kappa=(0.01, 2.0)), (4, 3), key=getkey())
    for like, said in ((wider, "hidden"), (more, "parameters"), (concat, "class")):
        with pytest.raises(ValueError, match=said):
            load(path, like=like)
    # The order of names counts, and outputs that only one of them has.
    box, turned = hpx.Box(b=(0, 1), a=(0, 2)), hpx.Box(a=(0, 2), b=(0, 1))
    plain, augmented, other = (
        hpx.ConcatPINN(hyper.main, lam, augmented=more, key=getkey())
        for lam, more in ((box, False), (box, True), (turned, False))
    )
    save(path, plain)
    for like, said in ((other, "parameters"), (augmented, "augmented")):
        with pytest.raises(ValueError, match=said):
            load(path, like=like)


class Linear(hpx.AbstractModel):
    """A user's own family: all weights are linear in λ."""

    start: hpx.MainNet
    slope: jax.Array
    count: jax.Array
    squash: Callable
    gain: float
    parameters: hpx.Box = eqx.field(static=True)

    def generate(self, scaled):
        theta = self.start.flatten() + self.gain * self.squash(self.slope) * scaled[0]
        return self.start.spec.unflatten(theta)


class HyperPINN(Linear):
    """Has the name of another, and says nothing of itself."""

    def config(self):
        return {}


class Odd(hpx.SingleNet):
    """Derived from a class of the package, and not to be told as JSON."""

    def config(self):
        return {"set": {1, 2}}


def own(kind, hyper, seed, **changes):
    """One of these models, with other weights for another seed."""
    net = hyper.main.init(key=jax.random.key(seed))
    slope, count = jnp.full(hyper.main.size, 1.0 + seed), jnp.asarray(seed)
    given = {"start": net, "slope": slope, "count": count, "squash": jnp.tanh}
    given |= {"gain": 1.0 + seed, "parameters": hyper.parameters}
    return kind(**given | changes)


@pytest.mark.parametrize("kind", [Linear, HyperPINN])
def test_a_class_of_ones_own_comes_back_by_like(kind, path, hyper):
    model = own(kind, hyper, 0)
    save(path, model)
    for like in (own(kind, hyper, 1), eqx.filter_eval_shape(own, kind, hyper, 1)):
        found = load(path, like=like)
        assert type(found) is kind and eqx.tree_equal(found, model)
    (other,) = {Linear, HyperPINN} - {kind}
    for like in (None, hyper, own(other, hyper, 1)):
        with pytest.raises(ValueError, match=r"class|fields|gain"):
            load(path, like=like)


def test_a_class_of_ones_own_is_compared_with_like(path, hyper):
    save(path, own(Linear, hyper, 0))
    box = hpx.Box(kappa=(0.01, 2.0, "log"))
    for said, change in (
        ("parameters", {"parameters": box}),
        ("slope", {"slope": jnp.ones(3)}),
        ("squash", {"squash": jnp.sin}),
        ("start", {"start": hpx.MainNetSpec((1, 1), box).unflatten(jnp.ones(2))}),
        ("int", {"count": jnp.asarray(1.0)}),
    ):
        with pytest.raises(ValueError, match=said):
            load(path, like=own(Linear, hyper, 1, **change))


def test_what_could_not_be_read_again_is_not_written(path, hyper):
    for replace in (
        lambda a: a.astype("float16"),
        lambda a: a.astype(int),
        lambda a: a[:, :1],
        lambda a: None,
    ):
        with pytest.raises(ValueError, match="model"):
            save(path, eqx.tree_at(lambda m: m.head, hyper, replace_fn=replace))
    with pytest.raises(TypeError, match="card"):
        save(path, hyper, {"not JSON": object()})
    with pytest.raises(TypeError, match="config"):
        save(path, Odd(hyper(0.1), hyper.parameters))
    assert os.listdir(path.parent) == []


def test_the_first_line_is_json_and_saving_replaces_everything(path, saved, concat):
    header = json.loads(saved.split(b"\n")[0])
    assert header["format"] == "hyperpinn_eqx model" and "jax" in header["libraries"]
    assert header["model"]["hidden"] == [4, 3]
    assert header["card"] == read_card(path) == {"seed": 7}
    save(path, concat)
    assert eqx.tree_equal(load(path), concat)
    assert os.listdir(path.parent) == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644  # everybody can read it


def rewritten(path, **changes):
    """Another header or content in a file that is whole."""
    head, content = files.read(path, "hyperpinn_eqx model")
    content = changes.pop("content", content)
    head = {name: head[name] for name in ("model", "card")} | changes
    files.write(path, "hyperpinn_eqx model", head, content)


def test_widths_that_a_small_file_only_claims_cost_nothing(path, saved):
    config = json.loads(saved.split(b"\n")[0])["model"]
    sizes = {**config["main"], "sizes": [2, 10**4, 10**4, 1]}
    for claim in ({"hidden": [10**30]}, {"main": sizes}, {"hidden": [1] * 500}):
        rewritten(path, model=config | claim)
        tracemalloc.start()
        with pytest.raises(ValueError, match="units"):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 1e6
        tracemalloc.stop()


@pytest.mark.parametrize(
    "model",
    [{"class": "Transformer"}, {"hidden": [4, 4]}, {"hidden": None}, {"main": {}}],
    ids=str,
)
def test_a_header_that_does_not_fit_the_weights_is_an_error(path, saved, model):
    config = json.loads(saved.split(b"\n")[0])["model"]
    rewritten(path, model=config | model)
    with pytest.raises(ValueError, match="model.eqx"):
        load(path)


def test_other_arrays_than_the_headers_are_errors(path, saved):
    _, content = files.read(path, "hyperpinn_eqx model")
    # And one that only pickle could read, in place of the first weight.
    np.save(pickled := io.BytesIO(), np.array([{}], dtype=object))
    for other in (content + content, content[:-4], pickled.getvalue()):
        rewritten(path, content=other)
        with pytest.raises(ValueError, match="array"):
            load(path)


def test_a_damaged_file_is_an_error(path, saved, damaged):
    """Cut off anywhere, a flipped bit anywhere, more at the end, or no file at all."""
    broken = [*damaged.cut_off(saved, 97), *damaged.flipped(saved, 11), saved + b"\0"]
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="model.eqx"):
            load(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        load(path)
