"""Families beyond the paper: each by the same recipe, each with an exact solution."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Float64, PRNGKeyArray

from ..box import Box, unpack
from ..networks.main import in_float64
from ..networks.model import AbstractModel
from ..physics.metrics import FamilyError, family_error
from ..physics.sampling import latin_hypercube
from ..problems.allen_cahn import AllenCahn
from ..problems.base import AbstractPDE
from ..problems.brusselator import Brusselator
from ..problems.bump import Bump
from ..problems.burgers_wave import BurgersWave
from ..problems.conductor import Conductor
from ..problems.ellipse import Ellipse
from ..problems.klein_gordon import KleinGordon
from ..problems.korteweg_de_vries import KortewegDeVries
from ..problems.kovasznay import Kovasznay
from ..problems.plume import Plume
from ..problems.poisson import Poisson
from ..problems.ring import Ring
from ..problems.rod import Rod
from ..problems.schroedinger import Schroedinger
from ..problems.transport import Transport
from ..problems.wave import Wave
from ..recipes.family import train_family, untrained
from ..training.journal import Journal
from .experiment import Named


@dataclasses.dataclass(frozen=True)
class FamilyExperiment(Named):
    """One trained HyperPINN for a family of equations beyond the paper.

    Attributes:
        name: what `load_pretrained` calls it.
        problem: the family.
        equation: in words, for the card.
        main: hidden layers of the main network; None for the recipe's own.
        hidden: layers of the hypernetwork's trunk, likewise.
        settings: of `train_family`, where they are not its defaults.
        published: the best error over held-out λ together that others report, with
            their method.
    """

    name: str
    problem: AbstractPDE
    equation: str
    main: tuple[int, ...] | None = None
    hidden: tuple[int, ...] | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    published: str = ""
    recipe: str = "best"

    @property
    def inputs(self) -> Box:
        """What the main network takes."""
        return self.problem.bounds

    def measure(self, model: AbstractModel) -> FamilyError:
        """The error at 65 held-out λ."""
        return held_out_error(model, self.problem)

    def build(self, *, key: PRNGKeyArray) -> AbstractModel:
        """The untrained model."""
        return untrained(self.problem, self.main, self.hidden, key=key)

    def run(
        self, *, key: PRNGKeyArray, progress: bool, journal: Journal
    ) -> tuple[AbstractModel, dict[str, Any]]:
        """Trains the model; returns it with what its card tells about the training."""
        problem = self.problem
        # As good as it gets.
        settings = {"tolerance": 0.0, **self.settings}
        result = train_family(
            problem,
            main=self.main,
            hidden=self.hidden,
            key=key,
            progress=progress,
            journal=journal,
            **settings,
        )
        error = self.measure(result.model)
        return result.model, {
            "recipe": self.recipe,
            "equation": self.equation,
            "lambda": problem.parameters.ranges(),
            "domain": problem.bounds.ranges(),
            "stages": [
                {
                    "stage": "train_family",
                    **settings,
                    "seconds": round(result.seconds, 1),
                }
            ],
            "error": {
                "set": f"{len(error.lam)} held-out lambda, float64",
                "median_relative_l2": float(np.median(error.relative_l2)),
                "largest_relative_l2": float(np.max(error.relative_l2)),
                "pooled_relative_l2": error.pooled,
                "held_out_loss": float(np.nanmin(result.history["held_out"])),
                **{
                    name: float(np.median(one.relative_l2))
                    for name, one in error.fields.items()
                },
            },
        }


FAMILIES = (
    FamilyExperiment(
        "allen-cahn-hyperpinn", AllenCahn(), "u_t = D u_xx + u - u^3, a front"
    ),
    FamilyExperiment(
        "transport-hyperpinn",
        Transport(),
        "u_t + c u_x = D u_xx - r u, a pulse",
    ),
    FamilyExperiment(
        "burgers-wave-hyperpinn",
        BurgersWave(),
        "u_t + u u_x = 0.05 u_xx on a ring, u(0, x) = -a sin(pi (x - phi))",
    ),
    FamilyExperiment(
        "plume-hyperpinn",
        Plume(),
        "u_t + v . grad u = D lap u on a square, v = (cos theta, sin theta) / 2",
    ),
    FamilyExperiment(
        "rod-hyperpinn",
        Rod(),
        "u_t = k u_xx, u_x = 0 at x = 0, k u_x + h u = 0 at x = 1",
    ),
    FamilyExperiment(
        "wave-hyperpinn",
        Wave(),
        "u_tt = c^2 (u_xx + u_yy), u = 10 sin kx sin ky at rest",
        published="1.2e-3, cd-PINN",
    ),
    FamilyExperiment(
        "poisson-hyperpinn",
        Poisson(),
        "u_xx + u_yy = -(a^2 + b^2) cos ax sin by on a square",
        published="2.7e-3, cd-PINN",
    ),
    FamilyExperiment(
        "klein-gordon-hyperpinn",
        KleinGordon(),
        "u_tt + alpha u_xx + beta u + gamma u^2 + x cos t = x^2 cos^2 t",
        # Second derivatives jump along characteristics, which takes a wide network.
        main=(40, 40, 40),
        settings={
            "newton_steps": 250,
            "n_lam": 40,
            "rank": 48,
            "weights": {"start": 10.0, "at_rest": 3.0, "walls": 30.0},
        },
    ),
    FamilyExperiment(
        "kovasznay-hyperpinn",
        Kovasznay(),
        "Navier-Stokes, the flow behind a grid, Re in [20, 100]",
    ),
    FamilyExperiment(
        "schroedinger-hyperpinn",
        Schroedinger(),
        "i w_t + w_xx / 2 + |w|^2 w = 0, a soliton",
    ),
    FamilyExperiment(
        "korteweg-de-vries-hyperpinn",
        KortewegDeVries(),
        "u_t + 6 u u_x + u_xxx = 0, a soliton",
    ),
    FamilyExperiment(
        "brusselator-hyperpinn",
        Brusselator(),
        "u_t = 1 + u^2 v - (B + 1) u + D u_xx, v_t = B u - u^2 v + D v_xx",
    ),
    FamilyExperiment("ring-hyperpinn", Ring(), "u_xx + u_yy = 0 between two circles"),
    FamilyExperiment(
        "ellipse-hyperpinn", Ellipse(), "u_xx + u_yy = 0 around an ellipse"
    ),
    FamilyExperiment(
        "bump-hyperpinn", Bump(), "Stokes flow through a channel with a bump"
    ),
    FamilyExperiment(
        "conductor-hyperpinn",
        Conductor(),
        "lap v = 0, lap T + |grad v|^2 = 0 in a conductor of any shape s, cooling h",
    ),
)


# The precision decides what a key draws.
@in_float64
def held_out(box: Box) -> Float64[np.ndarray, " M *p"]:
    """Values of λ that no training chose: the middle of the range, and then 64 more.

    One parameter is spread evenly over its scaled range, without the ends; several by a
    Latin hypercube.
    """
    if len(box) == 1:
        others = box.unscale(np.linspace(-1, 1, 66)[1:-1, None])
    else:
        others = latin_hypercube(box, 64, key=jr.key(2021))
    middle = box.unscale(np.zeros((1, len(box))))
    return np.asarray(unpack(box, jnp.concatenate([middle, others])))


def held_out_error(model: AbstractModel, problem: AbstractPDE) -> FamilyError:
    """The error at `held_out`, on 41 times and 101 positions (41 along each of two)."""
    n_x = 101 if len(problem.domain) == 2 else 41
    lams = held_out(problem.parameters)
    return family_error(model, problem, lams=lams, n_t=41, n_x=n_x)
