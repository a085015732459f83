"""What the methods of a problem use and return, found out by calling them once."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from .. import _programs as programs
from ..networks.jets import Jet, canonical
from .base import AbstractPDE

# From jets, a point and λ to numbers that are zero where the equation holds.
Residual = Callable[[Any, Float[Array, " d"], Float[Array, "*p"]], Any]


@dataclasses.dataclass(frozen=True)
class Use:
    """What a residual uses and returns.

    Attributes:
        words: for each field, the derivatives that it is asked for, "" for its value
            and "n" for the normal derivative.
        size: how many numbers it returns.
    """

    words: tuple[frozenset[str], ...]
    size: int

    @property
    def derivatives(self) -> tuple[str, ...]:
        """The words of all fields together but for the value, short ones first."""
        every = frozenset().union(*self.words) - {""}
        return tuple(sorted(every, key=lambda word: (len(word), word)))

    @property
    def normal(self) -> bool:
        """Whether it uses the outward normal derivative."""
        return "n" in self.derivatives


def use_of(problem: AbstractPDE, name: str) -> Use:
    """What a problem's condition of that name uses, or its residual: "physics".

    Raises:
        AttributeError: it asks for something that is no derivative.
        ValueError: it returns something else than numbers.
    """
    kind, letters, k = jnp.result_type(float), problem.domain.names, len(problem.fields)
    point = jax.ShapeDtypeStruct((len(letters),), kind)
    number = jax.ShapeDtypeStruct((), kind)
    p = len(problem.parameters)
    lam = number if p == 1 else jax.ShapeDtypeStruct((p,), kind)
    asked = [_Recording(letters) for _ in problem.fields]

    def call(values: list, normals: list, point: Array, lam: Array) -> Array:
        jets = [Jet(*row) for row in zip(values, asked, normals, strict=True)]
        return numbers(problem, name, method(problem, name)(arranged(jets), point, lam))

    traced = jax.make_jaxpr(call)([number] * k, [point] * k, point, lam)
    used = {id(v) for eqn in traced.jaxpr.eqns for v in eqn.invars}
    used |= {id(v) for v in traced.jaxpr.outvars}
    inputs = [id(v) in used for v in traced.jaxpr.invars]
    words = []
    for i, record in enumerate(asked):
        value, along = inputs[i], inputs[k + i]
        words.append(frozenset([*record.words, *[""] * value, *["n"] * along]))
    return Use(tuple(words), traced.out_avals[0].shape[0])


def method(problem: AbstractPDE, name: str) -> Residual:
    """The residual of a problem, called "physics", or one of its conditions."""
    if name == "physics":
        return problem.residual
    return lambda u, tx, lam: problem.condition_residual(name, u, tx, lam)


def arranged(jets: Sequence[Any]) -> Any:
    """The jets of all fields as methods get them: one alone, or a tuple."""
    return jets[0] if len(jets) == 1 else tuple(jets)


def numbers(problem: AbstractPDE, name: str, value: Any) -> Float[Array, " m"]:
    """What a method returns at one point, as one vector.

    Raises:
        ValueError: it is something else than numbers.
    """
    parts = value if isinstance(value, tuple | list) else (value,)
    shapes = [jnp.shape(part) for part in parts]
    if any(shape != () for shape in shapes):
        own = "residual" if name == "physics" else name
        raise ValueError(
            f"{type(problem).__name__}.{own} returns shapes {shapes} at a point, "
            "expected a number or a tuple of numbers"
        )
    if not parts:
        return jnp.zeros((0,))
    kind = jnp.result_type(*parts)
    kind = kind if jnp.issubdtype(kind, jnp.floating) else jnp.result_type(float)
    return jnp.stack([jnp.asarray(part, kind) for part in parts])


class Channels:
    """A method of a problem as a function of numbers: the value and the derivatives.

    Attributes:
        columns: what each number is: the index of a field, and a word.
        size: how many numbers the method returns.
        at: at n places at once: what it returns, shape (n, m), and how that follows the
            numbers and the point, shapes (n, m, c) and (n, m, d).
    """

    def __init__(self, problem: AbstractPDE, name: str):
        use = use_of(problem, name)
        self.problem, self.name, self.size = problem, name, use.size
        self.columns = [
            (field, word)
            for field, words in enumerate(use.words)
            for word in sorted(words, key=lambda word: (len(word), word))
        ]
        # One by one, their operations would take far longer to compile.
        self.at = programs.once(jax.vmap(self._with_slopes))

    def _with_slopes(
        self, *place: Array
    ) -> tuple[Float[Array, " m"], Float[Array, "m c"], Float[Array, "m d"]]:
        # Backwards, what is singular in one number leaves those beside it alone.
        by_channel = jax.jacrev(self)(*place)
        return self(*place), by_channel, jax.jacfwd(self, argnums=1)(*place)

    def __call__(
        self,
        channels: Float[Array, " c"],
        point: Float[Array, " d"],
        lam: Array,
        normal: Float[Array, " d"],
    ) -> Float[Array, " m"]:
        jets = []
        for i in range(len(self.problem.fields)):
            own = {
                word: channel
                for (field, word), channel in zip(self.columns, channels, strict=True)
                if field == i
            }
            jets.append(Jet(own.pop("", jnp.zeros(())), own, normal))
        value = method(self.problem, self.name)(arranged(jets), point, lam)
        return numbers(self.problem, self.name, value)


def prescribed(
    channels: Channels, points: Float[Array, "n d"], lams: Array
) -> Float64[np.ndarray, "n k"]:
    """What a condition makes of each field; NaN where it prescribes no value."""
    zero = jnp.zeros((len(points), len(channels.columns)))
    at_zero, slopes, _ = channels.at(zero, points, lams, jnp.zeros_like(points))
    r, by = np.asarray(at_zero, float), np.asarray(slopes, float)
    values = np.full((len(points), len(channels.problem.fields)), np.nan)
    for row in range(channels.size):
        used = np.flatnonzero(np.any(by[:, row] != 0, axis=0))
        if len(used) == 1 and channels.columns[used[0]][1] == "":
            field, _ = channels.columns[used[0]]
            with np.errstate(divide="ignore", invalid="ignore"):
                values[:, field] = -r[:, row] / by[:, row, used[0]]
    return values


class _Recording(Mapping):
    """Derivatives that note which of them are asked for."""

    def __init__(self, letters: Sequence[str]):
        self.letters, self.words = letters, set[str]()

    def __contains__(self, word: object) -> bool:
        return word == "n" or (isinstance(word, str) and set(word) <= {*self.letters})

    def __getitem__(self, word: str) -> Array:
        self.words.add(canonical(word))
        return jnp.zeros(())

    def __iter__(self) -> Iterator[str]:
        return iter(("n", f"words in {self.letters}"))

    def __len__(self) -> int:
        return 0
