"""ECDP's U-Net, its encoder, or a whole checkpoint of both."""

from collections.abc import Mapping

from torch import Tensor

from srbook.convert.names import Names, Released, count, has, layer


def _ecdp(state: Mapping[str, Tensor]) -> Names:
    if not has(state, "lr_feats."):
        return _ecdp_encoder(state) if has(state, "conv_first.") else _ecdp_unet(state)
    names: Names = {}
    for ours, theirs, names_of in (
        ("network.", "diffusion.network.", _ecdp_unet),
        ("encoder.", "lr_feats.", _ecdp_encoder),
    ):
        part = {name.removeprefix(theirs): tensor for name, tensor in state.items() if name.startswith(theirs)}
        names |= {ours + name: theirs + released for name, released in names_of(part).items()}
    return names


def _ecdp_encoder(state: Mapping[str, Tensor]) -> Names:
    names = layer("head", "conv_first")
    for block in range(count(state, "blocks")):
        for dense in range(3):
            for k in range(5):
                ours = f"blocks.{block}.blocks.{dense}.convolutions.{k}"
                names |= layer(ours, f"blocks.{block}.block{dense + 1}.conv{k + 1}")
    return names


def _ecdp_unet(state: Mapping[str, Tensor]) -> Names:
    def block(ours: str, theirs: str) -> Names:
        names = layer(f"{ours}.norm1", f"{theirs}.norm1") | layer(f"{ours}.conv1", f"{theirs}.conv1.network")
        names |= layer(f"{ours}.time", f"{theirs}.time_in") | layer(f"{ours}.guide", f"{theirs}.extra_in.network")
        names |= layer(f"{ours}.norm2", f"{theirs}.norm2") | layer(f"{ours}.conv2", f"{theirs}.conv2.network")
        skipped = has(state, f"{theirs}.skip.")
        return names | (layer(f"{ours}.skip", f"{theirs}.skip.network") if skipped else {})

    def way(stages: str, resamplers: str, theirs: str, resampler: str) -> Names:
        # The released list is flat; every resampling in it starts a new level.
        names: Names = {}
        level = position = 0
        for index in range(count(state, theirs)):
            if has(state, f"{theirs}.{index}.{resampler}."):
                names |= layer(f"{resamplers}.{level}", f"{theirs}.{index}.{resampler}.network")
                level, position = level + 1, 0
            else:
                names |= block(f"{stages}.{level}.{position}", f"{theirs}.{index}")
                position += 1
        return names

    names = layer("time.layers.0", "time_in.0") | layer("time.layers.2", "time_in.2")
    names |= layer("stem", "in_conv.network") | way("down", "shrink", "downs", "downconv")
    names |= block("middle.0", "mid.0") | block("middle.1", "mid.1") | way("up", "grow", "ups", "upconv.1")
    return names | layer("norm", "out_conv.0") | layer("tail", "out_conv.2.network")


ECDP = Released(_ecdp, unused=frozenset({"diffusion.betas", "diffusion.alphas", "diffusion.alpha_bars"}))
