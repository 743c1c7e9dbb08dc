"""Constructors that check their arguments and note them, so that a file can rebuild what they made."""

import json
from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, Literal, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from srbook.arguments import require_choice
from srbook.numbers import plain

STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


def noting(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that makes its arguments attributes, and checks their types, before it begins.

    The constructor that is called first also notes them in `arguments`, as a checkpoint gives them back.
    """
    names = signature(init)
    hints = {name: hint for name, hint in get_type_hints(init).items() if name != "return"}
    allowed = {name: TypeAdapter(hint, config=STRICT) for name, hint in hints.items()}

    @wraps(init)
    def noted(module: Any, *given: Any, **named: Any) -> None:
        bound = names.bind(module, *given, **named)
        bound.apply_defaults()
        bound.arguments.update(plain(dict(list(bound.arguments.items())[1:])))
        values = dict(list(bound.arguments.items())[1:])
        for name, value in values.items():
            if get_origin(hints.get(name)) is Literal:
                require_choice(name, value, hints[name])
            elif name in hints:
                _require_allowed(name, value, allowed[name])
            if callable(getattr(type(module), name, None)):
                raise TypeError(f"the argument {name!r} of {type(module).__name__} hides its function of that name")
        if "arguments" not in vars(module):
            module.arguments = json.loads(json.dumps(values))  # tuples become lists
        vars(module).update(values)
        init(*bound.args, **bound.kwargs)

    return noted


def _require_allowed(name: str, value: Any, allowed: TypeAdapter) -> None:
    try:
        allowed.validate_python(value)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        what = problem["msg"].removeprefix("Input should be ")
        raise ValueError(f"{name} must be {what}, got {problem['input']!r}") from None
