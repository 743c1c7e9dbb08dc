"""Tables of quality: methods against images, under one named protocol."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

import srbook
from srbook.arguments import require_counts, require_instance, require_integer
from srbook.data import ImageFolder
from srbook.degradations import Bicubic, Degradation
from srbook.files import atomic_path
from srbook.images import require_one_image, round_to_8bit
from srbook.methods import METHODS, Method
from srbook.methods.base import Upscaler
from srbook.metrics import METRICS, Protocol, chosen_metrics
from srbook.names import printable
from srbook.progress import Progress
from srbook.random import keyed
from srbook.tiling import upscale_tiled

REFERENCE = "bicubic"  # the method that every table has


@dataclass(frozen=True)
class Row:
    """One method's result on one image: the value of each metric per image, and the seconds that upscaling took."""

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
        protocol: under which the numbers were made; numbers of two protocols do not compare.
        degradation: how the images were shrunk; None is the protocol's own way.
        of_sets: the value of each metric per set, by method and metric.
    """

    rows: list[Row]
    metrics: tuple[str, ...]
    scale: int
    protocol: Protocol
    degradation: Degradation | None = None
    of_sets: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """Names of the methods, in the order of evaluation."""
        return list(dict.fromkeys(row.method for row in self.rows))

    def mean(self, method: str, metric: str) -> float:
        """A metric's mean over the images, as papers quote it: of the decibels, not of the errors.

        For a metric per set, it is the value of the set. A method or metric that the table lacks is a ValueError.
        """
        if method not in self.methods or metric not in self.metrics:
            raise ValueError(
                f"no {metric!r} of {method!r} here; methods: {', '.join(self.methods)}; "
                f"metrics: {', '.join(self.metrics)}"
            )
        if METRICS[metric].per == "set":
            return self.of_sets[method][metric]
        values = [row.values[metric] for row in self.rows if row.method == method]
        return sum(values) / len(values)

    def to_markdown(self, per_image: bool = True) -> str:
        """A Markdown table of the means, one of all images if wanted, and a line that names the protocol."""
        columns = [METRICS[metric] for metric in self.metrics]
        means = [
            [method, *(metric.shown(self.mean(method, metric.name)) for metric in columns)] for method in self.methods
        ]
        count = len(self.rows) // len(self.methods)
        caption = (
            f"Mean of {count} image{'s' if count > 1 else ''}, x{self.scale}, protocol {self.protocol.name}: "
            f"{self.protocol.description}."
        )
        if self.degradation is not None:
            caption += f" Shrunk by another degradation than the protocol's: {self.degradation.description}."
        parts = [_markdown(["method", *(metric.title for metric in columns)], means), caption]
        columns = [metric for metric in columns if metric.per == "image"]
        if per_image and columns:
            rows = [
                [row.image, row.method, *(metric.shown(row.values[metric.name]) for metric in columns)]
                for row in sorted(self.rows, key=lambda row: row.image)  # stable: keeps the order of the methods
            ]
            parts.append(_markdown(["image", "method", *(metric.title for metric in columns)], rows))
        return "\n\n".join(parts)

    def to_json(self) -> str:
        """Everything in the table as JSON. The infinite PSNR of identical images becomes null."""

        def finite(values: dict[str, float]) -> dict[str, float | None]:
            return {name: value if math.isfinite(value) else None for name, value in values.items()}

        content = {
            "scale": self.scale,
            "protocol": {"name": self.protocol.name, "description": self.protocol.description},
            "degradation": None if self.degradation is None else self.degradation.description,
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
    degradation: Degradation | None = None,
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
        protocol: `srbook.metrics.PROTOCOL_A` or `PROTOCOL_B`: what is cropped, rounded, and measured where. Files with
            one gray channel are told to it as such.
        degradation: how the images are shrunk; None is the protocol's own way. The caption names another.
        metrics: keys of `srbook.metrics.METRICS`. Those per set keep all images in memory, with 8 bits.
        steps: sampling steps of the methods that sample; None takes each method's own.
        seed: a fresh generator with this seed serves every image and method. What a random degradation draws depends on
            the seed and on the image's number.
        tile: larger images than this are upscaled in tiles of this side (low-resolution pixels).

    Raises:
        ValueError: unknown metric, no images, a method or degradation of another magnification, or a degradation that
            the protocol does not measure; names the image where one is the reason.
        FileNotFoundError, ImportError: the weights or the package of a metric are absent.
    """
    for argument, value, kind in (("methods", methods, Mapping), ("images", images, ImageFolder | Mapping)):
        require_instance(argument, value, kind)
    for name, method in methods.items():
        require_instance(f"the method {name!r}", method, Upscaler, "srbook.load(name) makes it")
    require_instance("protocol", protocol, Protocol, "such as srbook.metrics.PROTOCOL_A")
    require_counts(scale=scale, tile=tile)
    require_integer("seed", seed, 0)
    chosen = chosen_metrics(metrics)
    if len(images) == 0:
        raise ValueError("no images to evaluate on")
    for name, method in methods.items():
        if method.scale != scale:
            raise ValueError(f"{name} magnifies {method.scale} times, so it cannot be evaluated at scale {scale}")
    if methods.get(REFERENCE) is not None and methods[REFERENCE].kind != REFERENCE:
        raise ValueError(
            f"{REFERENCE!r} is the reference's row of the table; give the {methods[REFERENCE].kind} a name"
        )
    if not any(method.kind == REFERENCE for method in methods.values()):
        methods = {REFERENCE: METHODS[REFERENCE](scale=scale), **methods}
    if degradation is not None:
        protocol.require_degradation(degradation, scale)
    if degradation == Bicubic(scale):
        degradation = None
    how = {"channel": protocol.channel, "border": scale}
    of_image, of_set = ([metric for metric in chosen if metric.per == per] for per in ("image", "set"))

    rows, kept = [], {name: _Kept() for name in methods}
    truths = _Kept()
    with Progress(len(images) * len(methods), "evaluate", unit="image", enabled=progress) as bar:
        for number, (image, hr, stored_gray) in enumerate(_named(images)):
            try:
                require_one_image(hr, "the truth")
                target = protocol.target(hr, scale, stored_gray=stored_gray)
                lr = protocol.degrade(target, scale, degradation, keyed(seed, number))
                for name, method in methods.items():
                    started = time.perf_counter()
                    own = steps if method.samples else None
                    sr = upscale_tiled(method, lr, tile=tile, steps=own, generator=_generator(method, seed))
                    seconds = time.perf_counter() - started
                    sr = protocol.output(sr)
                    values = {metric.name: metric(sr, target, **how) for metric in of_image}
                    rows.append(Row(name, image, values, seconds))
                    if of_set:
                        kept[name].add(sr)
                    bar.update()
                if of_set:
                    truths.add(target)
            except ValueError as error:
                raise ValueError(f"{image}: {error}") from error
    of_sets = {name: {metric.name: metric(kept[name], truths, **how) for metric in of_set} for name in methods}
    return EvaluationTable(rows, tuple(metrics), scale, protocol, degradation, of_sets if of_set else {})


class _Kept(Sequence[Tensor]):
    """Images (1, 3, H, W) in [0, 1], kept with 8 bits per value."""

    def __init__(self) -> None:
        self._images: list[Tensor] = []

    def add(self, image: Tensor) -> None:
        self._images.append((255 * round_to_8bit(image)).round().byte().cpu())

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        return self._images[index].float().div(255)


def _named(images: ImageFolder | Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, bool]]:
    """Name, (1, 3, H, W) truth, and whether the file stores one gray channel."""
    if isinstance(images, Mapping):
        yield from ((name, image, False) for name, image in images.items())
        return
    for path, (name, image) in zip(images.paths, images.items(), strict=True):
        yield name, image, stores_gray(path)


def stores_gray(path: Path) -> bool:
    """Whether an image file has one gray channel, and not three equal ones."""
    from PIL import Image

    with Image.open(path) as file:
        return file.mode in ("1", "L", "LA", "I", "I;16", "I;16B", "F")


def _generator(method: Method, seed: int) -> torch.Generator:
    device = next((parameter.device for parameter in method.parameters()), torch.device("cpu"))
    return torch.Generator(device).manual_seed(seed)


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    head, *rows = ([printable(cell).replace("|", "\\|") for cell in cells] for cells in (head, *rows))
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    rule = ["-" * width for width in widths]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
        for cells in (head, rule, *rows)
    ]
    return "\n".join(lines)
