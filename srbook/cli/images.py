"""Collections of images as the command line names them: a folder, a set of the catalog, or `samples`."""

from pathlib import Path

from torch import Tensor

from srbook.data import ImageFolder, catalog, held_out_samples, image_classes, training_samples
from srbook.images import crop_to_multiple

SAMPLES = "samples"
VALIDATION_IMAGES = 5


def open_training_images(data: str) -> ImageFolder:
    """What `--data` names for training; FileNotFoundError if it is neither a folder nor a set that is there."""
    return training_samples() if data == SAMPLES else _open(data)


def open_training_classes(data: str) -> dict[str, list[Path]]:
    """What `--data` names for training a classifier; of a set, and of the samples, each picture is a class."""
    if data != SAMPLES and Path(data).is_dir():
        return image_classes(data)
    images = open_training_images(data)
    return {name: [path] for name, path in zip(images.names, images.paths, strict=True)}


def open_test_images(data: str) -> ImageFolder:
    """What `--data` names for measuring: `samples` are those held out from training. Raises the same."""
    return held_out_samples() if data == SAMPLES else _open(data)


def open_validation_images(validation: str | None, data: str, scale: int) -> dict[str, Tensor]:
    """A few images to watch a training on, by name: none unless asked for, or trained on the samples."""
    if validation is None and data != SAMPLES:
        return {}
    images = open_test_images(validation or SAMPLES)
    return {
        name: crop_to_multiple(images[index].unsqueeze(0), scale)
        for index, name in enumerate(images.names[:VALIDATION_IMAGES])
    }


def _open(data: str) -> ImageFolder:
    if Path(data).is_dir():
        return ImageFolder(data)
    known = catalog.sets()
    if data.lower() in map(str.lower, known):
        return catalog.find(data)
    raise FileNotFoundError(f"{data!r} is neither a folder nor a set; sets are {SAMPLES}, {', '.join(known)}")
