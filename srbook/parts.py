"""The packages that srbook uses, and what to do when one is missing.

Some packages come with an extra, for example `pip install "srbook[train]"`. Code that needs one of them imports it by
`require`, whose error names the extra that brings it.
"""

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType


@dataclass(frozen=True)
class Part:
    """A package that srbook uses: what it is for, and the extra of srbook that brings it (none: always needed)."""

    module: str
    package: str
    purpose: str
    extra: str | None = None

    @property
    def remedy(self) -> str:
        """The command that installs it."""
        return f'pip install "srbook[{self.extra}]"' if self.extra else f'pip install "{self.package}"'


#: In the order in which `srbook doctor` looks at them: torchvision comes before lpips, which imports it.
PARTS = (
    Part("torch", "torch", "networks"),
    Part("numpy", "numpy", "arrays"),
    Part("PIL", "pillow", "image files"),
    Part("safetensors", "safetensors", "weights"),
    Part("pydantic", "pydantic", "settings"),
    Part("yaml", "pyyaml", "presets"),
    Part("typer", "typer", "the command line"),
    Part("tqdm", "tqdm", "progress bars"),
    Part("matplotlib", "matplotlib", "figures"),
    Part("torchdiffeq", "torchdiffeq", "adaptive solvers"),
    Part("scipy", "scipy", "pictures with transparency"),
    Part("accelerate", "accelerate", "training", "train"),
    Part("filelock", "filelock", "training", "train"),
    Part("skimage", "scikit-image", "sample photographs", "samples"),
    Part("sklearn", "scikit-learn", "sample photographs", "samples"),
    Part("torchvision", "torchvision", "LPIPS and ECDP's quality loss", "lpips"),
    Part("lpips", "lpips", "the LPIPS metric", "lpips"),
    Part("pyiqa", "pyiqa", "the metrics CLIPIQA and MUSIQ (non-commercial)", "iqa"),
    Part("IPython", "ipython", "the notebooks", "study"),
    Part("ipykernel", "ipykernel", "the notebooks", "study"),
    Part("ipywidgets", "ipywidgets", "interactive figures in Jupyter", "study"),
    Part("jupyterlab", "jupyterlab", "reading the chapters in JupyterLab", "lab"),
    Part("jupyterlab_myst", "jupyterlab-myst", "theorems and equations in JupyterLab", "lab"),
    Part("jupytext", "jupytext", "chapters as text in Jupyter", "lab"),
    Part("jupyter_book", "jupyter-book", "building the book", "book"),
)


def require(module: str) -> ModuleType:
    """Import one of the `PARTS` that an extra brings, by its import name.

    Raises:
        ModuleNotFoundError: it, or a package that it imports, is not installed; names the extra.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise missing(module, error.name) from error


def missing(module: str, absent: str | None = None) -> ModuleNotFoundError:
    """The error for one of the `PARTS` that is not there, or lacks what it imports (`absent`)."""
    part = next(part for part in PARTS if part.module == module)
    name = part.package if absent in (None, module) else absent
    text = f"{name}, needed for {part.purpose}, is not installed; run: {part.remedy}"
    return ModuleNotFoundError(text, name=absent or module)
