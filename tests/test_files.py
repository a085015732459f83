import json
import os
import pathlib
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperpinn_eqx import _files as files


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.file"


@pytest.fixture
def saved(path):
    files.write(path, "hyperpinn_eqx thing", {"step": 3}, b"content")
    return path.read_bytes()


def test_what_is_written_comes_back(path, saved):
    head, content = files.read(path, "hyperpinn_eqx thing")
    assert content == b"content" and head["step"] == 3
    assert json.loads(saved.split(b"\n")[0]) == head
    assert head["libraries"] == files.libraries()
    assert head["libraries"]["jax"] == jax.__version__


def edited(saved, **changes):
    line, rest = saved.split(b"\n", 1)
    return json.dumps(json.loads(line) | changes).encode() + b"\n" + rest


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"version": v}, f"version {v!r}.*jax") for v in (1, files.VERSION + 1, "2", None)]
    + [({"format": "other"}, "'other'"), ({"step": 4}, "damaged")],
)
def test_another_first_line_is_an_error(path, saved, changes, told):
    path.write_bytes(edited(saved, **changes))
    with pytest.raises(ValueError, match=f"some.file: .*{told}"):
        files.read(path, "hyperpinn_eqx thing")


def test_a_damaged_file_is_an_error(path, saved, damaged):
    for content in [*damaged.cut_off(saved, 7), *damaged.flipped(saved, 5)]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="some.file"):
            files.read(path, "hyperpinn_eqx thing")


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\x93NUMPY\x01\x00", b"just text\n", b"[1, 2]\n", b'"text"\n', b"7\n"),
        *(b'{"no": "format"}\n', b'{"format": "hyperpinn_eqx thing"}\n'),
        b"[" * 100_000 + b"\n",
    ],
    ids=lambda content: repr(content[:20]),
)
def test_a_foreign_file_is_an_error(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="some.file"):
        files.read(path, "hyperpinn_eqx thing")


def test_write_json_is_for_people(path):
    files.write_json(path, {"ν": [1, 2]})
    text = path.read_text("utf-8")
    assert json.loads(text) == {"ν": [1, 2]}
    assert "ν" in text and text.endswith("}\n")


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_a_failed_write_leaves_the_old_file_alone(step, path, saved, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        files.write(path, "hyperpinn_eqx thing", {}, b"other")
    assert path.read_bytes() == saved
    assert os.listdir(path.parent) == [path.name]


def test_leftovers_of_a_killed_write_are_removed_and_nothing_else(path, saved):
    others = [path.with_name(name) for name in (".some.other", "some.file.x", ".a")]
    for file in (
        *others,
        path.with_name(".some.file.abc"),
        path.with_name(".some.file.x"),
    ):
        file.write_bytes(b"")
    files.remove_leftovers(path)
    assert {*path.parent.iterdir()} == {path, *others}


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="needs Linux")
def test_a_file_is_closed_before_it_is_renamed(path, saved, monkeypatch):
    # Windows renames no open file.
    rename, renamed = os.replace, []

    def closed(source, target):
        opened = [file.resolve() for file in pathlib.Path("/proc/self/fd").iterdir()]
        assert pathlib.Path(source).resolve() not in opened
        renamed.append(target)
        rename(source, target)

    monkeypatch.setattr(os, "replace", closed)
    files.write(path, "hyperpinn_eqx thing", {}, b"other")
    assert renamed == [path] and path.read_bytes() != saved


def exact(dtype, value):
    assert value.dtype == dtype
    return jnp.array(value)


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint32", "int64", "float16", "bfloat16", "complex64"]
)
def test_arrays_of_numbers_come_back(dtype, x64):
    values = jnp.asarray([[0, 1, 1], [1, 0, 3]], dtype=dtype)
    tree = {
        "jax": values,
        "numpy": np.asarray(values),
        "by columns": np.asfortranarray(values),
        "empty": np.zeros((0, 3), values.dtype),
        "scalar": np.asarray(values)[0, 1],
        "function": jnp.tanh,
        "number": 3,
    }
    found = files.unpack(files.pack(tree), tree, exact)
    for name, value in tree.items():
        assert type(found[name]) is type(value)
        if name != "function":
            assert np.asarray(found[name]).dtype == np.asarray(value).dtype
            np.testing.assert_array_equal(found[name], value)
    assert found["function"] is jnp.tanh
    found["numpy"][0, 0] = 1  # it can be written to


@pytest.mark.parametrize(
    "leaf",
    [jax.random.key(0), np.array(["a"]), np.zeros(2, ">f4"), np.array([None]), 10**30],
    ids=["key", "text", "big-endian", "object", "huge"],
)
def test_what_could_not_be_read_is_not_packed(leaf):
    with pytest.raises(TypeError, match="x"):
        files.pack({"x": leaf})


def header(shape, kind="<f4", order="False"):
    line = f"{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}\n"
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line.encode()


@pytest.mark.parametrize(
    "content",
    [
        header("(1000000000,)"),
        header("(1, 2, 1000000000)", order="True"),
        header("(0, 100000000000000000000)"),
        header("()") + b"123",
        header("(-1,)") + b"1234",
        header("()", kind="|O") + b"1234",
        header("()", kind=">f4") + b"1234",
        header("open('x')"),
        b"1234",
    ],
    ids=repr,
)
def test_arrays_that_only_claim_to_be_there_cost_nothing(content):
    tracemalloc.start()
    with pytest.raises(ValueError, match="array"):
        files.arrays(content)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_arrays_in_other_places_are_an_error():
    content = files.pack([np.ones(2), np.ones((2, 3))])
    for like in (
        [np.ones(2)],
        [np.ones(2), np.ones((2, 3)), 1],
        [np.ones(2), np.ones((3, 2))],
        [np.ones(2), np.ones((2, 3), np.float32)],
    ):
        with pytest.raises(ValueError):
            files.unpack(content, like, exact)
