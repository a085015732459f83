"""A family in units of its own: coordinates, fields and residuals all of order one."""

import functools
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from .. import _programs as programs
from .._arguments import Positive, checked
from ..box import Box, lattice, unpack
from ..networks.jets import Jet, with_normal
from ..networks.main import Hard, pair
from ..problems.base import AbstractPDE
from ..problems.conditions import Where
from ..problems.mapped import Mapped
from ..problems.recorded import Channels, arranged, method, numbers, prescribed, use_of
from .observations import Observations
from .sampling import placed

_PLACES = 256


class Dimensionless(AbstractPDE):
    """The same family for u* = (u - mean) / half over coordinates from 0 to 1.

    What each method returns is divided by its own size. In other units of the
    coordinates, of the fields, or of the equations, all of it is the same, and so is
    whatever is trained on it.

    Attributes:
        problem: the family in the units of its author.
        means: of each field the value that becomes 0.
        halves: how far each field is from that, typically.
        extent: the box that holds the domain.
        sizes: for the residual, called "physics", and for each condition, of each
            number that it returns where the fields and all derivatives are typical. A
            condition that prescribes nothing has none.
    """

    problem: AbstractPDE
    means: tuple[float, ...]
    halves: tuple[float, ...]
    extent: Box
    sizes: dict[str, tuple[float, ...]]

    @property
    def domain(self) -> Box | Mapped:  # type: ignore[override]
        mapped, box = self.problem.domain, self.extent
        if isinstance(mapped, Box):
            return self.bounds
        zero = np.array([_scaled(box, name, 0.0) for name in box.names])
        rates = 1 / np.array([*_lengths(box).values()])

        def scaled(s: Array, lam: Array) -> Array:
            x = mapped.at(s, lam)
            return x * rates.astype(x.dtype) + zero.astype(x.dtype)

        return Mapped(mapped.reference, mapped.names, scaled)

    @property
    def bounds(self) -> Box:
        box = self.extent
        ranges = {}
        for name, (low, high, *kind) in box.ranges().items():
            ends = (_scaled(box, name, end) for end in (low, high))
            begin, end = ends
            ranges[name] = (begin, end if low < high else begin, *kind)
        return Box(**ranges)

    @property
    def parameters(self) -> Box:  # type: ignore[override]
        return self.problem.parameters

    @property
    def fields(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.problem.fields

    @property
    def conditions(self) -> dict[str, Where]:
        box = self.problem.domain
        if isinstance(box, Mapped):
            return self.problem.conditions

        def scaled(where: Where) -> Where:
            faces = tuple((name, _scaled(box, name, at)) for name, at in where.faces)
            if where.at is None:
                return Where(faces)
            pairs = zip(box.names, where.at, strict=True)
            point = (v if v is None else _scaled(box, name, v) for name, v in pairs)
            return Where(at=tuple(point))

        return {name: scaled(where) for name, where in self.problem.conditions.items()}

    def scaled(self, seen: Observations) -> Observations:
        """Observations in these units."""
        columns, box = seen.columns(self.problem), self.extent
        zero = np.array([_scaled(box, name, 0.0) for name in box.names])
        means, halves = np.array(self.means)[columns], np.array(self.halves)[columns]
        points = np.asarray(seen.points) / [*_lengths(box).values()] + zero
        values = (np.asarray(seen.values) - means) / halves
        points, values = jnp.asarray(points), jnp.asarray(values)
        return eqx.tree_at(lambda s: (s.points, s.values), seen, (points, values))

    @property
    def outputs(self) -> Box:
        """The ranges of the fields for a network whose outputs are u*."""
        rows = zip(self.fields, self.means, self.halves, strict=True)
        return Box(**{name: (mean - half, mean + half) for name, mean, half in rows})

    def residual(self, u: Any, tx: Float[Array, " d"], lam: Float[Array, "*p"]) -> Any:
        return self.condition_residual("physics", u, tx, lam)

    def condition_residual(
        self, name: str, u: Any, tx: Float[Array, " d"], lam: Float[Array, "*p"]
    ) -> Any:
        problem = self.problem
        use = use_of(problem, name)
        fields = (u,) if len(self.fields) == 1 else u
        rows = zip(fields, use.words, self.means, self.halves, strict=True)
        jets = [self._jet(*row, use.normal) for row in rows]
        value = method(problem, name)(arranged(jets), self._physical(tx), lam)
        found = numbers(problem, name, value)
        return tuple(found / jnp.asarray(self.sizes.get(name, ()), found.dtype))

    def _jet(
        self, u: Jet, words: frozenset[str], mean: float, half: float, normal: bool
    ) -> Jet:
        """The jet of one field in the units of its author."""
        box = self.extent
        lengths = _lengths(box)
        wanted = words - {"", "n"} | (frozenset(box.names) if normal else frozenset())
        slopes = {
            word: getattr(u, word) * (half / _product(lengths, word))
            for word in sorted(wanted)
        }
        like = u.value if "" in words else next(iter(slopes.values()), jnp.zeros(()))
        jet = Jet(mean + half * like, slopes)
        if not normal:
            return jet
        across = u.normal / jnp.array([*lengths.values()], u.normal.dtype)
        # At a point alone there is none.
        length = jnp.linalg.norm(across)
        return with_normal(jet, box.names, across / jnp.where(length > 0, length, 1))

    def hard(self, form: Hard) -> Hard:
        """A network with conditions built in, in these units."""
        means, halves = np.array(self.means), np.array(self.halves)

        def scaled(tx: Array, lam: Array) -> tuple[Array, Array]:
            g, d = pair(form, self._physical(tx), lam, k=len(means))
            mean, half = jnp.asarray(means, tx.dtype), jnp.asarray(halves, tx.dtype)
            # The layers give u*, of which the mean is zero.
            return (g - (1 - d) * mean) / half, d

        return scaled

    def _physical(self, tx: Float[Array, " d"]) -> Float[Array, " d"]:
        box = self.extent
        box.check_resolved(tx.dtype)
        zero = [0.0 if log else low for low, log in zip(box.low, box.log, strict=True)]
        length = list(_lengths(box).values())
        return jnp.asarray(zero, tx.dtype) + jnp.asarray(length, tx.dtype) * tx


@checked
def dimensionless(
    problem: AbstractPDE,
    scale: Positive | Mapping[str, Positive] | None = None,
    observations: Observations | None = None,
) -> Dimensionless:
    """A family in units of its own, found from what its author says.

    The mean of a field and its range are those of the values that conditions prescribe
    and that were observed.
    Where these are all the same or tell nothing, or where a source or a prescribed
    slope makes more of it, a field is as large as what balances these, or the other
    fields, in an equation or a condition. The size of an equation is the root of the
    sum of squares of its terms for a typical field: a wave of half a range, of which
    half a period fills the range of a coordinate; of all places, λ and values, the
    median. So a residual says how large an error of the field it stands for, whatever
    its source.

    Args:
        problem: the family.
        scale: how far a field is from the mean of its prescribed values, typically, if
            its author knows better: one number for all, or some by name.
        observations: what has been seen of solutions.

    Raises:
        ValueError: neither conditions nor equations tell how large a field is, what
            they say is nowhere finite, or a name is that of no field.
    """
    with programs.now():
        return _Search(problem, scale, observations).found()


class _Rows:
    """A method of a problem at many places: the size of each number's terms."""

    def __init__(
        self,
        problem: AbstractPDE,
        name: str,
        s: Float64[Array, "n d"],
        lams: Float64[Array, "n p"],
        box: Box,
    ):
        domain, self.k = problem.domain, len(problem.fields)
        self.name, self.call = name, Channels(problem, name)
        where = Where() if name == "physics" else problem.conditions[name]
        values = unpack(problem.parameters, lams)
        move = functools.partial(placed, domain, where, each=True)
        places, _ = programs.call(move, s, values)
        points, normal = places.point, places.normal
        self.at = points, values, normal
        self.field = np.array([field for field, _ in self.call.columns], int)
        self.words = [word for _, word in self.call.columns]
        self.values = np.array([word == "" for word in self.words], bool)
        self.rates = np.pi / np.array([*_lengths(box).values()])
        self.names, self.across = box.names, np.abs(np.asarray(normal))
        self.units = self._units(self.rates)
        # Each number in its own direction, the same for every method.
        before = len(box) + len(problem.parameters)
        rest = 2 * lattice(len(points) // 2, before + len(self.words))[:, before:] - 1
        self.signs = np.concatenate([rest, -rest])

    def driven(
        self, means: np.ndarray, halves: np.ndarray
    ) -> Float64[np.ndarray, "m k"]:
        """The size of each field that balances what each number is without it.

        A source or prescribed slopes make a field as steep as they are themselves.
        """
        by = self._jacobian(means, halves)
        found = np.zeros((self.call.size, self.k))
        for row, (source, rates) in enumerate(self.sources(means)):
            units = self._units(np.maximum(self.rates, rates))
            slopes = self._by_field(by[:, row] * units)
            found[row] = np.divide(
                source, slopes, out=np.zeros(self.k), where=slopes > 0
            )
        return found

    def sources(
        self, means: np.ndarray
    ) -> list[tuple[float, Float64[np.ndarray, " d"]]]:
        """Each number where every field is its mean, and how steep that is.

        The latter along each coordinate on the face, in units of the former.
        """
        r, _, by_point = self.call.at(jnp.asarray(self._rest(means)), *self.at)
        r, steep = np.asarray(r), np.moveaxis(np.asarray(by_point), 0, -1)
        # Off the face, what is prescribed there means nothing.
        steep = np.where(self.across.T > 0, np.nan, steep)
        found = []
        for row in range(self.call.size):
            source = _typical(_rms, r[:, row])
            slopes = np.array([_typical(_rms, one) for one in steep[row]])
            found.append((source, slopes / (source or np.inf)))
        return found

    def slopes(
        self, means: np.ndarray, halves: np.ndarray
    ) -> Float64[np.ndarray, "m k"]:
        """How each number follows each field, for typical fields of these sizes."""
        by = self._jacobian(means, halves)
        return np.stack(
            [self._by_field(by[:, row] * self.units) for row in range(self.call.size)]
        )

    def size(self, means: np.ndarray, halves: np.ndarray) -> tuple[float, ...]:
        """The typical size of each number's terms."""
        terms = self._jacobian(means, halves) * self.units[:, None]
        sums = np.sqrt(np.sum((terms * halves[self.field]) ** 2, axis=-1))
        return tuple(_typical(np.median, row) for row in sums.T)

    def _jacobian(
        self, means: np.ndarray, halves: np.ndarray
    ) -> Float64[np.ndarray, "n m c"]:
        moved = self._rest(means) + self.signs * self.units * halves[self.field]
        return np.asarray(self.call.at(jnp.asarray(moved), *self.at)[1])

    def _by_field(self, terms: Float64[np.ndarray, "n c"]) -> Float64[np.ndarray, " k"]:
        sums = [np.sum(terms[:, self.field == f] ** 2, axis=1) for f in range(self.k)]
        return np.array([_typical(np.median, np.sqrt(column)) for column in sums])

    def _units(self, rates: Float64[np.ndarray, " d"]) -> Float64[np.ndarray, "n c"]:
        """What a derivative is where a field of size 1 changes at these rates."""
        units = np.ones((len(self.across), len(self.words)))
        for i, word in enumerate(self.words):
            if word == "n":
                units[:, i] = self.across @ rates
            else:
                units[:, i] = np.prod([rates[self.names.index(x)] for x in word])
        return units

    def _rest(self, means: np.ndarray) -> np.ndarray:
        return np.where(self.values, means[self.field], 0.0) + np.zeros(
            self.units.shape
        )


class _Search:
    """Looks for means, halves and sizes."""

    def __init__(
        self, problem: AbstractPDE, scale: Any, observations: Observations | None
    ):
        self.problem, self.k = problem, len(problem.fields)
        self.observations = observations
        d, box = len(problem.domain), problem.parameters
        cube = lattice(_PLACES // 2, d + len(box))
        cube = np.concatenate([2 * cube - 1, 1 - 2 * cube])
        s = programs.call(problem.domain.reference.unscale, cube[:, :d])
        lams = programs.call(box.unscale, cube[:, d:])
        names = ("physics", *problem.conditions)
        self.extent = problem.bounds
        every = [_Rows(problem, name, s, lams, self.extent) for name in names]
        self.rows = [rows for rows in every if rows.call.size]
        self.given = np.full(self.k, np.nan)
        if isinstance(scale, Mapping):
            for name, value in scale.items():
                if name not in problem.fields:
                    raise ValueError(
                        f"scale has {name!r}, expected some of {problem.fields}"
                    )
                self.given[problem.fields.index(name)] = value
        elif scale is not None:
            self.given[:] = scale

    def found(self) -> Dimensionless:
        means, halves = self._prescribed()
        known = np.isfinite(self.given)
        halves[known] = self.given[known]
        halves = self._driven(means, halves, ~known)
        for _ in range(self.k):
            halves = self._coupled(means, halves, ~known & (halves == 0))
        halves = np.where(halves > 0, halves, np.abs(means))
        fields = np.array(self.problem.fields)
        if not np.all(halves > 0):
            raise ValueError(
                f"scale = None, expected a number for {fields[halves == 0].tolist()}: "
                f"neither the conditions of {self.problem} nor its residual tell how "
                "large that is"
            )
        sizes = {rows.name: rows.size(means, halves) for rows in self.rows}
        for name, row in sizes.items():
            if not np.all((np.array(row) > 0) & np.isfinite(row)):
                own = "residual" if name == "physics" else name
                raise ValueError(
                    f"problem.{own} of {self.problem} changes by {row} with the fields "
                    "and their derivatives, expected positive and finite numbers"
                )
        return Dimensionless(
            self.problem,
            tuple(means.tolist()),
            tuple(halves.tolist()),
            self.extent,
            sizes,
        )

    def _prescribed(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and half of the range of the values that conditions prescribe."""
        found = [
            prescribed(rows.call, *rows.at[:2])
            for rows in self.rows
            if rows.name != "physics"
        ]
        if self.observations is not None:
            there = np.asarray(self.observations.weights) > 0
            seen = np.where(there, self.observations.values, np.nan)
            rows = np.full((seen[..., 0].size, self.k), np.nan)
            columns = self.observations.columns(self.problem)
            rows[:, columns] = seen.reshape(len(rows), -1)
            found.append(rows)
        values = np.concatenate([*found, np.full((1, self.k), np.nan)])
        means, halves = np.zeros(self.k), np.zeros(self.k)
        for field, column in enumerate(values.T):
            column = column[np.isfinite(column)]
            if column.size:
                means[field], halves[field] = np.mean(column), np.ptp(column) / 2
        # The same value everywhere, but for rounding, has no range.
        return means, np.where(halves > 1e-12 * np.abs(means), halves, 0.0)

    def _driven(
        self, means: np.ndarray, halves: np.ndarray, free: np.ndarray
    ) -> np.ndarray:
        """At least as large as what balances sources and prescribed slopes."""
        larger = halves.copy()
        for rows in self.rows:
            for by in rows.driven(means, halves):
                larger = np.where(free, np.maximum(larger, by), larger)
        return larger

    def _coupled(
        self, means: np.ndarray, halves: np.ndarray, free: np.ndarray
    ) -> np.ndarray:
        """Fields without a size: as large as what balances the others."""
        larger = halves.copy()
        for rows in self.rows:
            for row in rows.slopes(means, halves):
                others = np.sqrt(np.sum((row * halves) ** 2))
                by = np.divide(others, row, out=np.zeros(self.k), where=row > 0)
                larger = np.where(free, np.maximum(larger, by), larger)
        return larger


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _typical(average: Any, values: np.ndarray) -> float:
    """An average of what is finite; 0 if nothing is."""
    finite = values[np.isfinite(values)]
    return float(average(finite)) if finite.size else 0.0


def _lengths(box: Box) -> dict[str, float]:
    """The unit of each coordinate: its range, or on a log axis its low end."""
    rows = zip(box.names, box.low, box.high, box.log, strict=True)
    return {name: low if log else (high - low) or 1.0 for name, low, high, log in rows}


def _scaled(box: Box, name: str, value: float) -> float:
    """A value of a coordinate in its own units."""
    low, high, *kind = box.ranges()[name]
    if kind == ["log"]:
        return value / low
    return (value - low) / ((high - low) or 1.0)


def _product(lengths: dict[str, float], word: str) -> float:
    return float(np.prod([lengths[letter] for letter in word]))
