"""Domains that are not boxes: the images of boxes under smooth maps."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _programs as programs
from .._arguments import checked
from ..box import Box, lattice, unpack

# Points of the reference box, each with a λ of its own, where a map is looked at.
_PLACES = 2048
# A face with so small a part of the area that it has elsewhere has collapsed.
_NOTHING = 1e-9


@checked
@dataclasses.dataclass(frozen=True)
class Mapped:
    """The image of a reference box under a smooth map, which may depend on λ.

    The network lives in the coordinates of the image; the faces of the box are the
    faces of the domain, and conditions name them by the names of the box. Periodic axes
    of the box close a ring. Points are spread evenly over the image, and outward
    normals come from the map.

    Args:
        reference: the box.
        coordinates: the names of the coordinates of the image, one letter each.
        map: from a point of the box, shape (d,), and λ, shape () for one parameter and
            (p,) for several, to a point of the image, shape (d,); written with
            `jax.numpy`. If there is a time, the map passes it on.

    Raises:
        ValueError: `coordinates` does not have as many different names as the box has
            axes, or only one of both has a time t.

    >>> def ring(s, lam):
    ...     radius = 1 + s[0] * (lam - 1)
    ...     return radius * jnp.array([jnp.cos(s[1]), jnp.sin(s[1])])
    >>> box = Box(r=(0, 1), a=(0, 2 * np.pi, "periodic"))
    >>> domain = Mapped(box, ("x", "y"), ring)
    >>> domain.bounds(Box(ratio=(2, 3)))
    Box(x=(-3.01, 3.01), y=(-3.01, 3.01))
    """

    reference: Box
    coordinates: Sequence[str]
    map: Callable[[Float[Array, " d"], Float[Array, "*p"]], Array | Sequence[Array]]

    def __post_init__(self) -> None:
        names = tuple(self.coordinates)
        if len(names) != len(self.reference) or len(set(names)) < len(names):
            raise ValueError(
                f"coordinates = {names}, expected {len(self.reference)} different "
                f"names, one for each axis of {self.reference}"
            )
        if ("t" in names) != ("t" in self.reference.names):
            raise ValueError(
                f"coordinates = {names}, expected t in it and in {self.reference}, or "
                "in neither"
            )
        object.__setattr__(self, "coordinates", names)

    def __len__(self) -> int:
        return len(self.reference)

    def __repr__(self) -> str:
        name = getattr(self.map, "__qualname__", type(self.map).__name__)
        return f"Mapped({self.reference}, {self.names}, {name})"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the coordinates of the image."""
        return tuple(self.coordinates)

    def at(self, s: Float[Array, " d"], lam: Float[Array, "*p"]) -> Float[Array, " d"]:
        """The point of the image that belongs to one of the box.

        Raises:
            ValueError: the map returns something else than d numbers.
        """
        value = self.map(s, lam)
        x = jnp.stack(value) if isinstance(value, tuple | list) else jnp.asarray(value)
        if x.shape != (len(self),):
            raise ValueError(
                f"map(s, lam) of {self} has shape {x.shape}, expected ({len(self)},)"
            )
        return x.astype(s.dtype)

    def frame(
        self, s: Float[Array, " d"], lam: Float[Array, "*p"]
    ) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
        """The point of the image, and the Jacobian ∂x/∂s of the map."""
        return self.at(s, lam), jax.jacfwd(self.at)(s, lam)

    def face(
        self,
        s: Float[Array, " d"],
        lam: Float[Array, "*p"],
        outward: Float[Array, " d"],
    ) -> tuple[Float[Array, " d"], Float[Array, " d"], Float[Array, ""]]:
        """On a face: the point of the image, its outward normal, and its area.

        If there is a time the normal is one in space: the wall may move.

        Args:
            s: a point on a face of the box.
            lam: λ.
            outward: the normal of that face in the box, or zero where there is none.

        Returns:
            The point, the unit normal, and the area of the image of a unit of the face.
        """
        x, jacobian = self.frame(s, lam)
        # The area vector: cofactors of the Jacobian, which exist where it has no
        # inverse.
        column = outward != 0

        def cofactor(unit: Float[Array, " d"]) -> Float[Array, ""]:
            return jnp.linalg.det(jnp.where(column, unit[:, None], jacobian))

        area = jax.vmap(cofactor)(jnp.eye(len(self), dtype=s.dtype))
        size = jnp.linalg.norm(area)
        side = jnp.sign(jnp.linalg.det(jacobian)) * jnp.sum(outward)
        in_space = np.array([name != "t" for name in self.names])
        of_time = np.array([name == "t" for name in self.reference.names])
        area = jnp.where(jnp.any(column & of_time) | in_space, area, 0.0)
        length = jnp.linalg.norm(area)
        return x, side * area / jnp.where(length > 0, length, 1.0), size

    def bounds(self, parameters: Box) -> Box:
        """The box that holds the image for every λ, found from many of its points.

        Raises:
            ValueError: for some λ the map is not finite or folds, so that its Jacobian
                determinant changes sign; it does not close a periodic axis; or it does
                not pass on the time.
        """
        box, d = self.reference, len(self)
        inside, faces = _looked_at(d, len(parameters))
        every = np.concatenate([inside, faces])
        with jax.enable_x64(True):
            s = programs.call(box.unscale, every[:, :d])
            lams = programs.call(parameters.unscale, every[:, d:])
            frames = jax.vmap(self.frame)
            x, jacobians = programs.call(frames, s, unpack(parameters, lams))
        x, jacobians = np.asarray(x), np.asarray(jacobians)
        finite = np.isfinite(x).all(axis=1) & np.isfinite(jacobians).all(axis=(1, 2))
        if not finite.all():
            at = int(np.argmin(finite))
            raise ValueError(
                f"map(s, lam) of {self} = {x[at]} with the slopes "
                f"{jacobians[at].tolist()} at s = {np.asarray(s[at]).round(4)} and λ = "
                f"{np.asarray(lams[at]).round(4)}, expected finite numbers"
            )
        if "t" in self.names:
            self._check_time(np.asarray(s), x)
        with jax.enable_x64(True):
            self._check_rings(np.asarray(s), unpack(parameters, lams), x, jacobians)
        # On a face it may be zero, such as in the middle of a disc.
        sizes = np.linalg.det(jacobians[: len(inside)])
        low, high = int(np.argmin(sizes)), int(np.argmax(sizes))
        if not sizes[low] * sizes[high] > 0:
            places = [
                f"{sizes[i]:.3g} at s = {np.asarray(s[i]).round(4)} and λ = "
                f"{np.asarray(lams[i]).round(4)}"
                for i in (low, high)
            ]
            raise ValueError(
                f"map(s, lam) of {self} folds: its Jacobian determinant is "
                f"{' and '.join(places)}, expected one sign"
            )
        margin = 0.0 if d == 2 else 0.02
        ranges = zip(self.names, x.min(axis=0), x.max(axis=0), strict=True)
        found = {name: _wider(low, high, margin) for name, low, high in ranges}
        if "t" in found:
            found["t"] = box.ranges()["t"][:2]
        return Box(**found)

    def _check_time(self, s: np.ndarray, x: np.ndarray) -> None:
        """Checks that the map passes on the time, if there is one."""
        places = [names.index("t") for names in (self.reference.names, self.names)]
        before, after = s[:, places[0]], x[:, places[1]]
        if not np.allclose(before, after, rtol=1e-6, atol=1e-6 * np.ptp(before)):
            raise ValueError(
                f"map(s, lam) of {self} changes t, expected a map that passes it on"
            )

    def _check_rings(
        self, s: np.ndarray, values: Array, x: np.ndarray, jacobians: np.ndarray
    ) -> None:
        """Checks that periodic axes close."""
        box = self.reference
        for axis, ring in enumerate(box.periodic):
            if not ring:
                continue
            turn = np.eye(len(self))[axis] * (box.high[axis] - box.low[axis])
            frames = jax.vmap(self.frame)
            there, slopes = programs.call(frames, jnp.asarray(s + turn), values)
            size = np.ptp(x, axis=0)
            off = max(
                np.max(np.abs(np.asarray(there) - x) / size),
                np.max(np.abs(np.asarray(slopes) - jacobians)) / np.max(jacobians),
            )
            if off > 1e-6:
                raise ValueError(
                    f"map(s, lam) of {self} is not the same once around "
                    f"{box.names[axis]}, expected a map that is periodic in it"
                )

    def collapsed(self, name: str, value: float, parameters: Box) -> bool:
        """Whether the image of a face is no face, such as the middle of a disc."""
        box, d = self.reference, len(self)
        axis = box.names.index(name)
        cube = lattice(64, d + len(parameters))
        with jax.enable_x64(True):
            others = box.unscale(2 * cube[:, :d] - 1)
            lams = unpack(parameters, parameters.unscale(2 * cube[:, d:] - 1))

            def area(s: Array, lam: Array) -> Array:
                return self.face(s, lam, jnp.eye(d)[axis])[2]

            # Against the same face, moved to other places along its axis.
            both = (others.at[:, axis].set(value), others)
            here, there = (
                np.asarray(programs.call(jax.vmap(area), s, lams)) for s in both
            )
        return bool(np.max(here) <= _NOTHING * np.max(there))


def _looked_at(
    d: int, p: int
) -> tuple[Float[np.ndarray, "n e"], Float[np.ndarray, "m e"]]:
    """Points and λ in [-1, 1], where a map is looked at: inside, and on all faces."""
    inside = 2 * lattice(_PLACES, d + p) - 1
    corners = [*itertools.product((-1.0, 1.0), repeat=p)] if p <= 6 else []
    lams = np.concatenate([np.reshape(corners, (-1, p)), 2 * lattice(16, p) - 1])
    inside[::2, d:] = np.resize(lams, (len(inside[::2]), p))
    n = 256 if d == 2 else 1024
    rest = 2 * lattice(n, d) - 1
    faces = []
    for axis, end in itertools.product(range(d), (-1.0, 1.0)):
        face = rest.copy()
        # Extremes are often at corners.
        face[: 2**d] = [*itertools.product((-1.0, 1.0), repeat=d)]
        face[:, axis] = end
        faces += [np.hstack([face, np.tile(lam, (n, 1))]) for lam in lams]
    return inside, np.concatenate(faces)


def _wider(low: float, high: float, margin: float) -> tuple[float, float]:
    """A range a little larger than what was seen, of numbers with few digits."""
    low, high = low - margin * (high - low), high + margin * (high - low)
    size = 10.0 ** np.floor(np.log10((high - low) or 1.0) - 2)
    low, high = np.floor(low / size - 0.2) * size, np.ceil(high / size + 0.2) * size
    return float(f"{low:.12g}"), float(f"{high:.12g}")
