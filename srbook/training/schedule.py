"""The learning rate over a run."""

import math
from collections.abc import Sequence
from typing import Literal

from srbook.arguments import require_choice

Schedule = Literal["constant", "cosine", "multistep"]


def learning_rate_factor(
    step: int,
    *,
    steps: int,
    warmup: int,
    schedule: Schedule,
    floor: float = 0.0,
    milestones: Sequence[int] = (),
    factor: float = 0.5,
) -> float:
    """Fraction of the highest learning rate at a step; implements :eq:`eq-schedule`.

    It rises linearly over `warmup` steps. Then it stays at 1 ("constant"), falls along half a cosine to `floor` at the
    end ("cosine"; Loshchilov and Hutter, 2017, without restarts), or is `factor` to the power of the number of
    milestones passed ("multistep").

    Args:
        step: zero-based number of the step about to be taken.
        steps, warmup: length of the run and of the rise.
        schedule: "constant", "cosine", or "multistep"; another word is a ValueError.
        floor: where the cosine ends, in [0, 1].
        milestones: steps from which on the rate is multiplied by `factor` once more.
    """
    require_choice("schedule", schedule, Schedule)
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    if schedule == "multistep":
        return factor ** sum(step >= milestone for milestone in milestones)
    progress = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
