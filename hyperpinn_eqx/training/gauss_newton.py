"""Damped Gauss-Newton: the loop around the step that `linear_system.py` solves for."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .. import _arguments as checks
from .. import _blocks as devices
from .. import _programs as programs
from ..loss import AbstractRows, Row, Rows, groups
from ..networks.model import AbstractModel, count_parameters, dtype_of
from .journal import Journal
from .linear_system import linearise, solve
from .result import FitResult
from .run import History, Watch
from .validation import Model, check_type, trainable

Draw = Callable[[AbstractModel, PRNGKeyArray], tuple[Float[Array, "M p"], PyTree]]

# The largest damping, in units of |J|²: a step then promises to lower the loss by 2e-8
# of itself at most. More would be of no use, and where no step helps, as at a minimum,
# the damping would grow to infinity.
_MOST = 1e8


def gauss_newton(
    model: AbstractModel,
    row: Row | AbstractRows,
    draw: Draw,
    *,
    steps: int,
    key: PRNGKeyArray,
    redraw: int = 8,
    damping: float = 1e-2,
    floor: float = 1e-8,
    rank: int = 64,
    frozen: Callable[[AbstractModel], PyTree] | None = None,
    progress: bool = True,
    what: str = "gauss-newton",
    journal: Journal | None = None,
    watch: Watch | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> FitResult:
    """Trains a model by damped Gauss-Newton (Levenberg 1944, Marquardt 1963).

    Minimises the mean over λ of Σ row². Each step is judged on the batch that made it,
    by the ratio of the loss's fall to the fall that the linear model promised. The
    damping μ rises until the loss falls, and then follows that ratio (Nielsen 1999,
    IMM-REP-1999-05).

    Args:
        model: a HyperPINN or a baseline, with float64 weights.
        row: one residual, already multiplied by its weight, in float64; or rows of
            several kinds, as `PINNRows` has them.
        draw: from a model and a key to M values of λ, shape (M, p), and a PyTree of
            items whose arrays start with shape (M, K): K rows for each λ. Of several
            kinds, a tuple of such trees, each with its own K. It is called as it is:
            compile it yourself.
        steps: how many steps to try.
        key: a JAX random key.
        redraw: steps on one batch before the next is drawn.
        damping: the first μ.
        floor: the least μ; smaller values let a step overfit its batch.
        rank: rows kept for each λ. With many λ a part of them is enough; with one or a
            few λ keep as many as the main network has weights, or steps stall.
        frozen: picks what is not trained, e.g. `lambda m: m.trunk`.
        progress: whether to show a bar.
        what: the bar's label, and the name of the stage in the journal.
        journal: goes on from what it holds of this stage, and keeps it after every
            step; the result is the same to the bit as without a stop.
        watch: see `fit`; called after every step.
        mesh: splits the λ of a batch (axis "lam") and the rows of each (axis "points")
            over devices, see `fit`. The dense system is solved on every one of them.

    Returns:
        A `FitResult` with the history of "total" and "damping".

    Whatever exception ends a training has an attribute `result`, see `fit`.

    Raises:
        TrainingStopped: a λ that was drawn, the loss of a batch or its Jacobian is not
            finite. The journal sees none of it.
        Stopped: a stop was requested of the journal, and everything is saved.
        ValueError: a number out of its range; weights that are not finite or not
            float64, or a row that is not; a batch of other shapes; `frozen` that picks
            nothing or everything; or the journal's arrays do not fit.
        TypeError: an argument of another kind.
    """
    mesh = devices.checked(mesh)
    checks.instance("model", model, AbstractModel)
    checks.function("draw", draw)
    checks.random_key("key", key)
    steps, redraw = checks.count("steps", steps), checks.count("redraw", redraw)
    rank, damping = checks.count("rank", rank), checks.positive("damping", damping)
    floor = checks.number("floor", floor, 0.0)
    model = in_float64("model", model)
    method = Method(row, rank, _trained(model, frozen), mesh)
    draw = _checked(draw, method.kinds)
    # Only a journal has to know the shapes of a batch beforehand.
    batch = (None, None) if journal is None else eqx.filter_eval_shape(draw, model, key)
    state = (model, 0.0, damping, *batch)

    def whole(state: tuple) -> AbstractModel:
        return devices.here(mesh, state[0])

    history = History(steps, what, progress, key, state, whole, journal, watch)
    return method.run(draw, history, key, redraw, floor)


class Method:
    """The steps for rows of one kind, each program traced once and then kept.

    Args:
        row: see `gauss_newton`.
        rank: rows kept for each λ.
        trained: which leaves of a model are unknowns.
        mesh: see `gauss_newton`.

    Raises:
        TypeError: `row` is no function and no rows.
    """

    def __init__(
        self,
        row: Rows,
        rank: int,
        trained: PyTree,
        mesh: jax.sharding.Mesh | None = None,
    ):
        self.kinds: int | None = None
        if isinstance(row, AbstractRows):
            self.kinds = len(row.groups)
        else:
            checks.function("row", row)
        self.mesh = mesh
        self.total, self.system, self.solve = (
            devices.on(mesh, programs.once(f))
            for f in (
                functools.partial(_total, row),
                functools.partial(linearise, row, rank, trained),
                functools.partial(solve, trained),
            )
        )

    def run(
        self,
        draw: Draw,
        history: History,
        key: PRNGKeyArray,
        redraw: int,
        floor: float,
    ) -> FitResult:
        """Goes on from the state of a history; see `gauss_newton`."""
        mesh, draw = self.mesh, devices.on(self.mesh, draw)
        with history:
            model, loss, damping, lams, items = devices.everywhere(mesh, history.state)
            while not history.over:
                i = history.done
                draw_key, sketch_key = jr.split(jr.fold_in(key, i))
                if i % redraw == 0:
                    lams, items = devices.everywhere(mesh, draw(model, draw_key))
                    loss = float(self.total(model, lams, items))
                    if not jnp.all(jnp.isfinite(lams)):
                        history.stop(f"a λ of draw is not finite at step {i + 1}")
                    if not np.isfinite(loss):
                        history.stop(
                            f"the loss of the batch became {loss} at step {i + 1}"
                        )
                system = self.system(model, lams, items, sketch_key)
                size = float(system.size)
                if not np.isfinite(size):
                    history.stop(
                        f"the Jacobian of the residuals became {size} at step {i + 1}"
                    )
                for rise in (2, 4, 8, 16, 32, 64):
                    # As an array: a Python float would be compiled in.
                    trial, promised = self.solve(
                        model, lams, system, jnp.asarray(damping)
                    )
                    trial = devices.everywhere(mesh, trial)
                    after = float(self.total(trial, lams, items))
                    # A system that cannot be factorised gives NaN: more damping.
                    if after < loss and promised > 0:
                        gain = (loss - after) / float(promised)
                        damping *= min(max(1 / 3, 1 - (2 * gain - 1) ** 3), 2)
                        model, loss, damping = trial, after, max(damping, floor)
                        break
                    damping = min(damping * rise, max(damping, _MOST * size))
                terms = {"total": loss, "damping": damping}
                history.add((model, loss, damping, lams, items), 1, terms)
            return history.result()


def _total(
    rows: Rows, model: AbstractModel, lams: Array, items: PyTree
) -> Float[Array, ""]:
    def one(pair: tuple) -> Array:
        lam, items = pair
        net = model(lam)

        def squares(row: Row, part: PyTree) -> Array:
            def checked(item: PyTree) -> Array:
                r = checks.array("row(net, lam, item)", row(net, lam, item))
                check_type("row(net, lam, item)", r.dtype, model)
                return r

            return jnp.sum(jax.vmap(checked)(devices.shard(part, "points")) ** 2)

        sums = [squares(row, part) for row, part in groups(rows, items)]
        return jnp.sum(jnp.stack(sums))

    return jnp.mean(devices.map_lam(one, (lams, items)))


def in_float64(name: str, model: Model) -> Model:
    """A model that can be trained, in float64.

    Raises:
        ValueError: its weights are of another type, or not finite.
    """
    model = trainable(name, model)
    if dtype_of(model) != jnp.float64:
        raise ValueError(
            f"{name} has {dtype_of(model)} weights, expected float64: Gauss-Newton "
            "squares condition numbers; set jax_enable_x64 before making the model"
        )
    return model


def _trained(model: AbstractModel, frozen: Callable | None) -> PyTree:
    """Which leaves of the model are unknowns."""
    every = jax.tree.map(eqx.is_inexact_array, model)
    if frozen is None:
        return every
    checks.function("frozen", frozen)
    try:
        trained = eqx.tree_at(frozen, every, replace_fn=lambda _: False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"frozen picks {frozen(model)!r}, expected a part of the model"
        ) from error
    left, whole = (count_parameters(eqx.filter(model, t)) for t in (trained, every))
    if not 0 < left < whole:
        raise ValueError(
            f"frozen picks {whole - left} of {whole} weights, expected some, not all"
        )
    return trained


def _checked(draw: Callable, kinds: int | None) -> Callable:
    """The same draw, but for what it must not return."""

    def checked(model: AbstractModel, key: PRNGKeyArray) -> tuple[Array, PyTree]:
        batch = draw(model, key)
        checks.instance("draw(model, key)", batch, (tuple, list))
        if len(batch) != 2:
            raise ValueError(f"draw returned {len(batch)} values, expected λ and items")
        lams = checks.array("lam of draw", batch[0], "M", len(model.parameters))
        parts = [batch[1]] if kinds is None else batch[1]
        if kinds is not None:
            checks.instance("items of draw", parts, (tuple, list))
        if len(parts) != (kinds or 1):
            raise ValueError(
                f"items of draw have {len(parts)} parts, expected {kinds}, one for "
                "each kind of row"
            )
        starts = [{np.shape(x)[:2] for x in jax.tree.leaves(part)} for part in parts]
        rows = [next(iter(s))[1] if {len(x) for x in s} == {2} else 0 for s in starts]
        wanted = [{(len(lams), k)} for k in rows]
        if starts != wanted or not any(rows):
            raise ValueError(
                f"items of draw have shapes that start with {starts}, expected "
                f"({len(lams)}, K) for all: K rows for each λ"
            )
        parts = jax.tree.map(jnp.asarray, tuple(parts))
        return lams, parts[0] if kinds is None else parts

    return checked
