import json
import os
import stat

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import load, save
from hyperpinn_eqx.checkpoint import read_card, write_json


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
    assert header["format"] == "hyperpinn_eqx"
    assert header["model"] == json.loads(json.dumps(hyper.config()))
    assert header["card"] == {"seed": 7}


def test_the_card_can_be_read_alone(saved, path):
    assert read_card(path) == {"seed": 7}


def test_write_json_is_for_people(tmp_path):
    write_json(tmp_path / "card.json", {"ν": [1, 2]})
    text = (tmp_path / "card.json").read_text("utf-8")
    assert json.loads(text) == {"ν": [1, 2]}
    assert "ν" in text and text.endswith("}\n")


def test_nothing_is_pickled(path, saved):
    # An array that only pickle could read, in place of the first weight.
    header = saved[: saved.index(b"\n") + 1]
    with open(path, "wb") as file:
        file.write(header)
        np.save(file, np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="damaged"):
        load(path)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_alone(
    step, path, saved, concat, monkeypatch
):
    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="disk full"):
        save(path, concat)
    assert path.read_bytes() == saved
    assert os.listdir(path.parent) == [path.name]


def test_a_model_that_cannot_be_described_leaves_no_file(path, hyper):
    with pytest.raises(TypeError):
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


def test_a_file_cut_off_anywhere_is_an_error(path, saved):
    lengths = {*range(0, len(saved), 97), len(saved) - 1, saved.index(b"\n")}
    for length in lengths | {saved.index(b"\n") + 1}:
        path.write_bytes(saved[:length])
        with pytest.raises(ValueError, match="not a hyperpinn_eqx|end early"):
            load(path)


def test_bytes_at_the_end_are_an_error(path, saved):
    path.write_bytes(saved + b"\0")
    with pytest.raises(ValueError, match="bytes follow the last weight"):
        load(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\x93NUMPY\x01\x00",
        b"\x80\x05\x95",
        b"just text\n",
        b"[1, 2]\n",
        b"null\n",
        b'{"format": "other"}\n',
        b'{"no": "format"}\n',
        b'{"format": "hyperpinn_eqx"}\n',
        b'{"format": "hyperpinn_eqx", "version": 1}\n',
        b'{"format": "hyperpinn_eqx", "version": "x", "model": {}, "card": {}}\n',
    ],
    ids=repr,
)
def test_a_foreign_file_is_an_error(path, content):
    path.write_bytes(content)
    for read in (load, read_card):
        with pytest.raises(
            ValueError, match="model.eqx: not a hyperpinn_eqx checkpoint"
        ):
            read(path)


def edited(saved, **changes):
    line, rest = saved.split(b"\n", 1)
    return json.dumps(json.loads(line) | changes).encode() + b"\n" + rest


def test_a_newer_format_is_an_error(path, saved):
    path.write_bytes(edited(saved, version=2))
    with pytest.raises(ValueError, match="version 2, expected at most 1; .*newer"):
        load(path)


@pytest.mark.parametrize(
    "model",
    [{"class": "Transformer"}, {"hidden": [4, 4]}, {"hidden": None}],
    ids=str,
)
def test_a_header_that_does_not_fit_the_weights_is_an_error(path, saved, model):
    config = json.loads(saved.split(b"\n")[0])["model"]
    path.write_bytes(edited(saved, model=config | model))
    with pytest.raises(ValueError, match="model.eqx: "):
        load(path)


def test_no_file_is_an_error(path):
    with pytest.raises(FileNotFoundError):
        load(path)
