"""Checks of arguments that many functions share: each says what was given and what is allowed."""

import math
from collections.abc import Iterable
from numbers import Integral, Real
from types import UnionType
from typing import Any, get_args

import numpy as np
from torch import Tensor


def require_choice(name: str, value: Any, choices: Any) -> None:
    """Raise a ValueError unless `value` is one of `choices`, words or the `Literal` type of them."""
    allowed = get_args(choices) or tuple(choices)
    if not any(type(value) is type(choice) and value == choice for choice in allowed):
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value!r}")


def require_integer(name: str, value: Any, least: int, most: int | None = None, remedy: str = "") -> None:
    """Raise a ValueError, with a remedy, unless `value` is an integer from `least` to `most`; True is none."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be an integer {allowed}, got {shown(value)}{remedy and '; '}{remedy}")


def require_counts(**values: Any) -> None:
    """Raise a ValueError unless every value is an integer of at least 1."""
    for name, value in values.items():
        require_integer(name, value, 1)


def require_lists_of_counts(**values: Any) -> None:
    """Raise a ValueError unless every value is a list or tuple of integers of at least 1."""
    for name, value in values.items():
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name} must be a list of integers, got {shown(value)}")
        for each in value:
            require_integer(f"each of {name}", each, 1)


def require_numbers(**values: Any) -> None:
    """Raise a TypeError unless every value is a real number, or an array or tensor that holds one."""
    for name, value in values.items():
        single = (
            isinstance(value, np.ndarray | Tensor) and math.prod(value.shape) == 1 and "bool" not in str(value.dtype)
        )
        if not single and (not isinstance(value, Real) or isinstance(value, bool)):
            raise TypeError(f"{name} must be a number, got {shown(value)}")


def require_instance(name: str, value: Any, kind: type | UnionType, remedy: str = "") -> None:
    """Raise a TypeError, with a remedy, unless `value` is a `kind`."""
    if not isinstance(value, kind):
        kinds = " or ".join(each.__name__ for each in get_args(kind) or (kind,))
        raise TypeError(f"{name} must be a {kinds}, got {shown(value)}{remedy and '; '}{remedy}")


def require_function(name: str, value: Any) -> None:
    """Raise a TypeError unless `value` can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {shown(value)}")


def require_iterable(name: str, value: Any, of: str) -> None:
    """Raise a TypeError unless `value` holds several things: not a word, and not one image where a list is due."""
    if isinstance(value, str | Tensor) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of {of}, got {shown(value)}")


def shown(value: Any) -> str:
    """A value for an error: words and numbers as they are, and of larger things their type."""
    return repr(value) if value is None or isinstance(value, str | Real) else type(value).__name__
