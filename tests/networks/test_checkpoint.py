import io
import json
import os
import stat
import subprocess
import sys
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


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.eqx"


@pytest.fixture
def saved(path, hyper):
    """The bytes of a saved model."""
    save(path, hyper, {"seed": 7})
    return path.read_bytes()


def test_a_float32_model_comes_back_bit_by_bit(path, model):
    save(path, model)
    assert eqx.tree_equal(load(path), model)


def test_a_float64_model_comes_back_bit_by_bit(x64, path, model):
    save(path, model)
    assert eqx.tree_equal(load(path), model)


def test_a_model_with_scaled_outputs_comes_back(path, heat, getkey):
    main = hpx.MainNetSpec((2, 3, 1), heat.domain, hpx.Box(u=(0, 4)), bounded=False)
    model = eqx.filter_jit(hpx.ConcatPINN)(
        main, hpx.Box(a=(0, 1), b=(1, 2, "log")), key=getkey()
    )
    save(path, model)
    assert eqx.tree_equal(load(path), model)


def test_names_come_back_in_their_own_order(path, getkey):
    # Neither is alphabetical; the wrong order would scale every number wrongly.
    state = hpx.Box(z=(2, 22), x=(-5, 5), y=(-4, 4))
    slopes = hpx.Box(dz=(0, 1), dx=(0, 2), dy=(0, 3))
    lam = hpx.Box(sigma=(10, 10), beta=(1, 3), rho=(0, 28))
    main = hpx.MainNetSpec((3, 4, 3), state, slopes)
    for model in (
        eqx.filter_jit(hpx.HyperPINN)(main, lam, (2,), key=getkey()),
        eqx.filter_jit(hpx.ConcatPINN)(main, lam, key=getkey()),
    ):
        save(path, model)
        found = load(path, like=model)
        assert eqx.tree_equal(found, model)
        assert found.parameters.names == ("sigma", "beta", "rho")
        values, point = jnp.array([10.0, 2.0, 21.0]), jnp.array([12.0, 1.0, -2.0])
        net, expected = found(values), model(values)
        assert net.spec.inputs.names == ("z", "x", "y")
        assert net.spec.outputs.names == ("dz", "dx", "dy")
        np.testing.assert_array_equal(net(point), expected(point))


def test_like_minds_the_order_of_names(path, heat, getkey):
    def model(box):
        main = hpx.MainNetSpec((2, 3, 1), heat.domain)
        return eqx.filter_jit(hpx.ConcatPINN)(main, box, key=getkey())

    save(path, model(hpx.Box(b=(0, 1), a=(0, 2))))
    with pytest.raises(ValueError, match="another architecture: parameters"):
        load(path, like=model(hpx.Box(a=(0, 2), b=(0, 1))))


def test_an_augmented_baseline_comes_back(path, concat, heat, getkey):
    model = eqx.filter_jit(hpx.ConcatPINN)(
        concat.net.spec, heat.parameters, augmented=True, key=getkey()
    )
    model = eqx.tree_at(lambda m: m.lam_slope[1], model, jnp.ones(1))
    save(path, model)
    assert eqx.tree_equal(load(path), model)
    with pytest.raises(ValueError, match="augmented = True, expected None"):
        load(path, like=concat)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_comes_back_as_it_was(dtype, path, model):
    half = hpx.cast(model, dtype)
    save(path, half)
    with jax.enable_x64(True):
        assert eqx.tree_equal(load(path), half)
    assert eqx.tree_equal(load(path, like=model), half)


def test_several_precisions_are_refused_and_leave_no_file(path, hyper):
    mixed = eqx.tree_at(
        lambda m: m.head, hyper, replace_fn=lambda a: a.astype("float16")
    )
    with pytest.raises(ValueError, match="model: .*float16"):
        save(path, mixed)
    assert not path.exists()


def test_weights_that_do_not_fit_their_class_are_refused_and_leave_no_file(path, hyper):
    for replace in (lambda a: a[:, :1], lambda a: a.astype(int), lambda a: None):
        with pytest.raises(ValueError, match="model: "):
            save(path, eqx.tree_at(lambda m: m.head, hyper, replace_fn=replace))
    assert not path.exists()


def test_a_main_network_comes_back(path, hyper):
    net = hyper.main.init(key=jax.random.key(1))
    save(path, net, {"seed": 1})
    assert eqx.tree_equal(load(path), net) and read_card(path) == {"seed": 1}
    assert eqx.tree_equal(load(path, like=net), net)
    with pytest.raises(ValueError, match="class = MainNet, expected HyperPINN"):
        load(path, like=hyper)


def test_a_single_network_comes_back(path, hyper):
    single = hpx.SingleNet(hyper.main.init(key=jax.random.key(1)), hyper.parameters)
    save(path, single)
    found = load(path)
    assert eqx.tree_equal(found, single) and found.parameters == hyper.parameters


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


class Thin(Linear):
    """Says nothing of itself."""

    def config(self):
        return {}


class HyperPINN(Linear):
    """Has the name of another."""


def own(kind, hyper, seed, **changes):
    """One of these models, with other weights for another seed."""
    net = hyper.main.init(key=jax.random.key(seed))
    slope, count = jnp.full(hyper.main.size, 1.0 + seed), jnp.asarray(seed)
    given = {"start": net, "slope": slope, "count": count, "squash": jnp.tanh}
    box = {"parameters": hyper.parameters}
    return kind(**given | {"gain": 1.0 + seed} | box | changes)


@pytest.mark.parametrize("kind", [Linear, Thin, HyperPINN])
def test_a_class_of_ones_own_comes_back(kind, path, hyper):
    model = own(kind, hyper, 0)
    save(path, model)
    for like in (own(kind, hyper, 1), eqx.filter_eval_shape(own, kind, hyper, 1)):
        found = load(path, like=like)
        assert type(found) is kind and eqx.tree_equal(found, model)
    point = jnp.array([0.5, 0.25])
    np.testing.assert_array_equal(found(0.1)(point), model(0.1)(point))
    with pytest.raises(ValueError, match="like = None, .*" + kind.__name__):
        load(path)
    with pytest.raises(ValueError, match="class"):
        load(path, like=hyper)


def test_a_class_of_ones_own_is_compared_with_like(path, hyper):
    save(path, own(Linear, hyper, 0))
    wider = hpx.MainNetSpec((2, 5, 1), hyper.main.inputs).init(key=jax.random.key(0))
    for name, change in {
        "parameters": hpx.Box(kappa=(0.01, 2.0, "log")),
        "slope": jnp.ones(3),
        "squash": jnp.sin,
        "start": wider,
    }.items():
        with pytest.raises(ValueError, match=f"another architecture: {name}"):
            load(path, like=own(Linear, hyper, 1, **{name: change}))
    with pytest.raises(ValueError, match="int"):
        load(path, like=own(Linear, hyper, 1, count=jnp.asarray(1.0)))
    with pytest.raises(ValueError, match="class = Linear, expected Thin"):
        load(path, like=own(Thin, hyper, 1))


def test_a_class_derived_from_the_packages_is_ones_own(path, hyper):
    class Derived(hpx.SingleNet):
        def generate(self, scaled):
            return jax.tree.map(lambda a: 2 * a, self.net)

    model = Derived(hyper.main.init(key=jax.random.key(0)), hyper.parameters)
    save(path, model)
    assert isinstance(load(path, like=model), Derived)
    with pytest.raises(ValueError, match="Derived"):
        load(path)


def test_a_config_that_json_cannot_hold_is_an_error(path, hyper):
    class Odd(Linear):
        def config(self):
            return {"set": {1, 2}}

    with pytest.raises(TypeError, match="config"):
        save(path, own(Odd, hyper, 0))
    assert not path.exists()


@pytest.mark.parametrize("width", [10**4, 10**12, 10**30])
def test_widths_that_a_small_file_only_claims_cost_nothing(width, path, saved):
    config = json.loads(saved.split(b"\n")[0])["model"]
    sizes = {**config["main"], "sizes": [2, width, width, 1]}
    for claim in ({"hidden": [width]}, {"main": sizes}, {"hidden": [1] * 500}):
        rewritten(path, model=config | claim)
        tracemalloc.start()
        with pytest.raises(ValueError, match="units"):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 1e6
        tracemalloc.stop()


def test_float64_weights_are_read_in_jaxs_precision(path, hyper):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: a + 1e-12, hpx.cast(hyper, jnp.float64))
        save(path, wide)
        assert eqx.tree_equal(load(path), wide)
    assert eqx.tree_equal(load(path), hpx.cast(wide, jnp.float32))


def test_float32_weights_can_be_read_in_x64_mode(path, hyper):
    save(path, hyper)
    with jax.enable_x64(True):
        assert eqx.tree_equal(load(path), hpx.cast(hyper, jnp.float64))


def test_the_first_line_is_json(saved, hyper):
    header = json.loads(saved.split(b"\n")[0])
    assert header["format"] == "hyperpinn_eqx model"
    assert header["libraries"].keys() >= {"python", "jax", "hyperpinn_eqx"}
    assert header["model"] == json.loads(json.dumps(hyper.config()))
    assert header["card"] == {"seed": 7}


def test_the_card_can_be_read_alone(saved, path):
    assert read_card(path) == {"seed": 7}


def rewritten(path, **changes):
    """Another header or content in a file that is whole."""
    head, content = files.read(path, "hyperpinn_eqx model")
    content = changes.pop("content", content)
    head = {name: head[name] for name in ("model", "card")} | changes
    files.write(path, "hyperpinn_eqx model", head, content)


def test_nothing_is_pickled(path, saved):
    # An array that only pickle could read, in place of the first weight.
    np.save(content := io.BytesIO(), np.array([{}], dtype=object))
    rewritten(path, content=content.getvalue())
    with pytest.raises(ValueError, match="no array of numbers"):
        load(path)


@pytest.mark.slow
def test_loading_runs_no_code_of_the_file(path, saved):
    # Whatever could run code is seen by an audit hook, which cannot be removed: hence
    # a process of its own. What Python and JAX do by themselves is done before.
    code = f"""
import sys, jax, numpy, hyperpinn_eqx
hyperpinn_eqx.load({str(path)!r})
seen = []
sys.addaudithook(lambda event, args: seen.append(event))
hyperpinn_eqx.load({str(path)!r})
bad = ("pickle", "compile", "exec", "marshal", "socket", "subprocess", "os.", "import")
found = sorted({{event for event in seen if event.startswith(bad)}})
assert "open" in seen, seen
assert not found, found
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_model_that_cannot_be_described_leaves_no_file(path, hyper):
    with pytest.raises(TypeError, match="card = .*, expected JSON-able data"):
        save(path, hyper, {"not JSON": object()})
    assert os.listdir(path.parent) == []


def test_saving_replaces_what_was_there(path, saved, concat):
    save(path, concat)
    assert eqx.tree_equal(load(path), concat)
    assert os.listdir(path.parent) == [path.name]


def test_everybody_can_read_the_file(path, saved):
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_paths_may_be_text(path, hyper):
    save(str(path), hyper)
    assert eqx.tree_equal(load(str(path)), hyper)


def test_like_accepts_the_same_architecture(path, saved, hyper):
    assert eqx.tree_equal(load(path, like=hyper), hyper)


def test_like_names_what_differs(path, saved, hyper, concat, heat, getkey):
    wider = eqx.filter_jit(hpx.HyperPINN)(
        hyper.main, heat.parameters, (4, 5), key=getkey()
    )
    with pytest.raises(ValueError, match=r"hidden = \[4, 3\], expected \[4, 5\]"):
        load(path, like=wider)
    with pytest.raises(ValueError, match="class = HyperPINN, expected ConcatPINN"):
        load(path, like=concat)


def test_a_file_cut_off_anywhere_is_an_error(path, saved, damaged):
    for content in damaged.cut_off(saved, 97):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="model.eqx: (not a|damaged)"):
            load(path)


def test_a_flipped_bit_anywhere_is_an_error(path, saved, damaged):
    for content in damaged.flipped(saved, 5):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="model.eqx: .*(expected|damaged)"):
            load(path)


def test_bytes_at_the_end_are_an_error(path, saved):
    path.write_bytes(saved + b"\0")
    with pytest.raises(ValueError, match="damaged"):
        load(path)


@pytest.mark.parametrize(
    "model",
    [{"class": "Transformer"}, {"hidden": [4, 4]}, {"hidden": None}, {"main": {}}],
    ids=str,
)
def test_a_header_that_does_not_fit_the_weights_is_an_error(path, saved, model):
    config = json.loads(saved.split(b"\n")[0])["model"]
    rewritten(path, model=config | model)
    with pytest.raises(ValueError, match="model.eqx: cannot be loaded"):
        load(path)


def test_other_arrays_than_the_headers_are_an_error(path, saved):
    _, content = files.read(path, "hyperpinn_eqx model")
    rewritten(path, content=content + content)
    with pytest.raises(ValueError, match="12 arrays, expected 6"):
        load(path)
    rewritten(path, content=content[:-4])
    with pytest.raises(ValueError, match="an array of shape"):
        load(path)


def test_no_file_is_an_error(path):
    with pytest.raises(FileNotFoundError):
        load(path)
