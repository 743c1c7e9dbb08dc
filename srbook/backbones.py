"""Pretrained convolutional features of ImageNet classifiers, and where their weights are looked for.

A backbone is named as in torchvision: "alexnet", "vgg16", "vgg19", or "squeezenet1_1". Only its convolutions are used,
the arrays that torchvision calls `features.0.weight`, `features.0.bias`, and so on. They are looked for

1. in the folder that the environment variable `SRBOOK_WEIGHTS` names, as `<backbone>_features.safetensors`
   or `<backbone>_features.npz`, with exactly these array names (others are ignored);
2. in torch hub's cache (`$TORCH_HOME/hub/checkpoints`), as torchvision's own `.pth` file. If it is not there,
   torch hub downloads it and shows a progress bar.

To turn arrays from an `.npz` file into a checked safetensors file:

    python -m srbook.backbones alexnet alexnet_features.npz weights/alexnet_features.safetensors
"""

import argparse
import os
import zlib
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from srbook.files import load_tensors, save_tensors
from srbook.torchvision_compat import import_torchvision

BACKBONES = ("alexnet", "vgg16", "vgg19", "squeezenet1_1")


def backbone_weights(name: str) -> dict[str, Tensor]:
    """The pretrained weights of a backbone of `BACKBONES`, on the CPU, by torchvision's names and with checked shapes.

    Raises:
        ValueError: an unknown backbone, or a file that is damaged or holds other arrays.
        FileNotFoundError: no weights on this machine and none to be had by download; says what goes where.
        ImportError: torchvision is missing.
    """
    _require_known(name)
    path = _local_file(name)
    if path is not None:
        return _checked(name, _read_arrays(path), path)
    return _from_torch_hub(name)


def convert_backbone(name: str, source: str | Path, target: str | Path) -> Path:
    """Write the arrays of an `.npz` (or safetensors) file as a safetensors file that `backbone_weights` reads.

    Args:
        name: which backbone the arrays belong to.
        source: the file to read; array names as in torchvision, `features.0.weight` and so on.
        target: the file to write, `<name>_features.safetensors` in the folder that `SRBOOK_WEIGHTS` names.

    Raises:
        ValueError: an unknown backbone, a target of another name, or a source without these arrays.
        FileNotFoundError: there is no such source.
    """
    _require_known(name)
    source, target = Path(source), Path(target)
    if target.name != f"{name}_features.safetensors":
        raise ValueError(f"the file must be called {name}_features.safetensors to be found, got {target.name}")
    tensors = _checked(name, _read_arrays(source), source)
    return save_tensors(target, tensors, {"format": "srbook-backbone-1", "backbone": name})


def _require_known(name: str) -> None:
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}; use one of {', '.join(BACKBONES)}")


def _local_file(name: str) -> Path | None:
    setting = os.environ.get("SRBOOK_WEIGHTS")
    if not setting:
        return None
    folder = Path(setting).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"SRBOOK_WEIGHTS names {folder}, which is not a folder; create it or unset it")
    candidates = [folder / f"{name}_features{suffix}" for suffix in (".safetensors", ".npz")]
    return next((path for path in candidates if path.is_file()), None)


def _read_arrays(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".npz":
        return load_tensors(path)[0]
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    except (BadZipFile, zlib.error, ValueError, TypeError, EOFError) as error:
        raise ValueError(f"{path} is not a readable .npz file of plain arrays ({error})") from error


def _checked(name: str, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    import_torchvision()
    from torchvision import models

    with torch.device("meta"):  # names and shapes without memory, and without touching the random state
        architecture = models.get_model(name, weights=None).features.state_dict()
    expected = {f"features.{key}": value.shape for key, value in architecture.items()}
    wrong = [key for key, shape in expected.items() if key not in tensors or tensors[key].shape != shape]
    if wrong:
        raise ValueError(
            f"{path} does not hold the convolutions of {name}: {wrong[0]} must be there with shape "
            f"{tuple(expected[wrong[0]])} ({len(wrong)} of {len(expected)} arrays are missing or differ)"
        )
    return {key: tensors[key].float() for key in expected}


def _from_torch_hub(name: str) -> dict[str, Tensor]:
    import_torchvision()
    from torchvision import models

    weights = models.get_model_weights(name).IMAGENET1K_V1
    path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    try:
        tensors = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, HTTPException) as error:
        raise FileNotFoundError(
            f"the weights of {name} are not on this machine and could not be downloaded ({error}). Put either "
            f"torchvision's {path.name} into {path.parent}, or {name}_features.safetensors (or .npz) into a "
            "folder and set SRBOOK_WEIGHTS to that folder"
        ) from error
    except (RuntimeError, UnpicklingError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and try again") from error
    return _checked(name, tensors, path)


def main(arguments: list[str] | None = None) -> None:
    """Command line of `python -m srbook.backbones`."""
    parser = argparse.ArgumentParser(
        prog="python -m srbook.backbones",
        description="Check the arrays of a pretrained backbone and write them as a safetensors file.",
    )
    parser.add_argument("name", choices=BACKBONES, help="which backbone the arrays belong to")
    parser.add_argument("source", type=Path, help="an .npz file with arrays named as in torchvision")
    parser.add_argument("target", type=Path, help="FOLDER/<name>_features.safetensors")
    options = parser.parse_args(arguments)
    print(convert_backbone(options.name, options.source, options.target))


if __name__ == "__main__":
    main()
