"""Programs: what is read is what holds at the call, and nothing compiles twice."""

import gc
import weakref

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import _programs as programs


@pytest.fixture(autouse=True)
def fresh():
    programs._executables.clear()


class Holder(eqx.Module):
    array: jax.Array
    name: str

    def __call__(self, x):
        return self.array * x


def test_a_variable_that_changed_is_read_anew():
    def line(x):
        return slope * x

    for slope in (2.0, 3.0):
        np.testing.assert_array_equal(programs.call(line, jnp.ones(2)), slope)


@pytest.mark.parametrize("kind", [jnp.asarray, np.asarray])
def test_arrays_that_are_closed_over_compile_once(kind):
    for i in range(5):
        offset = kind(np.full((3,), float(i), np.float32))
        found = programs.call(lambda x: x + offset, jnp.ones(3))  # noqa: B023
        np.testing.assert_array_equal(found, 1.0 + i)
    assert len(programs._executables) == 1


def test_other_programs_are_compiled_and_so_many_kept(monkeypatch):
    monkeypatch.setattr(programs, "_MOST", 3)
    for i, (power, n) in enumerate(((1, 1), (2, 1), (2, 2), (2, 3)), start=1):
        found = programs.call(lambda x: x**power, jnp.full(n, 3.0))  # noqa: B023
        np.testing.assert_array_equal(found, 3.0**power)
        assert len(programs._executables) == min(i, 3)
    with jax.enable_x64(True):
        assert programs.call(lambda: jnp.zeros(2)).dtype == jnp.float64
    assert programs.call(lambda: jnp.zeros(2)).dtype == jnp.float32


def test_what_a_program_calls_back_is_that_of_the_call():
    for value in (1.0, 2.0):
        found = programs.call(
            lambda x: jax.pure_callback(lambda y: np.asarray(y + value), x, x),  # noqa: B023
            jnp.ones(()),
        )
        assert found == 1.0 + value


def test_an_input_that_is_not_used_still_has_a_shape():
    for n in (2, 3):
        assert programs.call(lambda x, y: x + 1, jnp.ones(()), jnp.ones(n)) == 2.0


def test_a_constant_inside_of_an_inner_jit_counts():
    table = np.zeros((40, 40))
    inner = jnp.ones((1, 40))
    for entry in (1.0, 2.0):
        table = table.copy()
        table[20, 20] = entry
        now = table
        found = programs.call(lambda x: x @ jax.jit(lambda: jnp.asarray(now))(), inner)  # noqa: B023
        assert found[0, 20] == entry


def test_trees_go_in_and_out_with_what_is_no_array():
    holder = Holder(jnp.arange(3.0), "a")

    def both(holder, x):
        return {"value": holder(x), "name": holder.name, "holder": holder}

    run = programs.compiled(both, holder, jnp.ones(()))
    for factor in (1.0, 2.0):
        found = run(Holder(factor * jnp.arange(3.0), "a"), jnp.array(2.0))
        np.testing.assert_array_equal(found["value"], 2 * factor * np.arange(3))
        assert found["name"] == found["holder"].name == "a"


def test_under_a_transformation_it_is_the_function_itself():
    def f(x):
        return programs.call(lambda y: x * y**2, x)

    x = jnp.array(3.0)
    assert jax.grad(f)(x) == 27.0
    assert jax.jit(f)(x) == 27.0
    np.testing.assert_array_equal(jax.vmap(f)(jnp.arange(3.0)), [0.0, 1.0, 8.0])
    outer = jax.vmap(lambda a: programs.call(lambda y: a + y, jnp.ones(())))
    np.testing.assert_array_equal(outer(jnp.arange(2.0)), [1.0, 2.0])


def test_nothing_that_a_function_closes_over_stays_alive():
    def once():
        big = jnp.ones(1000)
        model = Holder(big, "b")
        programs.call(lambda x: model(x).sum() + big[0], jnp.ones(()))
        return weakref.ref(model), weakref.ref(big)

    refs = once()
    gc.collect()
    assert [ref() for ref in refs] == [None, None]


def test_a_loop_may_hold_on_to_what_it_began_with():
    def line(x, power):
        return slope * x**power

    slope = 2.0
    run = programs.once(line)
    assert run(jnp.array(3.0), 1) == 6.0
    slope = 5.0
    assert run(jnp.array(3.0), 1) == 6.0
    # Other arguments are another program.
    assert run(jnp.array(3.0), 2) == 45.0
    np.testing.assert_array_equal(run(jnp.full(2, 3.0), 1), 15.0)
    # Arrays of NumPy are inputs too.
    at = np.ones(3, np.float32)
    for value in (1.0, 4.0):
        at[:] = value
        np.testing.assert_array_equal(run(at, 1), 5 * value)


def test_a_loss_may_be_split_over_a_mesh():
    mesh = jax.make_mesh((1,), ("lam",))
    with jax.set_mesh(mesh):
        run = programs.compiled(lambda x: hpx.shard(x, "lam") + 1, jnp.zeros(4))
        np.testing.assert_array_equal(run(jnp.zeros(4)), 1.0)
