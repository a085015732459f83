"""Domains that are no boxes: the images of boxes under smooth maps."""

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
# A face of which so small a part of the largest face is left has collapsed.
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
        ValueError: not as many different coordinates as the box has axes.

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
        """The box that holds the image for every λ.

        Raises:
            ValueError: for some λ the map is not finite or folds: its Jacobian
                determinant changes its sign.
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
        finite = np.isfinite(x).all(axis=1)
        if not finite.all():
            at = int(np.argmin(finite))
            raise ValueError(
                f"map(s, lam) of {self} = {x[at]} at s = {np.asarray(s[at]).round(4)} "
                f"and λ = {np.asarray(lams[at]).round(4)}, expected finite numbers"
            )
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
        own = box.ranges()
        ranges = zip(self.names, x.min(axis=0), x.max(axis=0), strict=True)
        return Box(**{n: own[n][:2] if n in own else _wider(*r) for n, *r in ranges})

    def collapsed(self, name: str, value: float, parameters: Box) -> bool:
        """Whether the image of a face is no face, such as the middle of a disc."""
        box, d = self.reference, len(self)
        axis = box.names.index(name)
        cube = lattice(64, d + len(parameters))
        with jax.enable_x64(True):
            s = box.unscale(2 * cube[:, :d] - 1).at[:, axis].set(value)
            lams = unpack(parameters, parameters.unscale(2 * cube[:, d:] - 1))

            def areas(s: Array, lam: Array) -> Array:
                found = [self.face(s, lam, unit)[2] for unit in jnp.eye(d)]
                return jnp.stack(found)

            sizes = np.asarray(programs.call(jax.vmap(areas), s, lams))
        return bool(np.max(sizes[:, axis]) <= _NOTHING * np.max(sizes))


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


def _wider(low: float, high: float) -> tuple[float, float]:
    """A range a little larger than what was seen, of numbers with few digits."""
    size = 10.0 ** np.floor(np.log10((high - low) or 1.0) - 2)
    low, high = np.floor(low / size - 0.2) * size, np.ceil(high / size + 0.2) * size
    return float(f"{low:.12g}"), float(f"{high:.12g}")
