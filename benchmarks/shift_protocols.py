"""The small models that shift the residual, by the standard protocol and by that of DeltaDiff's published pictures.

    SRBOOK_WEIGHTS=WEIGHTS python -m benchmarks.shift_protocols --tests SETS --photos BSDS500_test

Writes srbook/results/shift_protocols.json, which the chapter on DeltaDiff reads. SETS holds Set5 and Set14. Every image
is kept below --runs once it is measured, and the same command goes on.

* standard: protocol A, and LPIPS over RGB.
* squashed: the truth is brought to 256x256 by cubic interpolation with a = -0.75 and without antialiasing, whatever its
  shape. No border is left out, and the output is rounded.
* stretched: the same, but truth and output are each stretched from their least value to their greatest one before they
  are compared, as the saved pictures were.
"""

import argparse
import json
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

import srbook
from benchmarks.provenance import commit, cpu_model
from srbook.data import ImageFolder
from srbook.files import atomic_path
from srbook.images import round_to_8bit
from srbook.methods import Method
from srbook.metrics import PROTOCOL_A, lpips, psnr, ssim
from srbook.progress import Progress

OUTPUT = Path(__file__).resolve().parents[1] / "srbook" / "results" / "shift_protocols.json"
# by name, and how many steps to take where it is not the method's own number
METHODS: dict[str, tuple[str, int | None]] = {
    "bicubic": ("bicubic", None),
    "rrdb-small": ("rrdb-small", None),
    "resshift-small": ("resshift-small", None),
    "resshift-small, one step": ("resshift-small", 1),
    "deltadiff-small": ("deltadiff-small", None),
    "deltadiff-small, one step": ("deltadiff-small", 1),
}
SIDE, SCALE, PHOTOS = 256, 4, 60
Row = dict[str, Any]


def squashed(image: Tensor) -> Tensor:
    """(1, 3, H, W) in [0, 1] to (1, 3, 256, 256), 8 bits, as OpenCV's INTER_CUBIC does."""
    return round_to_8bit(interpolate(image, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1))


def stretched(image: Tensor) -> Tensor:
    """From the least value of the image to the greatest, 8 bits."""
    return round_to_8bit((image - image.min()) / (image.max() - image.min()))


def standard_row(method: Method, steps: int | None, image: Tensor, seed: int) -> Row:
    truth = PROTOCOL_A.target(image, SCALE)
    sr = PROTOCOL_A.output(upscaled(method, steps, truth, seed))
    scores = PROTOCOL_A.score(sr, truth, SCALE)
    return {"standard": {"psnr": scores.psnr.item(), "ssim": scores.ssim.item(), "lpips": lpips(sr, truth).item()}}


def squashed_rows(method: Method, steps: int | None, image: Tensor, seed: int) -> Row:
    truth = squashed(image)
    sr = round_to_8bit(upscaled(method, steps, truth, seed))
    return {"squashed": whole(sr, truth), "stretched": whole(stretched(sr), stretched(truth))}


def whole(sr: Tensor, truth: Tensor) -> Row:
    """PSNR and SSIM on Y, and LPIPS over RGB, without a border."""
    values = {"psnr": psnr(sr, truth, channel="y"), "ssim": ssim(sr, truth, channel="y"), "lpips": lpips(sr, truth)}
    return {name: value.item() for name, value in values.items()}


@torch.no_grad()
def upscaled(method: Method, steps: int | None, truth: Tensor, seed: int) -> Tensor:
    lr = PROTOCOL_A.degrade(truth, SCALE)
    return method.upscale(lr, steps=steps, generator=torch.Generator().manual_seed(seed)).image.clamp(0, 1)


def measure(kept: Path, name: str, images: Iterable[tuple[str, Tensor]], how: Any) -> dict[str, Row]:
    """The means of every protocol that `how` knows, over images that were measured now or before."""
    found: dict[str, Row] = json.loads(kept.read_text()) if kept.is_file() else {}
    (preset, steps), images = METHODS[name], list(images)
    method = srbook.load(preset)
    with Progress(len(images), f"{kept.stem}", unit="image") as bar:
        for seed, (image, pixels) in enumerate(images):
            if image not in found:
                found[image] = how(method, steps, pixels, seed)
                with atomic_path(kept) as temporary:
                    temporary.write_text(json.dumps(found, indent=1) + "\n")
            bar.update()
    rows = list(found.values())
    return {
        protocol: {metric: sum(row[protocol][metric] for row in rows) / len(rows) for metric in rows[0][protocol]}
        for protocol in rows[0]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=Path, required=True, help="folder with Set5 and Set14")
    parser.add_argument("--photos", type=Path, required=True, help="BSDS500's test photographs, for bicubic")
    parser.add_argument("--runs", type=Path, default=Path("runs/shift_protocols"), help="where measurements are kept")
    arguments = parser.parse_args()

    def rows(names: Iterable[str], folder: str, images: list[tuple[str, Tensor]], how: Any) -> list[Row]:
        table = []
        for name in names:
            kept = arguments.runs / f"{name.replace(', ', '-').replace(' ', '-')}-{folder}-{how.__name__}.json"
            means = measure(kept, name, images, how)
            table += [{"method": name, "protocol": protocol, **values} for protocol, values in means.items()]
        return table

    sets = {name: opened(arguments.tests / name) for name in ("Set5", "Set14")}
    result = {
        "command": "python -m benchmarks.shift_protocols --tests SETS --photos BSDS500_test",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": commit(),
        "machine": f"one core of {cpu_model()}",
        "torch": torch.__version__,
        "srbook": srbook.__version__,
        "protocols": {
            "standard": f"{PROTOCOL_A.description}; LPIPS-Alex over RGB",
            "squashed": "truth brought to 256x256 by cubic interpolation (a = -0.75) without antialiasing; LR by "
            "MATLAB's bicubic, 8 bits; PSNR and SSIM on Y, LPIPS-Alex over RGB, no border",
            "stretched": "as squashed, but truth and output each stretched from their least to their greatest value",
        },
        "set5": rows(METHODS, "Set5", sets["Set5"], standard_row),
        "rows": rows(METHODS, "Set14", sets["Set14"], standard_row)
        + rows(METHODS, "Set14", sets["Set14"], squashed_rows),
        "photographs": {
            "what": f"the first {PHOTOS} of BSDS500's test photographs, bicubic",
            "rows": rows(["bicubic"], "BSDS500", opened(arguments.photos)[:PHOTOS], squashed_rows),
        },
    }
    with atomic_path(OUTPUT) as path:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {OUTPUT}")


def opened(folder: Path) -> list[tuple[str, Tensor]]:
    return [(name, image if image.ndim == 4 else image[None]) for name, image in ImageFolder(folder).items()]


if __name__ == "__main__":
    main()
