"""Bicubic x4 under the protocols of chapter 1, and LPIPS of its five equally wrong pictures.

Writes srbook/results/protocols.json, which the chapter reads. Needs the folder of Set5 and Set14, and AlexNet's
weights for LPIPS (see `srbook doctor`):

    SRBOOK_WEIGHTS=WEIGHTS python benchmarks/protocols.py --data FOLDER
"""

import argparse
import json
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from srbook.data import image_files, read_image, sample
from srbook.degradations import bicubic_upsample
from srbook.files import atomic_path
from srbook.metrics import PROTOCOL_A, PROTOCOL_B, Protocol, lpips, psnr, ssim
from srbook.study.distort import DISTORTIONS, match_psnr

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "srbook" / "results" / "protocols.json"
SCALE = 4
DECIBELS = 26.0
TOP, BOTTOM, LEFT, RIGHT = CROP = [30, 270, 64, 384]  # of the sample photograph "chelsea"


def upscale(lr: Tensor) -> Tensor:
    return bicubic_upsample(lr, SCALE).clamp(0, 1)


def measure(folder: Path, protocol: Protocol, *, keep_gray: bool) -> dict[str, Any]:
    """PSNR and SSIM of bicubic interpolation: each image, and the means."""
    rows = {}
    for path in image_files(folder):
        with Image.open(path) as file:
            stored_gray = keep_gray and file.mode == "L"
        hr = read_image(path).unsqueeze(0)
        scores = protocol.evaluate(upscale, hr, SCALE, stored_gray=stored_gray)
        rows[path.stem] = {"psnr": scores.psnr.item(), "ssim": scores.ssim.item()}
    means = {metric: sum(row[metric] for row in rows.values()) / len(rows) for metric in ("psnr", "ssim")}
    return {**means, "images": rows}


def distorted() -> list[dict[str, Any]]:
    """The five pictures of the chapter, with the value that needs downloaded weights."""
    truth = sample("chelsea")[..., TOP:BOTTOM, LEFT:RIGHT]
    results = []
    for name in DISTORTIONS:
        image, amount = match_psnr(truth, name, DECIBELS)
        scores = {"psnr": psnr(image, truth, channel="y"), "ssim": ssim(image, truth, channel="y")}
        scores["lpips"] = lpips(image, truth)
        results.append({"name": name, "amount": amount, **{key: value.item() for key, value in scores.items()}})
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds Set5 and Set14")
    data = parser.parse_args().data
    columns = {
        "A": (PROTOCOL_A, True),
        "B, bridge grey": (PROTOCOL_B, True),
        "B, bridge as RGB": (PROTOCOL_B, False),
    }
    result = {
        "command": "python benchmarks/protocols.py --data FOLDER",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, CPU",
        "scale": SCALE,
        "protocols": {protocol.name: protocol.description for protocol in (PROTOCOL_A, PROTOCOL_B)},
        "set5": {p.name: measure(data / "Set5", p, keep_gray=True) for p in (PROTOCOL_A, PROTOCOL_B)},
        "set14": {key: measure(data / "Set14", protocol, keep_gray=gray) for key, (protocol, gray) in columns.items()},
        "decibels": DECIBELS,
        "crop": CROP,
        "distortions": distorted(),
    }
    with atomic_path(OUTPUT) as path:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {OUTPUT.relative_to(ROOT)}")
    for key, value in result["set14"].items():
        print(f"Set14 {key}: {value['psnr']:.4f} / {value['ssim']:.4f}")


if __name__ == "__main__":
    main()
