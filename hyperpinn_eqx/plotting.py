"""The figures that several chapters share, drawn into given axes."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Array, ArrayLike, Float

from . import checks
from .box import Box
from .metrics import FamilyError, check_measurable, exact_on_grid, on_grid, physical
from .problems import AbstractPDE, Burgers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
else:
    # To import Matplotlib takes longer than all of this package; whoever has axes to
    # draw into has done so.
    Axes = QuadMesh = Any


def plot_slices(
    axes: Axes | Sequence[Axes] | np.ndarray,
    lam: float,
    nets: Mapping[str, Callable[[Array], Array]],
    times: Sequence[float] | None = None,
    *,
    problem: AbstractPDE | None = None,
) -> None:
    """u(t, x) over x at chosen times, exact and as networks predict it (paper Fig. 1).

    Args:
        axes: one for each time, or a single one.
        lam: λ, for Burgers' equation the viscosity.
        nets: networks by label.
        times: one for each of the axes; by default the ends of as many equal parts of
            the time range.
        problem: a family with one parameter and an `exact(t, x, lam)`; by default
            Burgers' equation.

    Raises:
        ValueError: λ or a time that makes no sense; the problem has no `exact`, other
            coordinates than t and one more, or several parameters.
        TypeError: no axes, no networks, or no problem.
    """
    several = isinstance(axes, Sequence | np.ndarray)
    each: list[Any] = list(np.array(axes, dtype=object).flat) if several else [axes]
    _check_axes("axes", *each)
    checks.instance("nets", nets, Mapping)
    problem = Burgers() if problem is None else problem
    check_measurable(problem)
    lam = float(physical("lam", lam, problem))
    (begin, left), (end, right) = problem.domain.low, problem.domain.high
    x = np.linspace(left, right, 401)
    t = np.linspace(begin, end, len(each) + 1)[1:]
    if times is not None:
        t = checks.numpy_array("times", times, len(each), finite=True)
        if np.any((t < begin) | (t > end)):
            raise ValueError(
                f"times = {t}, expected times in [{begin:g}, {end:g}], those of problem"
            )
    # The first row is the initial state: one scale for all times.
    exact = exact_on_grid(problem, np.concatenate([[begin], t]), x, lam)
    margin = 0.075 * np.ptp(exact)
    found = {label: on_grid(net, t, x) for label, net in nets.items()}
    for i, ax in enumerate(each):
        ax.plot(x, exact[1 + i], color="0.65", linewidth=4, label="exact")
        for label, u in found.items():
            ax.plot(x, u[i], "--", label=label)
        ax.set(xlabel="$x$", ylim=(exact.min() - margin, exact.max() + margin))
        ax.set_title(f"$t = {t[i]:g}$")
    each[0].set_ylabel("$u(t, x)$")


def plot_field(
    ax: Axes,
    u: Float[ArrayLike, "m n"],
    *,
    limit: float = 1.0,
    cmap: str = "RdBu_r",
    domain: Box = Burgers.domain,
) -> QuadMesh:
    """A solution or an error on an equispaced grid over (t, x), as a heat map.

    Args:
        ax: where to draw.
        u: values at m times and n positions, shape (m, n); NaN stays blank.
        limit: the colours reach from -limit to limit.
        cmap: the name of a Matplotlib colour map.
        domain: the ranges of t and x.

    Raises:
        ValueError: fewer than two times or positions, a limit that is not positive, an
            unknown colour map, or a domain of other than two coordinates.
        TypeError: no axes, or no domain.
    """
    from matplotlib import colormaps

    _check_axes("ax", ax)
    u = checks.numpy_array("u", u, "m", "n")
    if min(u.shape) < 2:
        raise ValueError(f"u has shape {u.shape}, expected two or more along each axis")
    limit = checks.positive("limit", limit)
    checks.choice("cmap", cmap, colormaps)
    checks.instance("domain", domain, Box)
    if len(domain) != 2:
        raise ValueError(f"domain = {domain}, expected two coordinates")
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

    Raises:
        ValueError: an unknown measure.
        TypeError: no axes, no errors, or no name for λ.
    """
    names = {"mse": "mean squared error", "relative_l2": "relative $L^2$ error"}
    _check_axes("ax", ax)
    checks.instance("errors", errors, Mapping)
    for label, error in errors.items():
        checks.instance(f"errors[{label!r}]", error, FamilyError)
    checks.choice("measure", measure, names)
    checks.instance("lam", lam, str)
    for label, error in errors.items():
        ax.loglog(error.lam, getattr(error, measure), label=label)
    ax.set(xlabel=lam, ylabel=names[measure])


def _check_axes(name: str, *axes: Any) -> None:
    # No isinstance: it would import Matplotlib to look at what is none of its.
    if not axes or not all(hasattr(ax, "pcolormesh") for ax in axes):
        raise TypeError(f"{name} = {axes}, expected Matplotlib axes")
