"""Weights that other programs released, under the names of `srbook.networks`. Names change; numbers do not."""

import re
from collections.abc import Callable, Mapping

from torch import Tensor

_Names = dict[str, str]  # our name of each tensor: the released one


def from_released(family: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a released network under this package's names, for `load_state_dict`.

    A whole checkpoint is taken too, where the network lies under `denoise_fn.` or `rrdb.` beside the tables of the
    schedule: only that part is read.

    Args:
        family: "sr3" or "ddpm" (the community's SR3 program) for `UNet`; "srdiff" for `SRDiffUNet`; "rrdb"
            (ESRGAN's first names, which SRDiff kept) for `RRDBNet`; "ecdp" for `GuidedUNet`, for `RRDBEncoder` if
            `state` holds ECDP's encoder, and for the method `ECDP` if it is a whole checkpoint of both.
        state: the released tensors by name.

    Returns:
        The same tensors (not copies) by our names. Depths and widths follow from `state`.

    Raises:
        ValueError: an unknown family, or names that are missing or unexpected.
    """
    if family not in _FAMILIES:
        raise ValueError(f"unknown family {family!r}; choose from {', '.join(sorted(_FAMILIES))}")
    prefix, names_of, unused = _FAMILIES[family]
    part = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    part = part or dict(state)
    names = names_of(part)
    missing = [name for name in names.values() if name not in part]
    unexpected = sorted(part.keys() - set(names.values()) - unused)
    if missing or unexpected:
        complaints = [
            f"{what}: {', '.join(found[:5])}{f', and {len(found) - 5} more' if len(found) > 5 else ''}"
            for what, found in (("missing", missing), ("unexpected", unexpected))
            if found
        ]
        raise ValueError(f"these are not the weights of a released {family!r} network; {'; '.join(complaints)}")
    return {ours: part[theirs] for ours, theirs in names.items()}


def _layer(ours: str, theirs: str) -> _Names:
    """A layer with weight and bias."""
    return {f"{ours}.{part}": f"{theirs}.{part}" for part in ("weight", "bias")}


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Length of the released list `prefix.0`, `prefix.1`, ...: one more than the largest index."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return max((int(match[1]) + 1 for name in state if (match := pattern.match(name))), default=0)


def _has(state: Mapping[str, Tensor], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in state)


def _unet(time: str, block_time: str) -> Callable[[Mapping[str, Tensor]], _Names]:
    """_Names of the SR3 program's U-Net, whose two kinds differ in what the layers of the time are called."""

    def block(ours: str, theirs: str, state: Mapping[str, Tensor]) -> _Names:
        inner = f"{theirs}.res_block"
        names = _layer(f"{ours}.norm1", f"{inner}.block1.block.0") | _layer(f"{ours}.conv1", f"{inner}.block1.block.3")
        names |= _layer(f"{ours}.time", f"{inner}.{block_time}")
        names |= _layer(f"{ours}.norm2", f"{inner}.block2.block.0") | _layer(f"{ours}.conv2", f"{inner}.block2.block.3")
        if _has(state, f"{inner}.res_conv."):
            names |= _layer(f"{ours}.skip", f"{inner}.res_conv")
        if _has(state, f"{theirs}.attn."):
            names |= _layer(f"{ours}.attention.norm", f"{theirs}.attn.norm")
            names |= {f"{ours}.attention.qkv.weight": f"{theirs}.attn.qkv.weight"}
            names |= _layer(f"{ours}.attention.out", f"{theirs}.attn.out")
        return names

    def way(stages: str, resamplers: str, theirs: str, first: int, state: Mapping[str, Tensor]) -> _Names:
        # The released list is flat; every resampling in it starts a new level.
        names: _Names = {}
        level = position = 0
        for index in range(first, _count(state, theirs)):
            if _has(state, f"{theirs}.{index}.conv."):
                names |= _layer(f"{resamplers}.{level}", f"{theirs}.{index}.conv")
                level, position = level + 1, 0
            else:
                names |= block(f"{stages}.{level}.{position}", f"{theirs}.{index}", state)
                position += 1
        return names

    def names_of(state: Mapping[str, Tensor]) -> _Names:
        names = _layer("time.layers.0", f"{time}.1") | _layer("time.layers.2", f"{time}.3")
        names |= _layer("stem", "downs.0") | way("down", "shrink", "downs", 1, state)
        names |= block("middle.0", "mid.0", state) | block("middle.1", "mid.1", state)
        names |= way("up", "grow", "ups", 0, state)
        return names | _layer("norm", "final_conv.block.0") | _layer("tail", "final_conv.block.3")

    return names_of


def _srdiff(state: Mapping[str, Tensor]) -> _Names:
    def block(ours: str, theirs: str) -> _Names:
        names = _layer(f"{ours}.conv1", f"{theirs}.block1.block.1") | _layer(f"{ours}.time", f"{theirs}.mlp.1")
        names |= _layer(f"{ours}.conv2", f"{theirs}.block2.block.1")
        return names | (_layer(f"{ours}.skip", f"{theirs}.res_conv") if _has(state, f"{theirs}.res_conv.") else {})

    names = _layer("time.layers.0", "mlp.0") | _layer("time.layers.2", "mlp.2") | _layer("condition", "cond_proj")
    levels = _count(state, "downs")
    for level in range(levels):
        names |= block(f"down.{level}.0", f"downs.{level}.0") | block(f"down.{level}.1", f"downs.{level}.1")
        if level < levels - 1:
            names |= _layer(f"shrink.{level}", f"downs.{level}.2.conv.1")
    names |= block("middle.0", "mid_block1") | block("middle.1", "mid_block2")
    for stage in range(levels - 1):
        names |= block(f"up.{stage}.0", f"ups.{stage}.0") | block(f"up.{stage}.1", f"ups.{stage}.1")
        names |= _layer(f"grow.{stage}", f"ups.{stage}.2.conv.0")
    return names | _layer("head", "final_conv.0.block.1") | _layer("tail", "final_conv.1")


def _rrdb(state: Mapping[str, Tensor]) -> _Names:
    names = _layer("head", "conv_first") | _layer("trunk", "trunk_conv")
    names |= _layer("refine", "HRconv") | _layer("tail", "conv_last")
    for block in range(_count(state, "RRDB_trunk")):
        for dense in range(3):
            for k in range(5):
                ours = f"blocks.{block}.blocks.{dense}.convolutions.{k}"
                names |= _layer(ours, f"RRDB_trunk.{block}.RDB{dense + 1}.conv{k + 1}")
    octave = 0
    while _has(state, f"upconv{octave + 1}."):
        names |= _layer(f"upscale.{octave}", f"upconv{octave + 1}")
        octave += 1
    return names


def _ecdp(state: Mapping[str, Tensor]) -> _Names:
    if not _has(state, "lr_feats."):
        return _ecdp_encoder(state) if _has(state, "conv_first.") else _ecdp_unet(state)
    names: _Names = {}
    for ours, theirs, names_of in (
        ("network.", "diffusion.network.", _ecdp_unet),
        ("encoder.", "lr_feats.", _ecdp_encoder),
    ):
        part = {name.removeprefix(theirs): tensor for name, tensor in state.items() if name.startswith(theirs)}
        names |= {ours + name: theirs + released for name, released in names_of(part).items()}
    return names


def _ecdp_encoder(state: Mapping[str, Tensor]) -> _Names:
    names = _layer("head", "conv_first")
    for block in range(_count(state, "blocks")):
        for dense in range(3):
            for k in range(5):
                ours = f"blocks.{block}.blocks.{dense}.convolutions.{k}"
                names |= _layer(ours, f"blocks.{block}.block{dense + 1}.conv{k + 1}")
    return names


def _ecdp_unet(state: Mapping[str, Tensor]) -> _Names:
    def block(ours: str, theirs: str) -> _Names:
        names = _layer(f"{ours}.norm1", f"{theirs}.norm1") | _layer(f"{ours}.conv1", f"{theirs}.conv1.network")
        names |= _layer(f"{ours}.time", f"{theirs}.time_in") | _layer(f"{ours}.guide", f"{theirs}.extra_in.network")
        names |= _layer(f"{ours}.norm2", f"{theirs}.norm2") | _layer(f"{ours}.conv2", f"{theirs}.conv2.network")
        skipped = _has(state, f"{theirs}.skip.")
        return names | (_layer(f"{ours}.skip", f"{theirs}.skip.network") if skipped else {})

    def way(stages: str, resamplers: str, theirs: str, resampler: str) -> _Names:
        # The released list is flat; every resampling in it starts a new level.
        names: _Names = {}
        level = position = 0
        for index in range(_count(state, theirs)):
            if _has(state, f"{theirs}.{index}.{resampler}."):
                names |= _layer(f"{resamplers}.{level}", f"{theirs}.{index}.{resampler}.network")
                level, position = level + 1, 0
            else:
                names |= block(f"{stages}.{level}.{position}", f"{theirs}.{index}")
                position += 1
        return names

    names = _layer("time.layers.0", "time_in.0") | _layer("time.layers.2", "time_in.2")
    names |= _layer("stem", "in_conv.network") | way("down", "shrink", "downs", "downconv")
    names |= block("middle.0", "mid.0") | block("middle.1", "mid.1") | way("up", "grow", "ups", "upconv.1")
    return names | _layer("norm", "out_conv.0") | _layer("tail", "out_conv.2.network")


# family: where its network lies in a whole checkpoint, our names, and released tensors that are not weights
_FAMILIES: dict[str, tuple[str, Callable[[Mapping[str, Tensor]], _Names], set[str]]] = {
    "sr3": ("denoise_fn.", _unet("noise_level_mlp", "noise_func.noise_func.0"), set()),
    "ddpm": ("denoise_fn.", _unet("time_mlp", "mlp.1"), {"time_mlp.0.inv_freq"}),
    "srdiff": ("denoise_fn.", _srdiff, set()),
    "rrdb": ("rrdb.", _rrdb, set()),
    "ecdp": ("", _ecdp, {"diffusion.betas", "diffusion.alphas", "diffusion.alpha_bars"}),
}
