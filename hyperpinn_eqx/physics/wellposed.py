"""What can be said before any training: is a problem whole, and does it agree."""

import functools
import itertools
import warnings
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from .. import _programs as programs
from ..box import Box, lattice, unpack
from ..problems.base import AbstractPDE
from ..problems.mapped import Mapped
from ..problems.recorded import Channels, Use, prescribed, use_of

# Places at a corner, each with a λ of its own.
_PLACES = 16
# Two conditions agree if their values differ by no more of the largest.
_AGREE = 1e-6


def look_at(problem: AbstractPDE) -> None:
    """Checks a problem before it is trained on.

    Raises:
        AttributeError: a method asks a jet for something that is no derivative.
        ValueError: a method returns something else than numbers, `residual` does not
            contain a field, a map folds, or a condition is on a face of which the map
            leaves nothing.

    Warns:
        UserWarning: fewer conditions at the initial time than the equation has
            derivatives in time; a wall without any; a field of which only derivatives
            occur; or two conditions that prescribe different values where their faces
            meet.
    """
    uses = {name: use_of(problem, name) for name in ("physics", *problem.conditions)}
    for i, field in enumerate(problem.fields):
        if not uses["physics"].words[i]:
            raise ValueError(
                f"{type(problem).__name__}.residual does not contain the field "
                f"{field!r}, expected all of {', '.join(problem.fields)}"
            )
    _check_map(problem, uses)
    for message in (*_missing(problem, uses), *_contradictions(problem, uses)):
        warnings.warn(f"{type(problem).__name__}: {message}", stacklevel=5)


def _check_map(problem: AbstractPDE, uses: dict[str, Use]) -> None:
    domain = problem.domain
    if isinstance(domain, Box):
        return
    domain.bounds(problem.parameters)
    for name, where in problem.conditions.items():
        for face in where.faces:
            if uses[name].size and domain.collapsed(*face, problem.parameters):
                raise ValueError(
                    f"condition {name!r} holds on {face[0]} = {face[1]:g}, expected "
                    f"another face of {domain}: the map leaves nothing of that one"
                )


def _missing(problem: AbstractPDE, uses: dict[str, Use]) -> Iterator[str]:
    """Faces that no condition is about, and fields known up to a constant."""
    domain, inside = problem.domain, uses["physics"]
    box = domain.reference
    there: dict[tuple[str, float], list[str]] = {}
    for name, where in problem.conditions.items():
        for face in where.faces:
            there.setdefault(face, []).append(name)
    silence = "if that is meant, add a condition there that returns ()"
    for name, low, high, periodic in zip(
        box.names, box.low, box.high, box.periodic, strict=True
    ):
        # The axes of a map mix all coordinates but the time.
        letters = {name}
        if isinstance(domain, Mapped) and name != "t":
            letters = {*domain.names} - {"t"}
        orders = [
            max((w.count(x) for w in words for x in letters), default=0)
            for words in inside.words
        ]
        if periodic or low == high or not any(orders):
            continue
        at = {end: there.get((name, end), []) for end in (low, high)}
        if name == "t":
            names = {condition for end in at.values() for condition in end}
            found = sum(uses[condition].size for condition in names)
            silent = any(not uses[condition].size for condition in names)
            if found < sum(orders) and not silent:
                yield (
                    f"{found} condition(s) at t = {low:g}, expected {sum(orders)} for "
                    f"the derivatives in time of residual; {silence}"
                )
            continue
        bare = [end for end, names in at.items() if not names]
        if isinstance(domain, Mapped):
            lost = functools.partial(domain.collapsed, parameters=problem.parameters)
            bare = [end for end in bare if not lost(name, end)]
        if len(bare) > (max(orders) == 1):
            faces = " and ".join(f"{name} = {end:g}" for end in bare)
            yield f"no condition at {faces}; {silence}"
    for i, field in enumerate(problem.fields):
        if not any("" in use.words[i] for use in uses.values()):
            yield (
                f"only derivatives of {field} occur: it is determined up to a "
                "constant; fix it at a point by condition(at=...)"
            )


def _contradictions(problem: AbstractPDE, uses: dict[str, Use]) -> Iterator[str]:
    """Pairs of conditions that prescribe different values where their faces meet."""
    domain, box = problem.domain, problem.domain.reference
    faces = [
        (name, face)
        for name, where in problem.conditions.items()
        for face in where.faces
        if uses[name].size
    ]
    if len(faces) < 2:
        return
    d, p = len(box), len(problem.parameters)
    cube = 2 * lattice(_PLACES, d + p) - 1
    found = set()
    with programs.now():
        inside = box.unscale(jnp.asarray(cube[:, :d]))
        lams = problem.parameters.unscale(jnp.asarray(cube[:, d:]))
        values = unpack(problem.parameters, lams)
        methods = {name: Channels(problem, name) for name, _ in faces}

        def known(name: str, **at: float) -> Float64[np.ndarray, "n k"]:
            points = inside
            for coordinate, end in at.items():
                points = points.at[:, box.names.index(coordinate)].set(end)
            if isinstance(domain, Mapped):
                points = jax.vmap(domain.at)(points, values)
            return prescribed(methods[name], points, values)

        every = [known(name, **{x: a}) for name, (x, a) in faces]
        sizes = np.nanmax(np.abs(every), axis=(0, 1), initial=0.0)
        for (one, (x, a)), (other, (y, b)) in itertools.combinations(faces, 2):
            if one == other or x == y or (one, other) in found:
                continue
            left, right = (known(name, **{x: a, y: b}) for name in (one, other))
            gap = np.nan_to_num(np.abs(left - right) - _AGREE * sizes)
            if np.max(gap) > 0:
                found.add((one, other))
                at, field = np.unravel_index(np.argmax(gap), gap.shape)
                point = {**dict(zip(box.names, inside[at], strict=True)), x: a, y: b}
                where = ", ".join(f"{k} = {float(v):.4g}" for k, v in point.items())
                yield (
                    f"{one!r} and {other!r} contradict each other where {x} = {a:g} "
                    f"meets {y} = {b:g}: at {where} and λ = "
                    f"{np.asarray(lams[at]).round(4).tolist()}, the field "
                    f"{problem.fields[field]} is {left[at, field]:.4g} by the one and "
                    f"{right[at, field]:.4g} by the other"
                )
