"""Where conditions hold: faces of a domain, and points."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

from .. import _arguments as checks

Method = TypeVar("Method", bound=Callable)


@dataclasses.dataclass(frozen=True)
class Where:
    """The places of a condition: some faces, or else one point.

    Attributes:
        faces: coordinates by name, each with a value that it has there. Of a `Mapped`
            domain, here and below, they are those of the reference box.
        at: a value for every coordinate; None for one that is free.
    """

    faces: tuple[tuple[str, float], ...] = ()
    at: tuple[float | None, ...] | None = None

    def __str__(self) -> str:
        if self.at is not None:
            return f"at {self.at}"
        return " and ".join(f"{name} = {value:g}" for name, value in self.faces)


def condition(
    *,
    at: Sequence[int | float | None] | None = None,
    **faces: int | float | Sequence[int | float],
) -> Callable[[Method], Method]:
    """Makes a method of a problem a condition that the solution has to meet.

    The method has the form of `residual` and is zero where the condition is met. Its
    name is that of its term in the loss. A method that returns `()` prescribes nothing:
    it says that nothing is meant to be prescribed there.

    On a `Mapped` domain places are named by the coordinates of the reference box.

    Args:
        at: a point, with one number for every coordinate; None leaves one free.
        **faces: coordinates by name, each with the end or the ends of its range (or a
            value between these) where the condition holds.

    Raises:
        ValueError: neither faces nor a point, or both, or what is no number.
        TypeError: a point that is no tuple or list.

    >>> @condition(x=(-1, 1))
    ... def walls(self, u, tx, lam):
    ...     return u.value
    >>> print(walls.where)
    x = -1 and x = 1
    """
    if (at is None) == (not faces):
        raise ValueError(
            f"at = {at} and faces {faces}, expected a point or some faces, such as "
            "condition(x=(0, 1))"
        )
    each = [
        (name, checks.number(name, value))
        for name, values in faces.items()
        for value in (values if isinstance(values, tuple | list) else (values,))
    ]
    point = None
    if at is not None:
        checks.instance("at", at, (tuple, list))
        point = tuple(v if v is None else checks.number("at", v) for v in at)
    where = Where(tuple(each), point)

    def mark(method: Method) -> Method:
        method.where = where  # type: ignore[attr-defined]
        return method

    return mark
