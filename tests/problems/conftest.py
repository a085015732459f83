import equinox as eqx
import pytest

import hyperpinn_eqx as hpx


@pytest.fixture(scope="session")
def residual_of():
    """The residual for λ of the exact solution for perhaps another λ."""

    @eqx.filter_jit
    def residual_of(problem, solution, lam, points):
        u = lambda p: problem.exact(*p, solution)  # noqa: E731
        return hpx.residuals(u, problem, lam, points)

    return residual_of
