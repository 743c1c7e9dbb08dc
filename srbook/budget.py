"""How much work a live cell does: `SRBOOK_BUDGET=quick|full|gpu` (default quick).

`quick` keeps a chapter near a minute on two CPU cores, `full` allows five, and `gpu` needs a graphics card.
"""

import os
from typing import TypeVar

T = TypeVar("T")
BUDGETS = ("quick", "full", "gpu")


def current_budget() -> str:
    """The budget in force; another word in `SRBOOK_BUDGET` is a ValueError."""
    budget = os.environ.get("SRBOOK_BUDGET") or "quick"
    if budget not in BUDGETS:
        raise ValueError(f"SRBOOK_BUDGET={budget!r} is not known; use one of {', '.join(BUDGETS)}")
    return budget


def pick(*, quick: T, full: T, gpu: T) -> T:
    """The value for the budget in force: `steps = pick(quick=300, full=3000, gpu=30000)`."""
    return {"quick": quick, "full": full, "gpu": gpu}[current_budget()]
