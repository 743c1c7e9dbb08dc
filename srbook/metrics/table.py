"""The table of metrics, from which evaluation, training, and the command line choose."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from srbook.arguments import require_iterable
from srbook.metrics.entropy import image_entropy, residual_entropy
from srbook.metrics.fidelity import Channel, psnr, ssim
from srbook.metrics.niqe import niqe
from srbook.metrics.no_reference import clipiqa, musiq
from srbook.metrics.perceptual import lpips

Images = Tensor | Sequence[Tensor]


@dataclass(frozen=True)
class Metric:
    """One metric of the table.

    Attributes:
        name: how it is asked for.
        title: head of its column.
        decimals: digits after the point in tables.
        better: which values are better, None where neither are.
        compute: `compute(sr, truth, *, channel, border)`, without `truth` where none is needed. Per image, the images
            are (1, 3, H, W) in [0, 1] with 8 bits, as a file would hold them, and the result is a number. Per set, they
            are sequences of such images, whose sizes may differ. The protocol says `channel` and `border`; a metric
            that has a convention of its own ignores them.
        needs_truth: False for metrics without a reference.
        per: whether a value belongs to an image, and a table prints the mean, or to the whole set, as FID.
        prepare: called before any work: raises where weights or a package are missing.
    """

    name: str
    title: str
    decimals: int
    better: Literal["higher", "lower"] | None
    compute: Callable[..., Tensor | float]
    needs_truth: bool = True
    per: Literal["image", "set"] = "image"
    prepare: Callable[[], object] | None = None

    def __call__(self, sr: Images, truth: Images, *, channel: Channel, border: int) -> float:
        """Its value; `truth` is handed on where it is needed."""
        images = (sr, truth) if self.needs_truth else (sr,)
        return float(self.compute(*images, channel=channel, border=border))

    def shown(self, value: float) -> str:
        """A value as tables print it."""
        return f"{value:.{self.decimals}f}"


def _lpips(sr: Tensor, truth: Tensor, *, channel: Channel, border: int) -> Tensor:
    return lpips(sr, truth)  # on the whole RGB image


def _niqe(sr: Tensor, *, channel: Channel, border: int) -> Tensor:
    return niqe(sr)  # on the Y channel of the whole image


def _clipiqa(sr: Tensor, *, channel: Channel, border: int) -> Tensor:
    return clipiqa(sr)  # on the whole RGB image, and so is MUSIQ


def _musiq(sr: Tensor, *, channel: Channel, border: int) -> Tensor:
    return musiq(sr)


def _entropy(sr: Tensor, *, channel: Channel, border: int) -> Tensor:
    return image_entropy(sr, channel=channel)


def _residual_entropy(sr: Tensor, truth: Tensor, *, channel: Channel, border: int) -> Tensor:
    return residual_entropy(truth, sr, channel=channel)


_BLANK = torch.zeros(1, 3, 256, 256)
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("psnr", "PSNR (dB)", 2, "higher", psnr),
        Metric("ssim", "SSIM", 4, "higher", ssim),
        Metric("lpips", "LPIPS", 4, "lower", _lpips, prepare=lambda: lpips(*torch.zeros(2, 1, 3, 64, 64))),
        Metric("niqe", "NIQE", 2, "lower", _niqe, needs_truth=False),
        Metric("clipiqa", "CLIPIQA", 3, "higher", _clipiqa, needs_truth=False, prepare=lambda: clipiqa(_BLANK)),
        Metric("musiq", "MUSIQ", 2, "higher", _musiq, needs_truth=False, prepare=lambda: musiq(_BLANK)),
        Metric("entropy", "entropy (bits)", 3, None, _entropy, needs_truth=False),
        Metric("residual_entropy", "residual entropy (bits)", 3, "lower", _residual_entropy),
    )
}


def chosen_metrics(names: Iterable[str]) -> list[Metric]:
    """The metrics of these names, each once, ready to be computed.

    Raises:
        ValueError: no name, or one that is not in the table.
        FileNotFoundError, ImportError: the weights or the package of a metric are absent.
    """
    require_iterable("metrics", names, "names")
    names = list(dict.fromkeys(names))
    unknown = [name for name in names if name not in METRICS]
    if unknown or not names:
        raise ValueError(f"metrics must be some of {', '.join(METRICS)}, got {', '.join(unknown) or 'none'}")
    chosen = [METRICS[name] for name in names]
    for metric in chosen:
        if metric.prepare is not None:
            metric.prepare()
    return chosen
