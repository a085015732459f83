"""The paper's Burgers experiments: sizes, recipes, and how to run them."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ..box import Box
from ..networks.conditioned import ConcatPINN
from ..networks.hyper import HyperPINN, Init
from ..networks.jets import Jet
from ..networks.main import MainNetSpec
from ..networks.model import AbstractModel
from ..physics.metrics import EvaluationSet, FamilyError, family_error
from ..physics.pinn import PINNLoss, slope_weight
from ..physics.sampling import log_uniform, uniform
from ..problems.base import condition
from ..problems.burgers import Burgers
from ..recipes.continuation import continuation, distill
from ..recipes.stages import Adam, Continuation, GaussNewton, in_float32, run_stages
from ..training.gauss_newton import gauss_newton
from ..training.journal import Journal
from ..training.result import FitResult
from .experiment import Named


class Odd(Burgers):
    """The same with u(t, 0) = 0, which its solution fulfils."""

    @condition(x=0)
    def middle(
        self, u: Jet, tx: Float[Array, " 2"], lam: Float[Array, ""]
    ) -> Float[Array, ""]:
        return u.value


@dataclasses.dataclass(frozen=True)
class BurgersExperiment(Named):
    """One trained model of the book.

    Attributes:
        name: what `load_pretrained` calls it.
        main: layer widths of the main network, λ's inputs not counted.
        hidden: widths of the hypernetwork's trunk; None for a baseline.
        paper_mse: the mean squared error in the paper's Table 1.
        stages: how it is trained.
        recipe: what these stages are called.
        init: how the hypernetwork starts; continuation needs only a smooth trunk.
        symmetric: whether u(t, 0) = 0 is asked for: the solution is odd in x.
        odd: whether the network is odd in x by construction.
        weighted: whether residuals are weighted by `1 / (1 + |u_x|)`.
        n_conditions: points of each condition.
        alpha: the weight of the physics term (paper eq. 6).
    """

    problem: ClassVar[Burgers] = Burgers()
    equation: ClassVar[str] = (
        "u_t + u u_x = nu u_xx, u(0, x) = -sin(pi x), u(t, +-1) = 0"
    )

    name: str
    main: tuple[int, ...]
    hidden: tuple[int, ...] | None
    paper_mse: float
    stages: tuple[Adam | Continuation | GaussNewton, ...]
    recipe: str = "best"
    init: Init = "common"
    symmetric: bool = True
    odd: bool = True
    weighted: bool = True
    n_conditions: int = 100
    alpha: float = 1.0

    @property
    def inputs(self) -> Box:
        """What the main network takes."""
        return self.problem.domain

    def measure(self, model: AbstractModel) -> FamilyError:
        """The error over 64 ν, 101 t and 256 x."""
        return family_error(model, self.problem)

    def build(self, *, key: PRNGKeyArray) -> AbstractModel:
        """The untrained model."""
        problem = Burgers()
        main = MainNetSpec(self.main, problem.domain, odd="x" if self.odd else None)
        if self.hidden is None:
            return ConcatPINN(main, problem.parameters, key=key)
        return HyperPINN(main, problem.parameters, self.hidden, init=self.init, key=key)

    def loss(self) -> PINNLoss:
        """The loss; all points of conditions count alike (paper eq. 6)."""
        # An odd solution vanishes at x = 0: one more wall.
        problem = Odd() if self.symmetric else self.problem
        share = {"start": 1 / 4, "walls": 1 / 2, "middle": 1 / 4}
        if not self.symmetric:
            share = {"start": 1 / 2, "walls": 1 / 2}
        return PINNLoss(
            problem,
            n_conditions=self.n_conditions,
            weights={"physics": self.alpha, **share},
            factor=slope_weight("x") if self.weighted else None,
        )

    def run(
        self, *, key: PRNGKeyArray, progress: bool, journal: Journal
    ) -> tuple[AbstractModel, dict[str, Any]]:
        """Trains the model; returns it with what its card tells about the training."""
        problem = Burgers()
        model_key, key = jr.split(key)
        loss = self.loss()

        def run(
            stage: Any, model: AbstractModel, key: PRNGKeyArray, name: str
        ) -> tuple[FitResult, dict[str, Any]]:
            options = {"key": key, "progress": progress, "journal": journal}
            result = _RUN[type(stage)](stage, model, loss, name, options)
            found: dict[str, Any] = {
                "sampling": _sampling(stage),
                "mse": self.measure(result.model).mean,
            }
            if "mse" in result.history:
                columns = result.history["seconds"], result.history["mse"]
                found["curve"] = [
                    [round(float(s), 1), float(f"{e:.3g}")]
                    for s, e in zip(*columns, strict=True)
                    if np.isfinite(e)
                ]
            return result, found

        model, records = run_stages(
            self.stages, self.build(key=model_key), run, key=key, journal=journal
        )
        error = self.measure(model)
        return model, {
            "recipe": self.recipe,
            "equation": self.equation,
            "lambda": problem.parameters.ranges(),
            "domain": problem.domain.ranges(),
            "alpha": self.alpha,
            "symmetric": self.symmetric,
            "odd": self.odd,
            "weighted": self.weighted,
            "conditions": f"{self.n_conditions} points of each, new with every batch"
            + ("; u = 0 at x = 0 is one of them" if self.symmetric else ""),
            "stages": records,
            "error": {
                "grid": "64 equispaced nu x 101 equispaced t x 256 equispaced x, "
                "float64",
                "mse": error.mean,
                "nu": [float(f"{v:.6g}") for v in error.lam],
                "mse_per_nu": [float(f"{v:.4g}") for v in error.mse],
                "relative_l2_per_nu": [float(f"{v:.4g}") for v in error.relative_l2],
            },
        }


_SMALL, _LARGE, _TRUNK = (2, *6 * (8,), 1), (2, *10 * (32,), 1), (32, 32, 32, 16)
BURGERS = (
    BurgersExperiment(
        "burgers-hyperpinn",
        _SMALL,
        _TRUNK,
        1.9e-5,
        (Continuation(), GaussNewton(160)),
    ),
    BurgersExperiment(
        "burgers-small-pinn",
        _SMALL,
        None,
        3.0e-4,
        (Adam(10_000), GaussNewton(200)),
    ),
    BurgersExperiment(
        "burgers-large-pinn",
        _LARGE,
        None,
        2.3e-5,
        # A Jacobian of 9665 columns: fewer rows keep a step at seconds.
        (Adam(6_000), GaussNewton(80, n_lam=32, n_points=200)),
    ),
)
BURGERS_PAPER = tuple(
    dataclasses.replace(
        best,
        stages=(Adam(steps, n_lam=64, log=False),),
        recipe="paper",
        init="split",
        symmetric=False,
        odd=False,
        weighted=False,
        n_conditions=50,
    )
    for best, steps in zip(BURGERS, (60_000, 60_000, 3_000), strict=True)
)


def _sampling(stage: Adam | Continuation | GaussNewton) -> str:
    """What a card says about where a stage looks."""
    if isinstance(stage, Adam):
        kind = "log-uniform" if stage.log else "uniform"
        return f"nu {kind}, collocation points uniform, new at every step"
    if isinstance(stage, Continuation):
        return "nu log-equispaced, collocation points residual-adaptive"
    return (
        "nu a Latin hypercube in log nu and both ends, collocation points "
        "residual-adaptive, new with every batch"
    )


class _Curve:
    """Measures the error now and then: more rarely as a training goes on."""

    def __init__(self) -> None:
        self.next, self.points = 0.0, EvaluationSet(Burgers())

    def __call__(self, model: AbstractModel, seconds: float) -> dict[str, float]:
        if seconds < self.next:
            return {}
        self.next = max(seconds + 2, 1.15 * seconds)
        return {"mse": self.points.error(model).mean}


def _adam(
    stage: Adam, model: AbstractModel, loss: PINNLoss, name: str, options: dict
) -> FitResult:
    loss = dataclasses.replace(
        loss,
        n_lam=stage.n_lam,
        n_points=stage.n_points,
        sample_lam=log_uniform if stage.log else uniform,
        adaptive=False,
    )
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(optax.cosine_decay_schedule(stage.rate, stage.steps)),
    )
    return in_float32(
        model,
        loss,
        optimiser,
        steps=stage.steps,
        name=name,
        callback=_Curve(),
        **options,
    )


def _gauss_newton(
    stage: GaussNewton, model: AbstractModel, loss: PINNLoss, name: str, options: dict
) -> FitResult:
    return gauss_newton(
        model,
        dataclasses.replace(loss, n_lam=stage.n_lam, n_points=stage.n_points),
        steps=stage.steps,
        redraw=stage.redraw,
        rank=stage.rank,
        damping=1e-4,
        name=name,
        callback=_Curve(),
        **options,
    )


def _continuation(
    stage: Continuation, model: HyperPINN, loss: PINNLoss, name: str, options: dict
) -> FitResult:
    box = loss.problem.parameters
    net_key, path_key, distill_key = jr.split(options["key"], 3)
    lam = jnp.geomspace(box.high[0], box.low[0], stage.n_lam)[:, None]
    path = continuation(
        model(lam[0]).spec.init(key=net_key),
        dataclasses.replace(loss, n_points=stage.n_points),
        lam,
        first=stage.first,
        steps=stage.steps,
        name=name,
        **options | {"key": path_key},
    )
    result = distill(
        model,
        path.model,
        steps=stage.distill_steps,
        key=distill_key,
        progress=options["progress"],
    )
    return FitResult(result.model, {}, path.seconds + result.seconds)


_RUN: dict[type, Callable[..., FitResult]] = {
    Adam: _adam,
    Continuation: _continuation,
    GaussNewton: _gauss_newton,
}
