"""Tables of quality: methods against images, under one named protocol."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import srbook
from srbook.data import ImageFolder
from srbook.files import atomic_path
from srbook.images import require_one_image, round_to_8bit
from srbook.methods import Bicubic, Diffusion, Method
from srbook.metrics import Protocol, lpips
from srbook.progress import Progress
from srbook.tiling import upscale_tiled

METRICS = {"psnr": "PSNR (dB)", "ssim": "SSIM", "lpips": "LPIPS"}
DECIMALS = {"psnr": 2, "ssim": 4, "lpips": 4}
REFERENCE = "bicubic"


@dataclass(frozen=True)
class Row:
    """What one method made of one image: each metric's value, and the seconds that upscaling took."""

    method: str
    image: str
    values: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class EvaluationTable:
    """The result of `evaluate`.

    Attributes:
        rows: one per method and image.
        metrics: names of the metrics, in the order of the columns.
        scale: magnification.
        protocol: under which the numbers were made; numbers of two protocols do not compare.
    """

    rows: list[Row]
    metrics: tuple[str, ...]
    scale: int
    protocol: Protocol

    @property
    def methods(self) -> list[str]:
        """Names of the methods, in the order of evaluation."""
        return list(dict.fromkeys(row.method for row in self.rows))

    def mean(self, method: str, metric: str) -> float:
        """A metric's mean over the images, as papers quote it: of the decibels, not of the errors.

        Raises:
            ValueError: the table has no such method or metric.
        """
        if method not in self.methods or metric not in self.metrics:
            raise ValueError(
                f"no {metric!r} of {method!r} here; methods: {', '.join(self.methods)}; "
                f"metrics: {', '.join(self.metrics)}"
            )
        values = [row.values[metric] for row in self.rows if row.method == method]
        return sum(values) / len(values)

    def to_markdown(self, per_image: bool = True) -> str:
        """A Markdown table of the means, one of all images if wanted, and a line that names the protocol."""
        heads = [METRICS[metric] for metric in self.metrics]
        means = [
            [method, *(_shown(metric, self.mean(method, metric)) for metric in self.metrics)] for method in self.methods
        ]
        count = len(self.rows) // len(self.methods)
        parts = [
            _markdown(["method", *heads], means),
            f"Mean of {count} image{'s' if count > 1 else ''}, x{self.scale}, protocol {self.protocol.name}: "
            f"{self.protocol.description}.",
        ]
        if per_image:
            rows = [
                [row.image, row.method, *(_shown(metric, row.values[metric]) for metric in self.metrics)]
                for row in sorted(self.rows, key=lambda row: row.image)  # stable: keeps the order of the methods
            ]
            parts.append(_markdown(["image", "method", *heads], rows))
        return "\n\n".join(parts)

    def to_json(self) -> str:
        """Everything in the table as JSON. The infinite PSNR of identical images becomes null."""

        def finite(values: dict[str, float]) -> dict[str, float | None]:
            return {name: value if math.isfinite(value) else None for name, value in values.items()}

        content = {
            "scale": self.scale,
            "protocol": {"name": self.protocol.name, "description": self.protocol.description},
            "means": {
                method: finite({metric: self.mean(method, metric) for metric in self.metrics})
                for method in self.methods
            },
            "images": [
                {"image": row.image, "method": row.method, **finite(row.values), "seconds": round(row.seconds, 4)}
                for row in self.rows
            ],
            "versions": {"srbook": srbook.__version__, "torch": torch.__version__},
        }
        return json.dumps(content, indent=2, allow_nan=False)

    def save(self, path: str | Path) -> Path:
        """Write the JSON to a file, atomically."""
        with atomic_path(path) as temporary:
            temporary.write_text(self.to_json() + "\n", encoding="utf-8")
        return Path(path)


def evaluate(
    methods: Mapping[str, Method],
    images: ImageFolder | Mapping[str, Tensor],
    *,
    scale: int,
    protocol: Protocol,
    metrics: Sequence[str] = ("psnr", "ssim"),
    steps: int | None = None,
    seed: int = 0,
    tile: int = 512,
    progress: bool = False,
) -> EvaluationTable:
    """Degrade, upscale, and measure every image with every method; bicubic is always in the table.

    Args:
        methods: by the name they have in the table; each of magnification `scale`.
        images: the truth. A folder, or (1, 3, H, W) images in [0, 1] by name.
        scale: magnification.
        protocol: `srbook.metrics.PROTOCOL_A` or `PROTOCOL_B`: what is cropped, rounded, and measured where. Files
            with one gray channel are told to it as such.
        metrics: of "psnr", "ssim", and "lpips" (AlexNet; on the whole 8-bit RGB image that the protocol compares).
        steps: sampling steps of the methods that sample; None takes each method's own.
        seed: a fresh generator with this seed serves every image and method.
        tile: larger images than this are upscaled in tiles of this side (low-resolution pixels).
        progress: show a progress display.

    Returns:
        An `EvaluationTable`.

    Raises:
        ValueError: unknown metric, no images, or a method of another magnification; names the image where one of
            them is the reason.
        FileNotFoundError, ImportError: LPIPS is wanted, and its weights or its package are absent.
    """
    _require_metrics(metrics)
    if len(images) == 0:
        raise ValueError("no images to evaluate on")
    for name, method in methods.items():
        if method.scale != scale:
            raise ValueError(f"{name} magnifies {method.scale} times, so it cannot be evaluated at scale {scale}")
    if not any(isinstance(method, Bicubic) for method in methods.values()):
        methods = {REFERENCE: Bicubic(scale=scale), **methods}
    if "lpips" in metrics:
        lpips(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))  # absent weights should stop us now, not later

    rows = []
    with Progress(len(images) * len(methods), "evaluate", unit="image", enabled=progress) as bar:
        for image, hr, stored_gray in _named(images):
            try:
                require_one_image(hr, "the truth")
                target = protocol.target(hr, scale, stored_gray=stored_gray)
                lr = protocol.degrade(target, scale)
                for name, method in methods.items():
                    started = time.perf_counter()
                    own = steps if isinstance(method, Diffusion) else None
                    sr = upscale_tiled(method, lr, tile=tile, steps=own, generator=_generator(method, seed))
                    seconds = time.perf_counter() - started
                    rows.append(Row(name, image, _measure(sr, target, scale, protocol, metrics), seconds))
                    bar.update()
            except ValueError as error:
                raise ValueError(f"{image}: {error}") from error
    return EvaluationTable(rows, tuple(metrics), scale, protocol)


def _require_metrics(metrics: Sequence[str]) -> None:
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown or not metrics:
        raise ValueError(f"metrics must be some of {', '.join(METRICS)}, got {', '.join(unknown) or 'none'}")


def _named(images: ImageFolder | Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, bool]]:
    """Name, (1, 3, H, W) truth, and whether the file stores one gray channel."""
    if isinstance(images, Mapping):
        yield from ((name, image, False) for name, image in images.items())
        return
    for path, image in zip(images.paths, images, strict=True):
        yield path.stem, image.unsqueeze(0), stores_gray(path)


def stores_gray(path: Path) -> bool:
    """Whether an image file has one gray channel, and not three equal ones."""
    from PIL import Image

    with Image.open(path) as file:
        return file.mode in ("1", "L", "LA", "I", "I;16", "I;16B", "F")


def _generator(method: Method, seed: int) -> torch.Generator:
    device = next((parameter.device for parameter in method.parameters()), torch.device("cpu"))
    return torch.Generator(device).manual_seed(seed)


def _measure(sr: Tensor, target: Tensor, scale: int, protocol: Protocol, metrics: Sequence[str]) -> dict[str, float]:
    scores = protocol.score(sr, target, scale)
    values = {"psnr": scores.psnr.item(), "ssim": scores.ssim.item()}
    if "lpips" in metrics:
        values["lpips"] = lpips(round_to_8bit(sr), target).item()
    return {metric: values[metric] for metric in metrics}


def _shown(metric: str, value: float) -> str:
    return f"{value:.{DECIMALS[metric]}f}"


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    rule = ["-" * width for width in widths]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
        for cells in (head, rule, *rows)
    ]
    return "\n".join(lines)
