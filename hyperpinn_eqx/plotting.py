"""The figures that several chapters share, drawn into given axes."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64

from . import _arguments as checks
from ._arguments import ArrayLike, CountOrZero, Positive, checked
from .box import Box
from .physics.metrics import (
    FamilyError,
    check_measurable,
    exact_on_grid,
    on_grid,
    physical,
)
from .problems.base import AbstractPDE
from .problems.mapped import Mapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
else:
    # To import Matplotlib takes longer than all of this package; whoever has axes to
    # draw into has done so.
    Axes = QuadMesh = Any


@checked
def plot_slices(
    axes: Axes | Sequence[Axes] | np.ndarray,
    lam: ArrayLike,
    nets: Mapping[str, Callable[[Array], Array]],
    times: Float64[ArrayLike, " n"] | None = None,
    *,
    problem: AbstractPDE,
    at: Mapping[str, float] | None = None,
    field: str | None = None,
) -> None:
    """U over space at chosen times, exact and as networks predict it (paper Fig. 1).

    Args:
        axes: one for each time, or a single one.
        lam: λ in physical units.
        nets: networks by label.
        times: one for each of the axes; by default the ends of as many equal parts of
            the time range.
        problem: a family over t and space with an `exact(t, x, lam)`.
        at: values of coordinates in space that are kept fixed. The first one that is
            not named here is drawn along; of all others, the middle is taken.
        field: which of several fields; the first by default.

    Raises:
        ValueError: λ, a time or a value of `at` lies where the problem is not defined;
            the problem has no `exact`, or lacks t or space.
    """
    several = isinstance(axes, Sequence | np.ndarray)
    each: list[Any] = list(np.array(axes, dtype=object).flat) if several else [axes]
    _check_axes("axes", *each)
    check_measurable(problem)
    lam = physical("lam", lam, problem)
    names = tuple(problem.fields)
    field = names[0] if field is None else checks.choice("field", field, names)
    along, fixed = _line(problem, at)
    domain = problem.bounds
    left, right = domain.ranges()[along][:2]
    begin, end = domain.ranges()["t"][:2]
    x = np.linspace(left, right, 401)
    t = np.linspace(begin, end, len(each) + 1)[1:]
    if times is not None:
        t = checks.numpy_array("times", times, len(each), finite=True)
        if np.any((t < begin) | (t > end)):
            raise ValueError(
                f"times = {t}, expected times in [{begin:g}, {end:g}], those of problem"
            )
    # The first row is the initial state: one scale for all times.
    given = {"t": np.concatenate([[begin], t]), along: x, **fixed}
    order = ("t", along, *fixed)
    grid = [given[name] for name in domain.names]
    turn = [domain.names.index(name) for name in order]

    def lines(u: np.ndarray) -> np.ndarray:
        u = u if len(names) == 1 else u[..., names.index(field)]
        return u.transpose(turn).reshape(1 + len(t), len(x))

    exact = lines(exact_on_grid(problem, grid, lam))
    margin = 0.075 * np.ptp(exact)
    found = {label: lines(on_grid(net, *grid)) for label, net in nets.items()}
    for i, ax in enumerate(each, start=1):
        ax.plot(x, exact[i], color="0.65", linewidth=4, label="exact")
        for label, u in found.items():
            ax.plot(x, u[i], "--", label=label)
        ax.set(xlabel=f"${along}$", ylim=(exact.min() - margin, exact.max() + margin))
        ax.set_title(f"$t = {t[i - 1]:g}$")
    where = [f"{name} = {fixed[name][0]:g}" for name in fixed]
    each[0].set_ylabel(f"${field}({', '.join(['t', along, *where])})$")


def _line(
    problem: AbstractPDE, at: Mapping[str, float] | None
) -> tuple[str, dict[str, np.ndarray]]:
    """Which coordinate is drawn along, and where the others in space are kept."""
    if isinstance(problem.domain, Mapped):
        raise ValueError(
            f"problem.domain = {problem.domain}, expected a box; `plot_field` draws "
            "what is on others"
        )
    ranges = problem.domain.ranges()
    at = {} if at is None else at
    space = [name for name in ranges if name != "t"]
    free = [name for name in space if name not in at]
    if "t" not in ranges or not free or set(at) - set(space):
        raise ValueError(
            f"at = {dict(at)} on {problem.domain}, expected t, a coordinate to draw "
            "along, and values of others"
        )
    fixed = {}
    for name in (name for name in space if name != free[0]):
        low, high = ranges[name][:2]
        value = float(at.get(name, (low + high) / 2))
        if not low <= value <= high:
            raise ValueError(f"at[{name!r}] = {value}, expected in [{low:g}, {high:g}]")
        fixed[name] = np.array([value])
    return free[0], fixed


@checked
def plot_field(
    ax: Axes,
    u: Float64[ArrayLike, "m n"],
    domain: Box | Mapped,
    lam: ArrayLike | None = None,
    *,
    limit: Positive = 1.0,
    cmap: str = "RdBu_r",
) -> QuadMesh:
    """A solution or an error on an equispaced grid over two coordinates, as a heat map.

    Args:
        ax: where to draw.
        u: values at m places along the first coordinate and n along the second, shape
            (m, n); NaN stays blank.
        domain: names and ranges of the two, such as those of a problem over t and x,
            or `Box(x=(0, 1), y=(0, 1))` for a picture of one time. Of a `Mapped` domain
            the grid is that of the reference box, and its image is drawn.
        lam: λ, for a `Mapped` domain.
        limit: the colours reach from -limit to limit.
        cmap: the name of a Matplotlib colour map.

    Raises:
        ValueError: fewer than two values along a coordinate, or not two coordinates.
    """
    _check_axes("ax", ax)
    if min(u.shape) < 2:
        raise ValueError(f"u has shape {u.shape}, expected two or more along each axis")
    if len(domain) != 2:
        raise ValueError(f"domain = {domain}, expected two coordinates")
    box = domain.reference
    across, up = (
        np.linspace(low, high, n)
        for low, high, n in zip(box.low, box.high, u.shape, strict=True)
    )
    shading: Literal["auto", "gouraud"] = "auto"
    if isinstance(domain, Mapped):
        if lam is None:
            raise ValueError(f"lam = None, expected the λ at which to draw {domain}")
        at = functools.partial(domain.at, lam=jnp.asarray(lam))
        image = on_grid(at, across, up)
        across, up, shading = image[..., 0].T, image[..., 1].T, "gouraud"
        ax.set_aspect("equal")
    mesh = ax.pcolormesh(across, up, u.T, cmap=cmap, rasterized=True, shading=shading)
    mesh.set_clim(-limit, limit)
    x, y = domain.names
    ax.set(xlabel=f"${x}$", ylabel=f"${y}$")
    ax.grid(False)
    return mesh


@checked
def plot_errors(
    ax: Axes,
    errors: Mapping[str, FamilyError],
    *,
    measure: Literal["mse", "relative_l2"] = "mse",
    lam: str = r"$\lambda$",
    parameter: CountOrZero = 0,
) -> None:
    """The error against λ, for models by label.

    With several parameters each λ is a dot: the others vary too.

    Args:
        ax: where to draw.
        errors: errors of models by label.
        measure: which error.
        lam: what λ is called.
        parameter: which of several parameters to draw against.

    Raises:
        ValueError: λ has fewer parameters.
    """
    names = {"mse": "mean squared error", "relative_l2": "relative $L^2$ error"}
    _check_axes("ax", ax)
    wide = True
    for label, error in errors.items():
        values = error.lam.reshape(len(error.lam), -1)
        if parameter >= values.shape[1]:
            raise ValueError(
                f"parameter = {parameter}, expected one of {values.shape[1]} from 0"
            )
        value = values[:, parameter]
        wide &= bool(value.min() > 0 and value.max() > 5 * value.min())
        style = "." if values.shape[1] > 1 else "-"
        ax.plot(value, getattr(error, measure), style, label=label)
    # Where λ runs over decades it is drawn over decades.
    ax.set_xscale("log" if wide else "linear")
    ax.set(xlabel=lam, ylabel=names[measure], yscale="log")


def _check_axes(name: str, *axes: Any) -> None:
    # No isinstance: it would import Matplotlib to look at what is none of its.
    if not axes or not all(hasattr(ax, "pcolormesh") for ax in axes):
        raise TypeError(f"{name} = {axes}, expected Matplotlib axes")
