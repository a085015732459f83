"""The same results on several devices, and in several processes.

The suite runs with four CPU devices. As a script, this file is one of two processes.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import _blocks as devices
from hyperpinn_eqx.training.journal import Journal, Stopped

MESHES = {
    "lam": lambda: jax.make_mesh((4,), ("lam",)),
    "points": lambda: jax.make_mesh((4,), ("points",)),
    # Of axes that are Auto, where those of make_mesh are Explicit.
    "both": lambda: jax.sharding.Mesh(
        np.array(jax.devices()[:4]).reshape(2, 2), ("lam", "points")
    ),
}


def close(a, b, rtol=1e-10):
    """Whether all arrays of two results are the same to round-off."""
    for x, y in zip(jax.tree.leaves(a.model), jax.tree.leaves(b.model), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol / 100)
    assert a.history.keys() == b.history.keys()
    for name in a.history.keys() - {"seconds"}:
        np.testing.assert_allclose(a.history[name], b.history[name], rtol=10 * rtol)


def differs(result, model):
    """Whether training did anything."""
    return not np.allclose(jax.tree.leaves(result.model)[0], jax.tree.leaves(model)[0])


def pinn(problem, **options):
    # No number is a multiple of four.
    sizes = {"n_lam": 6, "n_points": 10, "n_conditions": 3, "adaptive": False}
    return hpx.PINNLoss(problem, **sizes | options)


def fitted(model, loss, mesh, **options):
    options = {"steps": 4, "chunk": 2, "key": jr.key(1), "progress": False} | options
    return hpx.fit(model, loss, optax.adam(1e-2), mesh=mesh, **options)


def newton(model, loss, mesh, **options):
    options = {"steps": 4, "redraw": 2, "key": jr.key(4), "progress": False} | options
    return hpx.gauss_newton(model, loss, mesh=mesh, **{"rank": 4} | options)


# --- The same numbers ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "mesh", "adaptive"),
    [("hyper", "lam", False), ("hyper", "both", True), ("concat", "points", False)],
)
def test_fit_gives_the_same_on_several_devices(
    x64, which, mesh, adaptive, heat, request
):
    model, loss = request.getfixturevalue(which), pinn(heat, adaptive=adaptive)
    one = fitted(model, loss, None)
    assert differs(one, model)
    close(fitted(model, loss, MESHES[mesh]()), one)


def test_blocks_of_many_lambda_are_split_too(x64, heat, hyper, monkeypatch):
    alone = fitted(hyper, pinn(heat), None)
    # Six λ of 16 evaluations each: blocks of two, also on two devices times two.
    monkeypatch.setattr(devices, "_at_once", lambda: 32)
    for mesh in (None, MESHES["both"]()):
        close(fitted(hyper, pinn(heat), mesh), alone)


def test_a_multistep_loss_gives_the_same(x64, getkey):
    box = hpx.Box(rho=(0.0, 2.0))
    main = hpx.MainNetSpec((2, 4, 2), hpx.Box(x=(-1, 1), y=(-1, 1)))
    model = eqx.filter_jit(hpx.HyperPINN)(main, box, (3,), key=getkey())
    states = hpx.uniform(main.inputs, (6, 2, 9), key=getkey())
    lam, finished = jnp.linspace(0, 2, 6)[:, None], np.ones((6, 2), bool)
    data = hpx.Trajectories(lam, states, 0.1, finished)
    loss = hpx.MultistepLoss(data, hpx.adams_moulton(1), [1.0, 2.0], n_windows=10)
    one = fitted(model, loss, None)
    assert differs(one, model)
    close(fitted(model, loss, MESHES["both"]()), one)


@pytest.mark.parametrize(
    ("which", "mesh", "options"),
    [
        # The kernel of a hypernetwork; J Jᵀ from J; JᵀJ.
        ("hyper", "both", {}),
        ("hyper", "lam", {"frozen": lambda model: model.trunk}),
        ("concat", "both", {"rank": 20}),
    ],
)
def test_gauss_newton_gives_the_same(x64, which, mesh, options, heat_loss, request):
    model = request.getfixturevalue(which)
    one = newton(model, heat_loss, None, **options)
    # Steps 1 and 3 draw a batch, the others lower the loss on it.
    assert np.all(np.diff(one.history["total"])[[0, 2]] < 0)
    # Conjugate gradients amplify round-off, here and below.
    close(newton(model, heat_loss, MESHES[mesh](), **options), one, rtol=1e-6)


def test_maps_and_sums_over_lam_are_those_of_one_device(x64):
    xs = (jr.normal(jr.key(0), (7, 3)), jnp.arange(7.0))
    # A derivative by what all devices hold must stay that of one λ.
    a = jnp.array([2.0, 3.0, 5.0])

    def slope(pair):
        return {"slope": jax.grad(lambda a: jnp.sum(a**2 * pair[0]) * pair[1])(a)}

    expected = np.stack([2 * np.array(a) * x * y for x, y in zip(*xs, strict=True)])
    for name in ("lam", "points", "both"):
        mesh = devices.checked(MESHES[name]())
        for one in (devices.map_lam, devices.sum_lam):
            found = devices.on(mesh, jax.jit(lambda xs, one=one: one(slope, xs)))(xs)
            wanted = expected if one is devices.map_lam else expected.sum(0)
            np.testing.assert_allclose(found["slope"], wanted, rtol=1e-13)


# --- Each device does its share ------------------------------------------------------


def compiled(loss, model, mesh):
    batch = loss.sample(model, key=jr.key(0))
    gradient = jax.jit(jax.grad(lambda model: loss(model, batch).total))
    lowered = devices.on(mesh, gradient.lower)(devices.everywhere(mesh, model))
    return lowered.compile()


def test_each_device_does_its_share_of_a_gradient(heat, hyper):
    loss = pinn(heat, n_lam=8, n_points=256)
    one = compiled(loss, hyper, None)
    each = compiled(loss, hyper, devices.checked(MESHES["both"]()))
    assert each.cost_analysis()["flops"] < 0.3 * one.cost_analysis()["flops"]
    # Only sums over devices: nothing else has to travel.
    text = each.as_text()
    assert "all-reduce" in text
    assert not re.findall("all-to-all|all-gather|collective-permute", text)


def test_fit_runs_a_loss_of_the_users_on_its_mesh():
    found = []

    def loss(x, key):
        lams = hpx.shard(jr.uniform(key, (8, 8)), "lam", "points")
        jax.debug.inspect_array_sharding(lams * x, callback=found.append)
        return hpx.Loss({"mean": jnp.mean((lams - x) ** 2)})

    result = fitted(jnp.zeros(()), loss, MESHES["both"]())
    assert found and {s.shard_shape((8, 8)) for s in found} == {(4, 4)}
    # What comes back is an ordinary array again.
    assert len(result.model.sharding.device_set) == 1


def test_the_points_of_a_term_are_split(x64, heat, hyper):
    mesh = devices.checked(MESHES["points"]())
    loss = pinn(heat, n_lam=2, n_points=1000)
    batch = loss.sample(hyper, key=jr.key(0))
    total = eqx.filter_jit(sys.modules["hyperpinn_eqx.training.gauss_newton"]._total)
    flops = []
    for m in (None, mesh):
        args = devices.everywhere(m, (loss, hyper, batch))
        done = devices.on(m, total.lower)(*args).compile()
        flops.append(done.compiled.cost_analysis()["flops"])
    assert flops[1] < 0.3 * flops[0]


# --- Going on, and what is seen from outside -----------------------------------------


@pytest.mark.parametrize(
    ("train", "name", "at"), [(fitted, "fit", 2), (newton, "gauss-newton", 3)]
)
def test_a_run_goes_on_with_other_devices(
    x64, train, name, at, heat_loss, hyper, stop_at, tmp_path
):
    path = tmp_path / "some.journal"
    seen = []

    def callback(model, seconds):
        # It gets ordinary arrays.
        seen.extend(len(a.sharding.device_set) for a in jax.tree.leaves(model))
        return {}

    options = {"journal": stop_at(name, at)(path, {}), "callback": callback}
    with pytest.raises(Stopped, match=f"step {at}"):
        train(hyper, heat_loss, MESHES["both"](), **options)
    assert {*seen} == {1}
    two = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("lam",))
    options = {"journal": Journal(path, {}, resume=True)}
    one = train(hyper, heat_loss, None)
    rtol = 1e-6 if train is newton else 1e-10
    close(train(hyper, heat_loss, two, **options), one, rtol)


@pytest.mark.parametrize("train", [fitted, newton])
def test_a_mesh_has_the_right_axes(x64, train, heat_loss, hyper):
    with pytest.raises(ValueError, match="mesh.*batch"):
        train(hyper, heat_loss, jax.make_mesh((2, 2), ("lam", "batch")))


def test_shard_changes_nothing_without_a_mesh():
    x = jnp.ones((3, 2))
    assert hpx.shard(x, "lam", "points") is x
    with jax.set_mesh(devices.checked(MESHES["lam"]())):
        # Three rows do not divide among four devices outside of jit.
        assert hpx.shard(x, "lam", "points") is x


def test_shard_takes_names_of_axes_that_are_there(unchecked):
    x = jnp.ones((3, 2))
    for axes in (("t",), ("lam", "lam"), (0,), ([],)):
        with pytest.raises(ValueError, match="axes"):
            hpx.shard(x, *axes)
    with pytest.raises(ValueError, match=r"values.*\(3,\)"):
        hpx.shard((x, x[:, 0]), "lam", "points")


# --- Several processes ---------------------------------------------------------------


def shared(mesh, path, **options):
    """A training that any number of processes can do together."""
    problem = hpx.Burgers()
    main = hpx.MainNetSpec((2, 3, 3, 1), problem.domain)
    model = hpx.HyperPINN(main, problem.parameters, (3,), key=jr.key(0))
    with Journal(path, {}, resume=True, every=0.0) as journal:
        loss, options = pinn(problem), options | {"steps": 6, "journal": journal}
        return fitted(model, loss, mesh, **options)


def process(number, port, path):
    """One of two processes; the second is told to stop after the first two steps."""
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)
    jax.distributed.initialize(f"localhost:{port}", 2, number)

    def stop(model, seconds):
        if number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    with contextlib.suppress(Stopped):
        shared(MESHES["both"](), path, callback=stop)
        raise AssertionError("it was not stopped")


def test_only_the_first_process_writes_and_shows(monkeypatch, tmp_path, capsys):
    def square(x, key):
        return hpx.Loss({"square": x**2})

    def run(path):
        journal = Journal(path, {}, every=0.0)
        fitted(jnp.ones(()), square, None, journal=journal, progress=True)
        return path.exists(), "fit:" in capsys.readouterr().err

    assert run(tmp_path / "first.journal") == (True, True)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert run(tmp_path / "second.journal") == (False, False)


@pytest.mark.slow
def test_two_processes_stop_together_and_one_goes_on(x64, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    path = tmp_path / "shared.journal"
    command = [sys.executable, __file__]
    running = [
        subprocess.Popen(
            [*command, str(number), str(port), str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in (0, 1)
    ]
    try:
        told = [one.communicate(timeout=240)[0] for one in running]
    finally:
        for one in running:
            one.kill()
    assert [one.returncode for one in running] == [0, 0], told
    steps = []
    resumed = shared(
        None, path, callback=lambda model, seconds: steps.append(seconds) or {}
    )
    # Two of three chunks were left to do.
    assert len(steps) == 2
    close(resumed, shared(None, tmp_path / "alone.journal"))


if __name__ == "__main__":
    process(int(sys.argv[1]), *sys.argv[2:])
