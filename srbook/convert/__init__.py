"""Weights that other programs released, under the names of `srbook.networks`. Names change; numbers do not.

From the file that the SR3 program wrote to one for `srbook upscale --model sr3.safetensors`:

    state = torch.load("I640000_E37_gen.pth", map_location="cpu", weights_only=True)
    method = srbook.build("sr3-16-128")
    method.network.load_state_dict(from_released("sr3", state))
    method.save("sr3.safetensors")
"""

from collections.abc import Mapping

from torch import Tensor

from srbook.arguments import require_instance
from srbook.convert.ecdp import ECDP
from srbook.convert.irsde import IRSDE
from srbook.convert.resshift import RESSHIFT
from srbook.convert.rrdb import RRDB
from srbook.convert.sr3 import DDPM, SR3
from srbook.convert.srdiff import SRDIFF
from srbook.convert.vqgan import VQGAN

__all__ = ["from_released"]

_FAMILIES = {
    "ddpm": DDPM,
    "ecdp": ECDP,
    "irsde": IRSDE,
    "resshift": RESSHIFT,
    "rrdb": RRDB,
    "sr3": SR3,
    "srdiff": SRDIFF,
    "vqgan": VQGAN,
}


def from_released(family: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a released network under this package's names, for `load_state_dict`.

    In a whole checkpoint the network lies under `denoise_fn.` or `rrdb.` beside the tables of the schedule: only that
    part is read. The tensors are not copied, and depths and widths follow from `state`.

    Args:
        family: "sr3" or "ddpm" (the community's SR3 program) for `UNet`; "srdiff" for `SRDiffUNet`; "rrdb" (ESRGAN's
            first names, which SRDiff kept) for `RRDBNet`; "irsde" for `LinearUNet` or `NAFNet`; "resshift" (also SinSR)
            for `SwinUNet`, or for `SwinLayer` if `state` holds one; "ecdp" for `GuidedUNet`, for `RRDBEncoder` if
            `state` holds ECDP's encoder, and for the method `ECDP` if it is a whole checkpoint of both; "vqgan" (latent
            diffusion, and ResShift after it) for `VQAutoencoder`.
        state: the released tensors by name.

    Raises:
        ValueError: an unknown family, or names that are missing or unexpected.
    """
    require_instance("state", state, Mapping, "the tensors by name, such as torch.load(file)")
    if not isinstance(family, str) or family not in _FAMILIES:
        raise ValueError(f"unknown family {family!r}; choose from {', '.join(sorted(_FAMILIES))}")
    released = _FAMILIES[family]
    inner = [name for name in state if name.startswith(released.prefix)]
    part = {name.removeprefix(released.prefix): state[name] for name in inner} or dict(state)
    names = released.names(part)
    missing = [name for name in names.values() if name not in part]
    others = part.keys() - set(names.values())
    unexpected = sorted(name for name in others if not {name, name.rpartition(".")[2]} & released.unused)
    if missing or unexpected:
        complaints = [
            f"{what}: {', '.join(found[:5])}{f', and {len(found) - 5} more' if len(found) > 5 else ''}"
            for what, found in (("missing", missing), ("unexpected", unexpected))
            if found
        ]
        raise ValueError(f"these are not the weights of a released {family!r} network; {'; '.join(complaints)}")
    return {ours: part[theirs] for ours, theirs in names.items()}
