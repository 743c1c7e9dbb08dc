"""Pictures of a training run."""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from srbook.arguments import require_instance, require_iterable
from srbook.progress import is_static
from srbook.viz.html import Html, figure
from srbook.viz.style import PALETTE, style


def loss_curve(records: Sequence[Mapping[str, float]], *, title: str = "Training loss") -> Html:
    """Loss against step: every record lightly, and their moving average over a twentieth of the run.

    `records` are the trainer's log, dicts with "step" and "loss"; entries without "loss" (validation) are left out.
    Fewer than two losses are a ValueError, and so is one that is not finite. `title` says what the curve shows, best as
    a finding.
    """
    import matplotlib.style
    import numpy as np
    from matplotlib.figure import Figure

    require_iterable("records", records, "dicts")
    for record in records:
        require_instance("a record", record, Mapping)
        if "loss" in record and "step" not in record:
            raise ValueError(f"a record with a loss needs its step, got {dict(record)}")
    points = [(record["step"], record["loss"]) for record in records if "loss" in record]
    if len(points) < 2:
        raise ValueError(f"need at least two records with a loss, got {len(points)} of {len(records)} records")
    if not all(math.isfinite(loss) for _, loss in points):
        raise ValueError("the loss is not finite; look at the training before plotting it")
    steps, losses = np.array(points, dtype=float).T
    window = max(1, len(losses) // 20)
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    with matplotlib.style.context(style()):
        fig = Figure()  # not pyplot's, which looks for a screen
        ax = fig.subplots()
        ax.plot(steps, losses, color=PALETTE["sky"], alpha=0.5, linewidth=1)
        ax.plot(steps[window - 1 :], smooth, color=PALETTE["blue"])
        if losses.min() > 0:
            ax.set_yscale("log")
        ax.set(xlabel="step", ylabel="loss", title=title)
        alt = f"{title}. Over {steps[-1]:.0f} steps the smoothed loss goes from {smooth[0]:.3g} to {smooth[-1]:.3g}."
        return figure(fig, alt=alt)


def live_loss_curve(
    *, title: str = "Training loss", every: float = 2.0
) -> Callable[[Sequence[Mapping[str, float]]], None]:
    """A callback for `Trainer(on_log=...)` that keeps redrawing `loss_curve` while a notebook trains.

    In a plain script, a terminal, or static mode it draws nothing; show `loss_curve(result.records)` at the end. At
    least `every` seconds lie between two drawings, so that drawing does not slow the training.
    """
    if is_static() or not _in_notebook():
        return lambda records: None

    from IPython.display import display

    shown = display(display_id=True)
    last = -math.inf

    def redraw(records: Sequence[Mapping[str, float]]) -> None:
        nonlocal last
        if sum("loss" in record for record in records) >= 2 and time.monotonic() - last >= every:
            shown.update(loss_curve(records, title=title))
            last = time.monotonic()

    return redraw


def _in_notebook() -> bool:
    # In a kernel IPython is loaded and its shell knows the kernel; in a terminal it knows none.
    ipython = sys.modules.get("IPython")
    return getattr(ipython and ipython.get_ipython(), "kernel", None) is not None
