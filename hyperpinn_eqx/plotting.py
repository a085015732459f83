"""The figures that several chapters share, drawn into given axes."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Array, Float

from .box import Box
from .metrics import FamilyError, exact_on_grid, on_grid
from .problems import AbstractPDE, Burgers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
else:
    # To import Matplotlib takes longer than all of this package; whoever has axes to
    # draw into has done so.
    Axes = QuadMesh = Any


def plot_slices(
    axes: Sequence[Axes] | np.ndarray,
    lam: float,
    nets: Mapping[str, Callable[[Array], Array]],
    times: Sequence[float] | None = None,
    *,
    problem: AbstractPDE | None = None,
) -> None:
    """u(t, x) over x at chosen times, exact and as networks predict it (paper Fig. 1).

    Args:
        axes: one for each time.
        lam: λ, for Burgers' equation the viscosity.
        nets: networks by label.
        times: one for each of the axes; by default the ends of as many equal parts of
            the time range.
        problem: a family with one parameter and an `exact(t, x, lam)`; by default
            Burgers' equation.

    Raises:
        ValueError: the problem has no `exact`, other coordinates than t and one more,
            or several parameters.
    """
    problem = Burgers() if problem is None else problem
    (begin, left), (end, right) = problem.domain.low, problem.domain.high
    x = np.linspace(left, right, 401)
    t = np.linspace(begin, end, len(axes) + 1)[1:]
    if times is not None:
        t = np.asarray(times, dtype=np.float64)
    # The first row is the initial state: one scale for all times.
    exact = exact_on_grid(problem, np.concatenate([[begin], t]), x, lam)
    margin = 0.075 * np.ptp(exact)
    found = {label: on_grid(net, t, x) for label, net in nets.items()}
    for i, ax in enumerate(axes):
        ax.plot(x, exact[1 + i], color="0.65", linewidth=4, label="exact")
        for label, u in found.items():
            ax.plot(x, u[i], "--", label=label)
        ax.set(xlabel="$x$", ylim=(exact.min() - margin, exact.max() + margin))
        ax.set_title(f"$t = {t[i]:g}$")
    axes[0].set_ylabel("$u(t, x)$")


def plot_field(
    ax: Axes,
    u: Float[np.ndarray, "m n"],
    *,
    limit: float = 1.0,
    cmap: str = "RdBu_r",
    domain: Box = Burgers.domain,
) -> QuadMesh:
    """A solution or an error on an equispaced grid over (t, x), as a heat map."""
    t, x = (
        np.linspace(low, high, n)
        for low, high, n in zip(domain.low, domain.high, u.shape, strict=True)
    )
    mesh = ax.pcolormesh(
        t, x, u.T, cmap=cmap, vmin=-limit, vmax=limit, rasterized=True, shading="auto"
    )
    ax.set(xlabel="$t$", ylabel="$x$")
    ax.grid(False)
    return mesh


def plot_errors(
    ax: Axes,
    errors: Mapping[str, FamilyError],
    *,
    measure: Literal["mse", "relative_l2"] = "mse",
    lam: str = r"viscosity $\nu$",
) -> None:
    """The error against λ, for models by label.

    Args:
        ax: where to draw.
        errors: errors of models by label.
        measure: which error.
        lam: what λ is called.
    """
    names = {"mse": "mean squared error", "relative_l2": "relative $L^2$ error"}
    for label, error in errors.items():
        ax.loglog(error.lam, getattr(error, measure), label=label)
    ax.set(xlabel=lam, ylabel=names[measure])
