"""Put a trained network into the package, with its recipe and its measured quality beside it.

    srbook train --preset rrdb-small --data PHOTOS --output runs/rrdb-small
    python -m tools.ship runs/rrdb-small --name rrdb-small --photos "..." --tests SETS

SETS is a folder with Set5 and Set14 inside; a sampler takes long on Set14, and may be measured with --sets Set5. The
numbers follow protocol A, with LPIPS beside; of a codec, whose magnification is 1, they are those of its
reconstructions. Weights are stored in half precision, and measured as stored.
"""

import argparse
import json
import math
import os
from datetime import date
from pathlib import Path

import torch

import srbook
from benchmarks.provenance import cpu_model, training_hours
from srbook.codecs import CODECS
from srbook.data import ImageFolder
from srbook.evaluation import evaluate
from srbook.files import atomic_path
from srbook.images import round_to_8bit
from srbook.metrics import PROTOCOL_A, lpips, psnr
from srbook.training.checkpoint import latest_checkpoint, load_checkpoint

METRICS = ("psnr", "ssim", "lpips")
EXTRACTOR = "share of the training's patches in the last log record that were given to their photograph, of classes"
CODEC = "reconstruction rounded to 8 bits; PSNR over RGB (psnr_rgb) and on Y (psnr), LPIPS-Alex over RGB; no border"


def measure(method: srbook.methods.Method, name: str, folder: Path, steps: int | None) -> dict:
    """One row: the means of the method and of bicubic on one set."""
    table = evaluate(
        {name: method}, ImageFolder(folder), scale=method.scale, protocol=PROTOCOL_A, metrics=METRICS, steps=steps
    )
    row = {"set": folder.name, "images": len(table.rows) // 2}
    for metric in METRICS:
        row[metric] = table.mean(name, metric)
        row[f"bicubic_{metric}"] = table.mean("bicubic", metric)
    return row


def measure_codec(codec: torch.nn.Module, folder: Path) -> dict:
    """One row: the means over the reconstructions of one set."""
    images = [image.unsqueeze(0) for image in ImageFolder(folder)]
    found = [round_to_8bit(codec.upscale(image).image) for image in images]
    figures = {
        "psnr_rgb": [psnr(sr, hr, channel="rgb") for sr, hr in zip(found, images, strict=True)],
        "psnr": [psnr(sr, hr, channel="y") for sr, hr in zip(found, images, strict=True)],
        "lpips": [lpips(sr, hr) for sr, hr in zip(found, images, strict=True)],
    }
    means = {name: float(torch.cat(values).double().mean()) for name, values in figures.items()}
    return {"set": folder.name, "images": len(images), **means}


def learned(run: Path) -> dict:
    """What a classifier had learned when its training ended."""
    record = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    classes = srbook.load(run / "weights.safetensors").arguments["classes"]
    return {"set": "training patches", "classes": classes, "accuracy": record["accuracy"]}


def noted(config: dict) -> dict:
    """Settings of a training as JSON holds them: no limit is null."""
    return {name: None if value == math.inf else value for name, value in config.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder that srbook train wrote")
    parser.add_argument("--name", required=True, help="preset it was trained from")
    parser.add_argument("--photos", required=True, help="what it was trained on, in words")
    parser.add_argument("--tests", required=True, type=Path, help="folder with Set5 and Set14")
    parser.add_argument("--sets", nargs="+", default=["Set5", "Set14"], help="sets to measure on")
    parser.add_argument("--steps", type=int, help="sampling steps of the measurement; the method's own if left out")
    parser.add_argument("--remark", help="what else a reader of the recipe must know")
    parser.add_argument("--machine", default=f"one core of {cpu_model()} with bfloat16 units")
    arguments = parser.parse_args()

    method = srbook.load(arguments.run / "weights.safetensors")
    expected = srbook.build(arguments.name).arguments
    if method.arguments != expected:
        raise SystemExit(f"the run trained {method.arguments}, not {arguments.name}: {expected}")
    extractor, codec = method.kind == "extractor", method.kind in CODECS
    *earlier, last = method.stage_names()
    runs = {stage: arguments.run / stage for stage in earlier} | {last: arguments.run}
    states = {stage: load_checkpoint(latest_checkpoint(run)) for stage, run in runs.items()}
    state = states[last]
    folder = Path(os.fspath(srbook.__file__)).parent / "weights"
    shipped = srbook.load(method.half().save(folder / f"{arguments.name}.safetensors"))
    quality = (
        []
        if extractor
        else [
            measure_codec(shipped, folder) if codec else measure(shipped, arguments.name, folder, arguments.steps)
            for folder in (arguments.tests / name for name in arguments.sets)
        ]
    )
    recipe = {
        "preset": arguments.name,
        "parameters": sum(parameter.numel() for parameter in method.parameters()),
        "photos": arguments.photos,
        "training": noted(state.config),
        "steps": state.step,
        "earlier_stages": {stage: noted(states[stage].config) for stage in earlier},
        "hours": round(
            sum(training_hours(run / "log.jsonl", states[stage].config["batch_size"]) for stage, run in runs.items()), 2
        ),
        "machine": arguments.machine,
        "date": date.today().isoformat(),
        "versions": {"srbook": srbook.__version__, "torch": torch.__version__},
        "command": f"srbook train --preset {arguments.name} --data PHOTOS",
        "protocol": EXTRACTOR
        if extractor
        else CODEC
        if codec
        else f"{PROTOCOL_A.name}: {PROTOCOL_A.description}; LPIPS-Alex over RGB",
        "sampling_steps": arguments.steps,
        "quality": [learned(arguments.run)] if extractor else quality,
    }
    if arguments.remark:
        recipe["remark"] = arguments.remark
    with atomic_path(folder / f"{arguments.name}.json") as temporary:
        temporary.write_text(json.dumps(recipe, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print(json.dumps(recipe["quality"], indent=2))


if __name__ == "__main__":
    main()
