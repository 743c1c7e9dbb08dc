"""What the studies share: trainings that resume, measurements that are kept, and a table that says where it is from."""

import json
import sys
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import srbook
from benchmarks.provenance import commit, cpu_model, training_hours
from srbook.data import ImageFolder, PairedPatches, image_files
from srbook.files import atomic_path
from srbook.images import round_to_8bit
from srbook.methods import Method
from srbook.metrics import PROTOCOL_A, lpips
from srbook.progress import Progress
from srbook.training import Trainer, TrainingConfig

ROOT = Path(__file__).resolve().parents[2]
SCALE, PIECE = 4, 128
PIECES: Mapping[str, int | None] = {"Set5": PIECE, "Set14": PIECE}
Figures = dict[str, float]


class Lab:
    """Trains and measures for one study.

    Args:
        name: of the study, and of its stored table.
        data: folders of photographs to train on.
        tests: folder with Set5 and Set14.
        runs: folder of the trainings.
        photos: what `data` holds, in words.
        pieces: the folders in `tests` to measure on, and how large a central square is taken of their images: a sampler
            takes minutes for a whole one on a CPU. None takes the whole.
        most_steps: bound of each training's steps; None for none.
    """

    def __init__(
        self,
        name: str,
        *,
        data: list[Path],
        tests: Path,
        runs: Path,
        photos: str = "",
        pieces: Mapping[str, int | None] = PIECES,
        most_steps: int | None = None,
    ):
        self.name, self.folder, self.photos, self.most_steps = name, runs / name, photos, most_steps
        self.images = ImageFolder.of([path for folder in data for path in image_files(folder)])
        self.sets = {_named(name, side): _pieces(tests / name, side) for name, side in pieces.items()}
        self.about = {_named(name, side): _described(name, side) for name, side in pieces.items()}
        self.trainings: list[dict[str, Any]] = []

    def train(self, name: str, method: Method, config: TrainingConfig, stage: str) -> Method:
        """Train one stage of `method`, or take its result from the folder `name`. The method is then ready to use."""
        if self.most_steps is not None:
            config = config.model_copy(update={"steps": min(config.steps, self.most_steps)})
        config = config.model_copy(update={"save_every": min(config.save_every, 100)})
        batches = PairedPatches(
            self.images,
            scale=method.scale,
            patch_size=config.patch_size,
            batch_size=config.batch_size,
            seed=config.seed,
        )
        print(f"{name}: {config.steps} steps of {stage}", flush=True)
        result = Trainer(method, batches, config, stage=stage, output=self.folder / name).fit()
        if result.interrupted:
            raise SystemExit(130)
        hours = round(training_hours(self.folder / name / "log.jsonl", config.batch_size), 3)
        self.trainings.append({"name": name, "stage": stage, "steps": config.steps, "hours": hours})
        return method

    def measure(self, name: str, of: Callable[[Tensor, Tensor, int], Figures]) -> dict[str, Figures]:
        """Means of the figures of every set; kept in the folder, so that no image is measured twice.

        Args:
            name: of the row.
            of: makes the figures of a truth (1, 3, H, W), its low-resolution image, and a seed.
        """
        path = self.folder / "measured" / f"{name}.json"
        kept = json.loads(path.read_text()) if path.is_file() else {}
        with Progress(sum(map(len, self.sets.values())), f"measure {name}", unit="image") as bar:
            for set_name, truths in self.sets.items():
                for seed, (image, truth) in enumerate(truths.items()):
                    key = f"{set_name}/{image}"
                    if key not in kept:
                        lr = PROTOCOL_A.degrade(truth, SCALE)
                        with torch.no_grad():
                            kept[key] = of(truth, lr, seed)
                        with atomic_path(path) as temporary:
                            temporary.write_text(json.dumps(kept, indent=1) + "\n")
                    bar.update()
        return {
            set_name: {
                figure: sum(kept[f"{set_name}/{image}"][figure] for image in truths) / len(truths)
                for figure in kept[f"{set_name}/{next(iter(truths))}"]
            }
            for set_name, truths in self.sets.items()
        }

    def store(self, table: dict[str, Any], output: Path | None = None) -> Path:
        """Write the table with what it needs to be understood and made again."""
        record = {
            "command": " ".join(["python", "-m", "benchmarks.studies", *_placeholders(sys.argv[1:])]),
            "date": datetime.now(timezone.utc).date().isoformat(),
            "commit": commit(),
            "machine": f"one core of {cpu_model()}",
            "torch": torch.__version__,
            "srbook": srbook.__version__,
            "photos": self.photos,
            "protocol": f"{PROTOCOL_A.name}: {PROTOCOL_A.description}",
            "lpips": "alex",
            "sets": self.about,
            "trainings": self.trainings,
            **table,
        }
        output = output or ROOT / "srbook" / "results" / f"{self.name}.json"
        with atomic_path(output) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        return output


def quality(sr: Tensor, truth: Tensor) -> Figures:
    """PSNR and SSIM by protocol A, LPIPS, and the error of the mean color in levels of 255."""
    scores = PROTOCOL_A.score(sr, truth, SCALE)
    return {
        "psnr": scores.psnr.item(),
        "ssim": scores.ssim.item(),
        "lpips": lpips(round_to_8bit(sr), truth).item(),
        "color": 255 * (sr - truth).mean(dim=(2, 3)).abs().mean().item(),
    }


def _pieces(folder: Path, side: int | None) -> dict[str, Tensor]:
    pieces = {}
    for name, image in ImageFolder(folder).items():
        if side is None:
            pieces[name] = PROTOCOL_A.target(image, SCALE)
            continue
        if min(image.shape[-2:]) < side:
            raise ValueError(f"{name} in {folder} is smaller than {side}x{side}")
        top, left = ((length - side) // 2 for length in image.shape[-2:])
        pieces[name] = image[..., top : top + side, left : left + side]
    return pieces


def _named(name: str, side: int | None) -> str:
    return name if side is None else f"{name}-{side}"


def _described(name: str, side: int | None) -> str:
    return f"{name}'s images" if side is None else f"the central {side}x{side} pixels of {name}'s images"


def _placeholders(arguments: list[str]) -> list[str]:
    """The command without folders of this machine."""
    names = {"--data": ["--data", "PHOTOS"], "--tests": ["--tests", "SETS"]}
    shown, skipping = [], False
    for argument in arguments:
        if argument.startswith("--"):
            skipping = argument in (*names, "--photos", "--runs", "--output")
            shown += names.get(argument, [] if skipping else [argument])
        elif not skipping:
            shown.append(argument)
    return shown
