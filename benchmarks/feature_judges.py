"""What the networks that judge images weigh, and whether they prefer a blend to a sharp guess.

Writes srbook/results/feature_judges.json, which the chapter on HF-Diff reads beside what it measures of the invertible
network. Needs the weights of AlexNet and SqueezeNet (srbook.backbones says where they come from):

    python -m benchmarks.feature_judges

Both measurements are those of the chapter: noise of one ring of frequencies at a time, and the expected distance of a
draw over that of the blend, where a crop and its shifts by one pixel to both sides are equally likely.
"""

import json
import platform
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srbook.data import held_out_samples
from srbook.files import atomic_path
from srbook.losses.embeddings import embedding
from srbook.losses.features import alexnet_features
from srbook.metrics import lpips

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "srbook" / "results" / "feature_judges.json"
SIDE, EACH, RINGS, SIZE = 96, 5, 8, 0.01
Distance = Callable[[Tensor, Tensor], Tensor]


def squared(features: Callable[[Tensor], Tensor]) -> Distance:
    """The distance of features, summed over the images."""
    return lambda a, b: (features(a) - features(b)).square().sum()


JUDGES: dict[str, Distance] = {
    "pixels": squared(lambda image: image),
    "AlexNet's features": squared(alexnet_features),
    "AlexNet's embedding": squared(lambda image: embedding("alexnet")(image)),
    "LPIPS (AlexNet)": lambda a, b: lpips(a, b, net="alex").sum(),
    "LPIPS (SqueezeNet)": lambda a, b: lpips(a, b, net="squeeze").sum(),
}


def crops(side: int) -> Tensor:
    """Crops from left to right of each held-out photograph."""
    found = []
    for _, image in held_out_samples().items():
        top, stride = image.shape[-2] // 4 // 4 * 4, image.shape[-1] // (EACH + 3)
        lefts = [left // 4 * 4 for left in range(stride, (EACH + 1) * stride, stride)]
        found += [image[..., top : top + side, left : left + side] for left in lefts]
    return torch.cat(found)


def draw_over_blend(distance: Distance, shifted: list[Tensor]) -> float:
    """Expected distance of a draw over that of the blend."""
    blend = torch.stack(shifted).mean(dim=0)
    draw = sum(distance(a, b) for a in shifted for b in shifted) / len(shifted) ** 2
    return float(draw / (sum(distance(blend, a) for a in shifted) / len(shifted)))


def weights(distance: Distance, image: Tensor) -> list[float]:
    """Distance over squared distance of pixels for noise of each ring, over the mean of the rings."""
    generator, found = torch.Generator().manual_seed(1), []
    frequencies = torch.fft.fftfreq(image.shape[-1])
    radius = torch.hypot(frequencies[:, None], frequencies[None])
    for ring in range(RINGS):
        inside = (radius >= 0.5 * ring / RINGS) & (radius < 0.5 * (ring + 1) / RINGS)
        noise = torch.fft.ifft2(torch.fft.fft2(torch.randn(image.shape, generator=generator)) * inside).real
        noise = SIZE * noise / noise.square().mean().sqrt()
        found.append(float(distance(image + noise, image) / noise.square().sum()))
    return [value * RINGS / sum(found) for value in found]


@torch.no_grad()
def measured() -> dict[str, dict[str, Any]]:
    """Both measurements of all judges."""
    wide, image = crops(SIDE + 2), 0.1 + 0.8 * crops(SIDE)  # LPIPS takes nothing outside [0, 1]
    shifted = [wide[..., 1 : SIDE + 1, 1 + k : SIDE + 1 + k] for k in (-1, 0, 1)]
    return {
        name: {"draw_over_blend": draw_over_blend(judge, shifted), "weights": weights(judge, image)}
        for name, judge in JUDGES.items()
    }


def main() -> None:
    result = {
        "command": "python -m benchmarks.feature_judges",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, CPU",
        "images": f"{EACH} crops of {SIDE}x{SIDE} pixels of each held-out photograph",
        "rings": [(ring + 0.5) * 0.5 / RINGS for ring in range(RINGS)],
        "judges": measured(),
    }
    with atomic_path(OUTPUT) as path:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {OUTPUT.relative_to(ROOT)}")
    for name, found in result["judges"].items():
        print(f"{name}: {found['draw_over_blend']:.2f}; {', '.join(f'{value:.2f}' for value in found['weights'])}")


if __name__ == "__main__":
    main()
