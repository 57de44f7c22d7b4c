"""Constraints on settings, written beside each value, and the function that checks them.

    lr: Annotated[float, AtLeast(0)] = 0.03
    crop_scale: Annotated[tuple[float, float], Above(0), AtMost(1), Ascending()] = (0.2, 1.0)

On a tuple, a constraint applies to each of its numbers; `Ascending` applies to the tuple as a whole.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from c2l_models.errors import RecipeError


class Constraint:
    """A condition on one number. `str()` describes the numbers that meet it."""

    def holds(self, number: float) -> bool:
        """Whether a number meets the condition."""
        raise NotImplementedError

    def holds_for(self, value: Any) -> bool:
        """Whether a value meets the condition; every number of a tuple must meet it."""
        return all(map(self.holds, value)) if isinstance(value, tuple) else self.holds(value)


@dataclass(frozen=True)
class AtLeast(Constraint):
    limit: float

    def holds(self, number: float) -> bool:
        return number >= self.limit

    def __str__(self) -> str:
        return f"at least {self.limit:g}"


@dataclass(frozen=True)
class Above(Constraint):
    limit: float

    def holds(self, number: float) -> bool:
        return number > self.limit

    def __str__(self) -> str:
        return f"above {self.limit:g}"


@dataclass(frozen=True)
class AtMost(Constraint):
    limit: float

    def holds(self, number: float) -> bool:
        return number <= self.limit

    def __str__(self) -> str:
        return f"at most {self.limit:g}"


@dataclass(frozen=True)
class Below(Constraint):
    limit: float

    def holds(self, number: float) -> bool:
        return number < self.limit

    def __str__(self) -> str:
        return f"below {self.limit:g}"


@dataclass(frozen=True)
class Between(Constraint):
    """Both ends are allowed."""

    low: float
    high: float

    def holds(self, number: float) -> bool:
        return self.low <= number <= self.high

    def __str__(self) -> str:
        return f"from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class MultipleOf(Constraint):
    step: int

    def holds(self, number: float) -> bool:
        return number % self.step == 0

    def __str__(self) -> str:
        return f"a multiple of {self.step}"


@dataclass(frozen=True)
class AnyNumber(Constraint):
    """No condition. It marks a setting whose range was considered and left open."""

    def holds(self, number: float) -> bool:
        return True

    def __str__(self) -> str:
        return "any number"


@dataclass(frozen=True)
class Ascending(Constraint):
    """Each number of the tuple is at least the one before it."""

    def holds_for(self, value: Any) -> bool:
        return list(value) == sorted(value)

    def __str__(self) -> str:
        return "ascending numbers"


def check_values(settings: Any, prefix: str = "") -> None:
    """Check every field of a dataclass, and of the dataclasses in it, against its type and constraints.

    Args:
        settings: the dataclass.
        prefix: prefix of the names in messages, such as "augment.".

    Raises:
        RecipeError: a value has the wrong type or violates a constraint.
    """
    for name, hint in get_type_hints(type(settings), include_extras=True).items():
        value = getattr(settings, name)
        kind, constraints = _split(hint)
        _require(_has_type(value, kind), prefix + name, value, _describe(kind))
        if value is not None:
            for constraint in constraints:
                _require(constraint.holds_for(value), prefix + name, value, str(constraint))
        if dataclasses.is_dataclass(value):
            check_values(value, f"{prefix}{name}.")


def check(condition: bool, settings: Any, name: str, expected: str) -> None:
    """Check a condition on one field that depends on other fields too. Raises RecipeError."""
    _require(condition, name, getattr(settings, name), expected)


def _split(hint: Any) -> tuple[Any, Sequence[Constraint]]:
    """A type hint without `Annotated`, and its constraints."""
    if get_origin(hint) is not Annotated:
        return hint, ()
    kind, *extras = get_args(hint)
    return kind, [extra for extra in extras if isinstance(extra, Constraint)]


def _require(condition: bool, name: str, value: Any, expected: str) -> None:
    if not condition:
        raise RecipeError(f"{name}: expected {expected}, found {value!r}; change this setting")


def _has_type(value: Any, hint: Any) -> bool:
    """Whether a value has a field's type. A float has to be finite, and may be written as an int."""
    arguments = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return any(_has_type(value, argument) for argument in arguments)
    if get_origin(hint) is Literal:
        return value in arguments
    if get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        return len(value) == len(kinds) and all(map(_has_type, value, kinds))
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is hint


def _describe(hint: Any) -> str:
    """A type in plain words, for a message."""
    arguments = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_describe, arguments))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if get_origin(hint) is tuple and arguments[-1] is ...:
        return f"a list, each element {_describe(arguments[0])}"
    if get_origin(hint) is tuple:
        return f"a list of {len(arguments)} values, each {_describe(arguments[0])}"
    words = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false", type(None): "nothing"}
    return words.get(hint, f"a value of type {hint.__name__}")
