"""Entropy of the images of Set5 and Set14 and of their x4 residuals, by several ways of counting.

Writes srbook/results/entropy.json, which the chapter reads. Needs the folder of Set5 and Set14:

    python -m benchmarks.entropy_table --data FOLDER

LR and upscaled images are rounded to 8 bits, as protocol A says, and whole levels are counted.
"""

import argparse
import json
import platform
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

import srbook
from srbook.data import image_files, read_image
from srbook.files import atomic_path
from srbook.images import luma, round_to_8bit
from srbook.metrics import PROTOCOL_A, image_entropy, residual_entropy, shannon_entropy

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "srbook" / "results" / "entropy.json"
SCALE = 4
WIDTHS = (1, 2, 4, 8, 16, 32)  # levels to a bin
CHANNELS = ("y", "rgb", "pooled")


def levels(image: Tensor) -> Tensor:
    """Whole levels of Y, as `srbook.metrics.image_entropy` counts them."""
    return torch.floor(luma(round_to_8bit(image.double())) * 255 + 0.5)


def bits(whole: Tensor, width: int = 1) -> float:
    """Entropy of whole levels from -256 to 255 in bins of `width` levels, one edge at zero."""
    return shannon_entropy(whole.reshape(1, -1) + 0.5, bins=512 // width, low=-256, high=256).item()


def measure(hr: Tensor, upscaled: dict[str, Tensor]) -> dict:
    """Every way of counting for one image: of the image itself, and of what each upscaled one leaves."""
    y = levels(hr)
    row = {
        "pixels": hr.shape[-2] * hr.shape[-1],
        "levels": len(y.unique()),
        "std": y.std().item(),
        "image": {channel: image_entropy(hr, channel=channel).item() for channel in CHANNELS},
        "image_block8": image_entropy(hr, channel="y", block=8).item(),
        "image_widths": [bits(y, width) for width in WIDTHS],
        "neighbor": bits(y[..., 1:] - y[..., :-1]),
    }
    for name, image in upscaled.items():
        difference = y - levels(image)
        row[name] = {channel: residual_entropy(hr, image, channel=channel).item() for channel in CHANNELS}
        row[f"{name}_block8"] = residual_entropy(hr, image, channel="y", block=8).item()
        row[f"{name}_widths"] = [bits(difference, width) for width in WIDTHS]
        row[f"{name}_absolute"] = bits(difference.abs())
        row[f"{name}_std"] = difference.std().item()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds Set5 and Set14")
    data = parser.parse_args().data
    upscalers = {"bicubic": srbook.load("bicubic"), "cnn": srbook.load("rrdb-small")}
    sets = {}
    for name in ("Set5", "Set14"):
        for path in image_files(data / name):
            whole = read_image(path).unsqueeze(0)
            square = interpolate(whole, (256, 256), mode="bicubic", antialias=False).clamp(0, 1)
            for kind, image in (("whole", whole), ("squashed", square)):
                hr = PROTOCOL_A.target(image, SCALE)
                lr = PROTOCOL_A.degrade(hr, SCALE)
                upscaled = {key: method.upscale(lr).image.clamp(0, 1) for key, method in upscalers.items()}
                sets.setdefault(name, {}).setdefault(kind, {})[path.stem] = measure(hr, upscaled)
    result = {
        "command": "python -m benchmarks.entropy_table --data FOLDER",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, CPU",
        "scale": SCALE,
        "cnn": "rrdb-small",
        "widths": WIDTHS,
        "squashed": "to 256 x 256 by torch's bicubic interpolation without antialiasing, before everything else",
        "sets": sets,
    }
    with atomic_path(OUTPUT) as path:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {OUTPUT.relative_to(ROOT)}")
    for name, kinds in sets.items():
        for kind, rows in kinds.items():
            for key in ("bicubic", "cnn"):
                cut = torch.tensor([100 * (1 - row[key]["y"] / row["image"]["y"]) for row in rows.values()])
                print(f"{name} {kind} {key}: {cut.mean():.1f} +- {cut.std():.1f} % below the image")


if __name__ == "__main__":
    main()
