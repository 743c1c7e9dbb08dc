"""What this machine and this installation can do: the report behind `srbook doctor`.

Every check catches the errors of its part, so that one broken part is explained and the others are still reported.
"""

import importlib.util
import os
import platform
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import srbook
from srbook.parts import PARTS, Part

State = Literal["ok", "note", "missing", "broken"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        state: "ok"; "note" for what is worth knowing; "missing" for an optional part that is not there;
            "broken" for a part that is there and does not work.
        name: what was looked at.
        text: what was found, and what to do about it.
        essential: whether srbook can do nothing useful while this is missing or broken.
    """

    state: State
    name: str
    text: str
    essential: bool = False

    @property
    def fatal(self) -> bool:
        return self.essential and self.state in ("missing", "broken")


VARIABLES = {
    "SRBOOK_BUDGET": ("how much work live cells do: quick, full, or gpu", "quick"),
    "SRBOOK_DATA": ("folder of the image sets", "~/.cache/srbook/data"),
    "SRBOOK_STATIC": ("1 for output that must live without a kernel", "off"),
    "SRBOOK_WEIGHTS": ("folder of the backbones of LPIPS", "torch hub's cache"),
}
DEFAULT_MODEL = "rrdb-small"


def diagnose() -> dict[str, list[Finding]]:
    """All findings by section. Takes seconds, since it imports every part to see whether it works."""
    sections: dict[str, Callable[[], list[Finding]]] = {
        "Installation": _installation,
        "Devices": _devices,
        "Parts": lambda: [_part(part) for part in PARTS if part.module != "torch"],  # which the devices tell of
        "Weights": _weights,
        "Image sets": _image_sets,
        "Variables": _variables,
    }
    return {title: _guarded(title, section) for title, section in sections.items()}


def _guarded(title: str, section: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return section()
    except Exception as error:
        return [Finding("broken", title, f"could not be looked at: {_short(error)}", essential=title == "Devices")]


def _installation() -> list[Finding]:
    return [
        Finding("ok", "python", f"{platform.python_version()} at {sys.executable}"),
        Finding("ok", "srbook", f"{srbook.__version__} in {Path(srbook.__file__).parent}"),
    ]


def _devices() -> list[Finding]:
    try:
        import torch
    except Exception as error:  # a broken torch raises anything: OSError for libraries, RuntimeError, ImportError
        advice = 'install it again: pip install "torch>=2.6"'
        return [Finding("broken", "torch", f"does not import ({_short(error)}); {advice}", essential=True)]
    from srbook.accel import bf16_units

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    findings = [Finding("ok", "torch", f"{torch.__version__}, built for {build}")]
    threads, cores = torch.get_num_threads(), os.cpu_count()
    set_by = ", set by OMP_NUM_THREADS" if "OMP_NUM_THREADS" in os.environ else ""
    findings.append(Finding("ok", "CPU", f"{threads} threads on {cores} cores{set_by}"))
    findings.append(_bf16(bf16_units(torch.device("cpu"))))
    if not torch.cuda.is_available():
        seen = "this torch was built without CUDA" if torch.version.cuda is None else "none is visible to torch"
        return [*findings, Finding("note", "GPU", f"{seen}; everything runs on the CPU")]
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        fast = "fast bfloat16" if bf16_units(torch.device("cuda", index)) else "no fast bfloat16"
        findings.append(Finding("ok", f"GPU {index}", f"{device.name}, {device.total_memory / 2**30:.0f} GiB, {fast}"))
    return findings


def _bf16(units: str) -> Finding:
    gains = {"AMX": "1.4 to 5", "AVX512-BF16": "1.2 to 1.6"}  # measured from sr3-tiny to the papers' networks
    if units not in gains:
        return Finding("note", "bfloat16", "the CPU has no instructions for it in use: training runs in float32")
    return Finding("ok", "bfloat16", f"{units}: a training step is {gains[units]} times as fast as in float32")


def _part(part: Part) -> Finding:
    essential = part.extra is None
    if importlib.util.find_spec(part.module) is None:
        return Finding("missing", part.package, f"for {part.purpose}: {part.remedy}", essential)
    try:
        remark = _import(part.module)
    except Exception as error:
        return Finding("broken", part.package, f"for {part.purpose}: {_short(error)}; try {part.remedy}", essential)
    text = f"{_version(part.package)}, for {part.purpose}"
    return Finding("note", part.package, f"{text}. {remark}") if remark else Finding("ok", part.package, text)


def _import(module: str) -> str | None:
    """Import a part; a remark if it had to be repaired, as torchvision sometimes must, before `lpips` imports it."""
    if module != "torchvision":
        import_module(module)
        return None
    from srbook.torchvision_compat import import_torchvision

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import_torchvision()
    return next((str(warning.message) for warning in caught if "torchvision" in str(warning.message)), None)


def _weights() -> list[Finding]:
    from srbook.backbones import BACKBONES
    from srbook.registry import load, presets, trained

    findings = []
    for name in trained():
        try:
            load(name)
        except Exception as error:
            findings.append(Finding("broken", name, f"ships, but cannot be loaded: {_short(error)}"))
        else:
            findings.append(Finding("ok", name, f"ships: srbook upscale --model {name}"))
    if DEFAULT_MODEL not in trained():
        text = "the default of srbook upscale does not ship with this copy; name another with --model"
        findings.append(Finding("missing", DEFAULT_MODEL, text))
    elsewhere = [name for name in presets() if name not in trained() and name != DEFAULT_MODEL]
    findings.append(Finding("note", "to train", f"{', '.join(elsewhere)}: srbook train --preset NAME --data FOLDER"))
    return findings + [_backbone(name) for name in BACKBONES]


def _backbone(name: str) -> Finding:
    """Where the features of a classifier would be found; nothing is downloaded here."""
    import torch

    use = "for ECDP's quality loss" if name == "vgg19" else "for LPIPS"
    setting = os.environ.get("SRBOOK_WEIGHTS")
    folder = Path(setting).expanduser() if setting else None
    if folder is not None and not folder.is_dir():
        return Finding("broken", name, f"{use}: SRBOOK_WEIGHTS names {folder}, which is not a folder")
    own = [folder / f"{name}_features{suffix}" for suffix in (".safetensors", ".npz")] if folder is not None else []
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    found = [path for path in own if path.is_file()] + sorted(cache.glob(f"{name}-*.pth"))
    if found:
        return Finding("ok", name, f"{use}: {found[0]}")
    text = f"{use}: downloaded at first use, or put {name}_features.safetensors where SRBOOK_WEIGHTS says"
    return Finding("missing", name, text)


def _image_sets() -> list[Finding]:
    from srbook.data import catalog

    root = catalog.data_root()
    if not root.is_dir():
        text = f"no folder {root}, so no sets (srbook data says what goes where); the sample photographs need none"
        return [Finding("note", "data folder", text)]
    found = {name: paths for name in catalog.sets() if (paths := catalog.locate(name))}
    findings = [Finding("ok", name, f"{len(paths)} images") for name, paths in found.items()]
    return [Finding("ok", "data folder", f"{root}, {len(found)} of {len(catalog.sets())} sets"), *findings]


def _variables() -> list[Finding]:
    findings = []
    for name, (meaning, default) in VARIABLES.items():
        value = os.environ.get(name)
        findings.append(Finding("ok", name, f"{value!r}: {meaning}" if value else f"not set ({default}): {meaning}"))
    unknown = sorted(name for name in os.environ if name.startswith("SRBOOK_") and name not in VARIABLES)
    return findings + [Finding("note", name, "is set, but srbook does not know it") for name in unknown]


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown version"
