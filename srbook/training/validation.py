"""The quality of the averaged weights while a run goes on."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from srbook.arguments import require_instance
from srbook.data import write_image
from srbook.degradations import Degradation
from srbook.images import require_one_image, round_to_8bit
from srbook.methods import Method
from srbook.metrics import chosen_metrics
from srbook.random import keyed
from srbook.training.distributed import processes, share


class Validation:
    """Mean quality over images that training does not see, by the metrics of a table and on Y without a border.

    A trainer calls it on all its processes, which share the images out.

    Args:
        images: the truth by name, (1, 3, H, W) each.
        degrade: makes the low-resolution images.
        metrics: names from `srbook.metrics.METRICS`, of those that measure image by image.
        output: the folder that gets the upscaled images; None writes none.
        seed: of the degradation and of sampling; every validation draws the same.

    Raises:
        ValueError: no such metric, no image, or an image whose sides are not divisible by the scale, or so small
            that nothing is left of it without a border as wide as the scale.
    """

    def __init__(
        self,
        images: Mapping[str, Tensor],
        degrade: Degradation,
        metrics: Sequence[str] = ("psnr",),
        *,
        output: str | Path | None = None,
        seed: int = 0,
    ):
        require_instance("degrade", degrade, Degradation, "such as srbook.degradations.Bicubic(4)")
        for name, image in images.items():
            _require_measurable(image, f"validation image {name!r}", degrade.scale)
        if not images:
            raise ValueError("no images to validate on")
        self.images, self.degrade, self.metrics, self.seed = dict(images), degrade, chosen_metrics(metrics), seed
        sets = [metric.name for metric in self.metrics if metric.per == "set"]
        if sets:
            raise ValueError(f"{', '.join(sets)} needs a whole test set; use it in an evaluation, not to validate")
        self.output = None if output is None else Path(output)

    def __call__(self, method: Method, step: int) -> dict[str, float]:
        """Figures of this process's images, weighted so that their mean over the processes is that over all images."""
        totals = {metric.name: 0.0 for metric in self.metrics}
        for number, name in share(list(enumerate(self.images))):
            hr = self.images[name]
            sr = self._upscale(method, hr, number)
            for metric in self.metrics:
                totals[metric.name] += metric(sr, hr, channel="y", border=self.degrade.scale)
            if self.output is not None:
                write_image(self.output / f"step-{step:08d}-{_file_name(name)}.png", sr[0])
        count = processes()[1]
        return {name: total * count / len(self.images) for name, total in totals.items()}

    def _upscale(self, method: Method, hr: Tensor, number: int) -> Tensor:
        device = next((weight.device for weight in method.parameters()), torch.device("cpu"))
        lr = self.degrade(hr, keyed(self.seed, number)).to(device)
        generator = torch.Generator(device).manual_seed(self.seed)
        return round_to_8bit(method.upscale(lr, generator=generator).image.cpu())


def _file_name(name: str) -> str:
    """An image's name as one of a file: without separators of folders, and different for different names."""
    return re.sub(r"[%/\\]", lambda found: f"%{ord(found[0]):02X}", name)


def _require_measurable(image: Tensor, name: str, scale: int) -> None:
    height, width = require_one_image(image, name).shape[-2:]
    if height % scale or width % scale or min(height, width) <= 2 * scale:
        raise ValueError(
            f"{name} is {height} x {width}; its sides must be divisible by the scale {scale} and longer than "
            f"{2 * scale} (srbook.degradations.crop_to_multiple)"
        )
