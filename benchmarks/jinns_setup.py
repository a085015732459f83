"""What the comparisons with jinns share: an environment, and one network in both.

jinns (https://pypi.org/project/jinns) is the other JAX library with HyperPINNs. It is
installed into `.venv-jinns`, beside this package and with the versions of
requirements.lock, so that one process can run and check both with the same jax.
Importing this module goes on inside that environment, which the first import makes;
but with `--quick` nothing is installed, and where jinns is missing the script says so
and ends.
"""

import os
import pathlib
import subprocess
import sys
import warnings
from typing import Any, TypeAlias

ROOT = pathlib.Path(__file__).parent.parent
JINNS = "1.10.2"


def _enter() -> None:
    home = ROOT / ".venv-jinns"
    if pathlib.Path(sys.prefix).resolve() == home.resolve():
        return
    python = home / "bin" / "python"
    # The last file that pip writes: an installation that was cut off starts again.
    if not list(home.glob(f"lib/*/site-packages/jinns-{JINNS}.dist-info/RECORD")):
        if "--quick" in sys.argv:
            print(f"jinns {JINNS} is not in {home.name}: nothing was run")
            sys.exit()
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        pip = [str(python), *"-m pip install -q -c requirements.lock".split()]
        subprocess.run([*pip, f"jinns=={JINNS}", "-e", "."], cwd=ROOT, check=True)
    os.execv(python, [str(python), *sys.argv])


_enter()

import importlib.metadata
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jinns
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

import hyperpinn_eqx as hpx

Weights: TypeAlias = PyTree[Array]  # in jinns a tree apart from the network
Params: TypeAlias = jinns.parameters.Params


def network(
    model: hpx.HyperPINN, *, key: PRNGKeyArray | None = None
) -> tuple[jinns.nn.HyperPINN, Weights]:
    """A HyperPINN of jinns that is the same function as one of ours.

    Args:
        model: ours, for its layers and scaling.
        key: initialises the weights as jinns does it; None copies those of `model`.
    """
    main_key, hyper_key = jax.random.split(jax.random.key(0) if key is None else key)
    main, axis = _layers(model.main.sizes), model.main.odd_axis
    # jinns feeds λ to its hypernetwork as it is. Ours scales log ν to [-1, 1] first:
    # as a layer without weights, jinns gets the same help.
    sizes = (model.parameters.width, *model.trunk.hidden, model.main.size)
    hyper = ((model.parameters.scale,), *_layers(sizes))
    u, weights = jinns.nn.HyperPINN.create(
        eq_type="PDENonStatio",
        hyperparams=list(model.parameters.names),
        hypernet_input_size=len(model.parameters),
        eqx_network=jinns.nn.MLP(key=main_key, eqx_list=main),
        eqx_hyper_network=jinns.nn.MLP(key=hyper_key, eqx_list=hyper),
        input_transform=lambda tx, _: model.main.scale(tx),
        # The other half of a network that is odd by construction.
        output_transform=lambda tx, out, _: (
            out if axis is None else jnp.where(tx[axis] < 0, -out, out)
        ),
    )
    if key is None:
        weights = eqx.tree_at(jax.tree.leaves, weights, leaves(model))
    return u, weights


def into(model: hpx.HyperPINN, u: Any, weights: Weights) -> hpx.HyperPINN:
    """Our model with the weights of jinns' network, and checked to be the same."""
    ours = eqx.tree_at(leaves, model, jax.tree.leaves(weights))
    for nu in (0.001, 0.02, 0.1):
        params = Params(weights, {"nu": jnp.array([nu])})
        for tx in jnp.array([[0.0, -1.0], [0.3, -0.2], [0.7, 0.01], [1.0, 0.6]]):
            gap = jnp.max(jnp.abs(ours(nu)(tx) - u(tx, params)))
            assert gap < 1e-4, f"{gap} at nu = {nu}, (t, x) = {tx}"
    return ours


def leaves(model: hpx.HyperPINN) -> list[Array]:
    """Our weights in the order of jinns: layer by layer, the head last."""
    pairs = zip(model.trunk.weights, model.trunk.biases, strict=True)
    return [*(a for pair in pairs for a in pair), model.head, model.theta0]


def loss(u: Any, params: Params, *, data: float | None) -> Any:
    """jinns' own loss of Burgers' equation, initial and boundary condition.

    Args:
        u: the network.
        params: its weights and ν.
        data: the weight of the initial term and of the boundary term, which is a sum
            over both walls; None leaves them out.
    """
    conditions = {
        "initial_condition_fun": lambda x: -jnp.sin(jnp.pi * x),
        "boundary_condition": jinns.loss.Dirichlet(),
    }
    with warnings.catch_warnings():
        # It warns of conditions that are left out.
        warnings.simplefilter("ignore", UserWarning)
        return jinns.loss.LossPDENonStatio(
            u=u,
            dynamic_loss=jinns.loss.BurgersEquation(),
            loss_weights=jinns.loss.LossWeightsPDENonStatio(
                dyn_loss=1.0, initial_condition=data, boundary_loss=data
            ),
            params=params,
            **({} if data is None else conditions),
        )


def sampler(
    n: int, pool: int, *, half: bool, key: PRNGKeyArray
) -> tuple[jinns.data.CubicMeshPDENonStatio, jinns.data.DataGeneratorParameter]:
    """jinns' generators of points, uniform, and of ν, log-uniform.

    Args:
        n: collocation points, initial points, points of each wall, and ν, in a batch.
        pool: how many are drawn; when all were seen they are shuffled, each by itself.
        half: whether x is from 0 to 1 only, for a network that is odd in x.
        key: a JAX random key.
    """
    box = hpx.Burgers.domain
    size = None if n == pool else n
    point_key, nu_key, shuffle_key = jax.random.split(key, 3)
    points = jinns.data.CubicMeshPDENonStatio(
        key=point_key,
        n=pool,
        nb=2 * pool,
        ni=pool,
        dim=1,
        tmin=box.low[0],
        tmax=box.high[0],
        min_pts=(0.0 if half else box.low[1],),
        max_pts=(box.high[1],),
        domain_batch_size=size,
        border_batch_size=size,
        initial_batch_size=size,
    )
    nu = hpx.log_uniform(hpx.Burgers.parameters, (pool,), key=nu_key)
    return points, jinns.data.DataGeneratorParameter(
        key=shuffle_key, n=pool, param_batch_size=size, user_data={"nu": nu}
    )


def ssbroyden() -> optax.GradientTransformationExtraArgs:
    """jinns' SSBroyden on the network's weights alone.

    On all of `Params` it would keep a row and a column of its matrix for the ν of every
    pair, whose gradients are zero.
    """
    inner = jinns.optimizers.scale_by_SSBroyden_family()

    def update(
        slopes: Any, state: Any, params: Any, *, value: Any, **given: Any
    ) -> Any:
        def loss(weights: Any) -> jax.Array:
            full = Params(weights, params.eq_params)
            return given["loss"].evaluate(full, given["batch"])[0]

        step, state = inner.update(
            slopes.nn_params,
            state,
            params.nn_params,
            value=value,
            grad_pt=slopes.nn_params,
            value_fn=loss,
            grad_fn=jax.grad(loss),
        )
        still = jax.tree.map(jnp.zeros_like, params.eq_params)
        return Params(step, still), state

    return optax.GradientTransformationExtraArgs(
        lambda params: inner.init(params.nn_params), update
    )


def versions() -> dict[str, str]:
    """What a record of a comparison tells, beside the device."""
    return {p: importlib.metadata.version(p) for p in ("jinns", "equinox", "optax")}


def _layers(sizes: tuple[int, ...]) -> tuple:
    linear = [(eqx.nn.Linear, *pair) for pair in itertools.pairwise(sizes)]
    return (linear[0], *(x for layer in linear[1:] for x in ((jnp.tanh,), layer)))
