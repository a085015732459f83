"""Named ranges: the domain of a problem and the range of its parameters λ."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from . import _arguments as checks


class Box:
    """A product of named intervals, each linear, logarithmic or periodic.

    A `Box` names the coordinates of a domain or the parameters λ of a family, and
    maps them to the cube [-1, 1]^d in which networks learn best. It is hashable, so
    that models can hold it as static data.

    Args:
        **ranges: one `name=(low, high)`, `name=(low, high, "log")` or
            `name=(low, high, "periodic")` per axis. A fixed parameter has
            `low == high`; it scales to 0. Of a periodic axis, networks see the cosine
            and the sine, so that they are periodic by construction, with all
            derivatives (Dong and Ni 2021, J. Comput. Phys. 435).

    Raises:
        ValueError: a range is not two finite ordered numbers, is logarithmic and not
            positive, or periodic and empty.

    >>> nu = Box(nu=(1e-3, 1e-1, "log"))
    >>> print(nu.scale(jnp.array([1e-2])).round(6) + 0.0)
    [0.]
    >>> nu
    Box(nu=(0.001, 0.1, 'log'))
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    log: tuple[bool, ...]
    periodic: tuple[bool, ...]

    def __init__(self, **ranges: tuple | list):
        if not ranges:
            raise ValueError("Box: got no ranges, expected name=(low, high)")
        rows = []
        for name, value in ranges.items():
            bad = f"Box: {name} = {value!r}, expected "
            try:
                low, high, *kind = value
                low, high = checks.number(name, low), checks.number(name, high)
                checks.choice(name, kind, ([], ["log"], ["periodic"]))
            except (TypeError, ValueError):
                raise ValueError(
                    bad + '(low, high), (low, high, "log") or (low, high, "periodic"), '
                    "finite numbers"
                ) from None
            log, periodic = kind == ["log"], kind == ["periodic"]
            if low > high or (log and low <= 0) or (periodic and low == high):
                raise ValueError(
                    bad + 'low <= high, both positive for "log", and low < high for '
                    '"periodic"'
                )
            rows.append((name, low, high, log, periodic))
        self.names, self.low, self.high, self.log, self.periodic = zip(
            *rows, strict=True
        )

    def __len__(self) -> int:
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        # As tuples: dictionaries are equal in any order, coordinates are not.
        return isinstance(other, Box) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple:
        return tuple(self.ranges().items())

    def __repr__(self) -> str:
        return f"Box({', '.join(f'{k}={v}' for k, v in self.ranges().items())})"

    def ranges(self) -> dict[str, tuple]:
        """The keyword arguments that make this box again."""
        kinds = [
            ("log",) * log + ("periodic",) * periodic
            for log, periodic in zip(self.log, self.periodic, strict=True)
        ]
        rows = zip(self.names, self.low, self.high, kinds, strict=True)
        return {name: (low, high, *kind) for name, low, high, kind in rows}

    @property
    def reference(self) -> "Box":
        """Itself: of a `Mapped` domain, the box that is mapped."""
        return self

    def bounds(self, parameters: "Box") -> "Box":
        """Itself: of a `Mapped` domain, the box that holds it for every λ."""
        return self

    @property
    def width(self) -> int:
        """How many numbers `embed` makes of one point."""
        return len(self) + sum(self.periodic)

    def scale(self, values: Float[ArrayLike, "*n d"]) -> Float[Array, "*n d"]:
        """Maps physical values to [-1, 1], through the logarithm on log axes.

        Raises:
            ValueError: a range is too narrow for the precision of `values`.
        """
        values = checks.array("values", values, "...", len(self), empty=True)
        self.check_resolved(values.dtype)
        columns = []
        for i, (low, high, log) in enumerate(
            zip(self.low, self.high, self.log, strict=True)
        ):
            v = values[..., i]
            if log:
                v, low, high = jnp.log(v), float(np.log(low)), float(np.log(high))
            half = (high - low) / 2
            columns.append((v - (low + high) / 2) / half if half else 0 * v)
        return jnp.stack(columns, axis=-1)

    def unscale(self, values: Float[ArrayLike, "*n d"]) -> Float[Array, "*n d"]:
        """Maps [-1, 1] back to physical values: the inverse of `scale`."""
        values = checks.array("values", values, "...", len(self), empty=True)
        self.check_resolved(values.dtype)
        columns = []
        for i, (low, high, log) in enumerate(
            zip(self.low, self.high, self.log, strict=True)
        ):
            if log:
                low, high = float(np.log(low)), float(np.log(high))
            v = values[..., i] * ((high - low) / 2) + (low + high) / 2
            columns.append(jnp.exp(v) if log else v)
        return jnp.stack(columns, axis=-1)

    def check_resolved(self, dtype: np.dtype) -> None:
        """Checks that every range holds enough numbers of a type.

        Seconds since 1970, for one, are 128 apart in float32.
        """
        # Half precision has no more than 1024 between 1 and 2.
        kind = jnp.finfo(dtype)
        least = min(1024 * float(kind.eps), 1 / 16)
        for name, low, high, log in zip(
            self.names, self.low, self.high, self.log, strict=True
        ):
            ends = np.log([low, high]) if log else np.array([low, high])
            near = low < high and np.ptp(ends) < least * np.max(np.abs(ends))
            if near or max(-low, high) > float(kind.max):
                raise ValueError(
                    f"Box: {name} = {self.ranges()[name]}, expected a range of which "
                    f"{dtype} can tell many values apart; measure {name} from another "
                    "zero, or compute in float64"
                )

    def embed(self, scaled: Float[Array, "*n d"]) -> Float[Array, "*n w"]:
        """What a network sees of scaled values: the sines of periodic axes come last.

        >>> box = Box(t=(0, 1), x=(0, 2, "periodic"))
        >>> print(box.embed(box.scale(jnp.array([0.5, 2.0]))).round(3) + 0.0)
        [ 0. -1.  0.]
        """
        if not any(self.periodic):
            return scaled
        periodic = np.array(self.periodic)
        angles = jnp.pi * scaled
        cosines = jnp.where(periodic, jnp.cos(angles), scaled)
        return jnp.concatenate([cosines, jnp.sin(angles[..., periodic])], axis=-1)

    def linear(self) -> "Box":
        """The same ranges with every axis linear."""
        pairs = zip(self.low, self.high, strict=True)
        return Box(**dict(zip(self.names, pairs, strict=True)))

    def parameter(self, lam: ArrayLike, *, argument: str = "lam") -> Float[Array, " d"]:
        """Checks one physical parameter value and returns it with shape (d,).

        A range that is positive throughout stands for a positive quantity, a periodic
        one for an angle, of which every value is inside. Values that JAX traces are
        checked for shape only.

        Raises:
            ValueError: a value is not positive where it must be.

        Warns:
            UserWarning: a value outside the range.
        """
        expected = f"expected {len(self)} value(s): {', '.join(self.names)}"
        value: Array | np.ndarray
        try:
            value = checks.array(argument, lam, "...", empty=True)
        except ValueError:
            raise ValueError(f"{argument} = {lam!r}, {expected}") from None
        if not isinstance(value, jax.core.Tracer):
            # For one number NumPy is ten times as fast.
            value = np.asarray(value)
        value = value.astype(jnp.result_type(float))
        if value.shape == () and len(self) == 1:
            value = value[None]
        if value.shape != (len(self),):
            raise ValueError(
                f"{argument} has shape {value.shape}, {expected}, shape ({len(self)},)"
            )
        if isinstance(value, jax.core.Tracer):
            return value
        for name, low, high, periodic, v in zip(
            self.names, self.low, self.high, self.periodic, value.tolist(), strict=True
        ):
            if not np.isfinite(v) or (low > 0 and v <= 0 and not periodic):
                positive = low > 0 and not periodic
                kind = "a positive number" if positive else "a finite number"
                raise ValueError(f"{argument}: {name} = {v}, expected {kind}")
            if periodic:
                continue
            # One unit in the last place of float32: 0.001 is not exact in either.
            slack = 1e-6 * max(abs(low), abs(high))
            if not low - slack <= v <= high + slack:
                warnings.warn(
                    f"{argument}: {name} = {v:g} lies outside the trained range "
                    f"[{low:g}, {high:g}]; the network extrapolates there",
                    stacklevel=3,
                )
        return jnp.asarray(value)

    def point(self, point: ArrayLike, *, argument: str = "point") -> None:
        """Checks that points lie in the box; what JAX traces is not looked at.

        Raises:
            ValueError: a coordinate is outside of its range; a periodic one has no
                outside.
        """
        value = checks.array(argument, point, "...", len(self), empty=True)
        if isinstance(value, jax.core.Tracer):
            return
        values, low, high = np.asarray(value), np.array(self.low), np.array(self.high)
        slack = 1e-6 * np.maximum(np.abs(low), np.abs(high))
        slack[list(self.periodic)] = np.inf
        inside = np.isfinite(values) & (low - slack <= values)
        inside &= values <= high + slack
        if not inside.all():
            *where, i = np.argwhere(~inside)[0]
            raise ValueError(
                f"{argument}{list(map(int, where)) or ''}: {self.names[i]} = "
                f"{values[(*where, i)]:g}, expected a value in "
                f"[{self.low[i]:g}, {self.high[i]:g}]"
            )


def unpack(parameters: Box, lam: Float[Array, "... p"]) -> Float[Array, "..."]:
    """λ as a problem's methods receive it: if there is only one, without its axis."""
    return lam[..., 0] if len(parameters) == 1 else lam


def lattice(n: int, d: int) -> Float[np.ndarray, "n d"]:
    """Points that fill the unit cube evenly, the same every time.

    Multiples, modulo 1, of the powers of an irrational number: for d = 1, of the
    golden ratio. (The sequence R_d of Roberts 2018.)
    """
    root = 2.0
    for _ in range(64):
        root = (1 + root) ** (1 / (d + 1))
    return (0.5 + np.outer(np.arange(n), root ** -np.arange(1.0, d + 1))) % 1
