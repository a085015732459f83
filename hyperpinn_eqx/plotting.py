"""The figures that several chapters share, drawn into given axes."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Array, Float

from .metrics import FamilyError, on_grid
from .problems import Burgers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
else:
    # To import Matplotlib takes longer than all of this package; whoever has axes to
    # draw into has done so.
    Axes = QuadMesh = Any


def plot_slices(
    axes: Sequence[Axes],
    nu: float,
    nets: Mapping[str, Callable[[Array], Array]],
    times: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
) -> None:
    """u(t, x) over x at chosen times, exact and as networks predict it (paper Fig. 1).

    Args:
        axes: one for each time.
        nu: the viscosity.
        nets: networks by label.
        times: in [0, 1].
    """
    x = np.linspace(-1, 1, 401)
    t = np.asarray(times)
    exact = Burgers().exact(t[:, None], x, nu)
    found = {label: on_grid(net, t, x) for label, net in nets.items()}
    for i, ax in enumerate(axes):
        ax.plot(x, exact[i], color="0.65", linewidth=4, label="exact")
        for label, u in found.items():
            ax.plot(x, u[i], "--", label=label)
        ax.set(xlabel="$x$", ylim=(-1.15, 1.15))
        ax.set_title(f"$t = {t[i]:g}$")
    axes[0].set_ylabel("$u(t, x)$")


def plot_field(
    ax: Axes,
    u: Float[np.ndarray, "m n"],
    *,
    limit: float = 1.0,
    cmap: str = "RdBu_r",
) -> QuadMesh:
    """A solution or an error on a grid over [0, 1] × [-1, 1], as a heat map."""
    t, x = np.linspace(0, 1, u.shape[0]), np.linspace(-1, 1, u.shape[1])
    mesh = ax.pcolormesh(
        t, x, u.T, cmap=cmap, vmin=-limit, vmax=limit, rasterized=True, shading="auto"
    )
    ax.set(xlabel="$t$", ylabel="$x$")
    ax.grid(False)
    return mesh


def plot_errors(ax: Axes, errors: Mapping[str, FamilyError]) -> None:
    """The mean squared error against ν, for models by label."""
    for label, error in errors.items():
        ax.loglog(error.lam, error.mse, label=label)
    ax.set(xlabel=r"viscosity $\nu$", ylabel="mean squared error")
