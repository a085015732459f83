"""What a training returns, and what is left of one that was ended early."""

import contextlib
import pickle
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import equinox as eqx
import numpy as np

from .._arguments import NonNegative, checked

Model = TypeVar("Model")


@checked
class FitResult(eqx.Module, Generic[Model]):
    """What a training run returns.

    Attributes:
        model: the trained model.
        history: "step", "seconds", "total" and every loss term, each a NumPy array
            with one entry a chunk (`fit`) or an iteration (`gauss_newton`); NaN where
            there is none.
        seconds: wall time, compilation and the runs before a stop included.
    """

    model: Model
    history: dict[str, np.ndarray]
    seconds: NonNegative


class PartialResult(FitResult[Model]):
    """The result so far, on the exception that ended a training.

    The exception has to reach another process whatever the model is: one that cannot be
    pickled is None there.
    """

    def __reduce__(self) -> tuple:
        model: Model | None = self.model
        try:
            pickle.dumps(model)
        except Exception:  # Pickle raises what it likes, as does a class of a user's.
            model = None
        return type(self), (model, self.history, self.seconds)


def attach(error: BaseException, result: FitResult) -> None:
    """Gives any exception the attribute `result`."""
    kept = PartialResult(result.model, result.history, result.seconds)
    # Also where a class forbids new attributes, as a frozen dataclass does.
    vars(error)["result"] = kept


@contextlib.contextmanager
def converting(convert: Callable[[FitResult], FitResult]) -> Iterator[None]:
    """Converts the `result` of whatever exception ends a training inside."""
    try:
        yield
    except BaseException as error:
        result = getattr(error, "result", None)
        if isinstance(result, FitResult):
            attach(error, convert(result))
        raise


class TrainingStopped(RuntimeError):
    """A loss, a Jacobian or weights became NaN or infinite.

    Attributes:
        reason: what did, and at which step.
        result: a `FitResult` with the last good model, of the end of the chunk before
            (`fit`) or of the step before (`gauss_newton`).
    """

    def __init__(self, reason: str, result: FitResult):
        super().__init__(f"{reason}; `result` holds the last good model")
        self.reason, self.result = reason, result

    def __reduce__(self) -> tuple:
        return type(self), (self.reason, self.result), self.__dict__
