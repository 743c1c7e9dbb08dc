"""Attacks on the package: it is killed, interrupted, damaged, and misused, and must survive or refuse clearly.

    python -m benchmarks.attack                 everything, several minutes
    python -m benchmarks.attack calls files     some families

Every attempt ends in a verdict. A family is a module of this folder with `attempts()`.
"""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

import srbook

HOUSE = Path(srbook.__file__).parent
REFUSALS = (ValueError, TypeError, FloatingPointError, OSError, ImportError, MemoryError)


# How an attempt ended. Survived: the result is right. Clear: refused by an error of ours that says what is wrong.
# Unclear: refused by an error from deep inside. Silent: taken, with a wrong result or without a word. Broken: something
# was lost.
Verdict = Literal["survived", "clear", "unclear", "silent", "broken"]


@dataclass(frozen=True)
class Attempt:
    """One attack.

    Attributes:
        name: unique within its family.
        run: called with an empty folder of its own, returns the verdict.
    """

    name: str
    run: Callable[[Path], Verdict]


def refusal(call: Callable[[], Any]) -> Verdict:
    """The verdict on a call that must be refused: clear if our own code raised an error for wrong input.

    An error that Python or torch raises in a line of ours is not ours; pydantic's are about a field that we described.
    """
    try:
        call()
    except ValidationError:
        return "clear"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        ours = Path(last.filename).is_relative_to(HOUSE) and (last.line or "").startswith("raise ")
        return "clear" if isinstance(error, REFUSALS) and ours and str(error) else "unclear"
    return "silent"
