"""The community's SR3 program: the U-Nets of SR3 and of its DDPM."""

from collections.abc import Callable, Mapping

from torch import Tensor

from srbook.convert.names import Names, Released, count, has, layer


def _unet(time: str, block_time: str) -> Callable[[Mapping[str, Tensor]], Names]:
    """Names of the SR3 program's U-Net, whose two kinds name the layers of the time differently."""

    def block(ours: str, theirs: str, state: Mapping[str, Tensor]) -> Names:
        inner = f"{theirs}.res_block"
        names = layer(f"{ours}.norm1", f"{inner}.block1.block.0") | layer(f"{ours}.conv1", f"{inner}.block1.block.3")
        names |= layer(f"{ours}.time", f"{inner}.{block_time}")
        names |= layer(f"{ours}.norm2", f"{inner}.block2.block.0") | layer(f"{ours}.conv2", f"{inner}.block2.block.3")
        if has(state, f"{inner}.res_conv."):
            names |= layer(f"{ours}.skip", f"{inner}.res_conv")
        if has(state, f"{theirs}.attn."):
            names |= layer(f"{ours}.attention.norm", f"{theirs}.attn.norm")
            names |= {f"{ours}.attention.qkv.weight": f"{theirs}.attn.qkv.weight"}
            names |= layer(f"{ours}.attention.out", f"{theirs}.attn.out")
        return names

    def way(stages: str, resamplers: str, theirs: str, first: int, state: Mapping[str, Tensor]) -> Names:
        # The released list is flat; every resampling in it starts a new level.
        names: Names = {}
        level = position = 0
        for index in range(first, count(state, theirs)):
            if has(state, f"{theirs}.{index}.conv."):
                names |= layer(f"{resamplers}.{level}", f"{theirs}.{index}.conv")
                level, position = level + 1, 0
            else:
                names |= block(f"{stages}.{level}.{position}", f"{theirs}.{index}", state)
                position += 1
        return names

    def names_of(state: Mapping[str, Tensor]) -> Names:
        names = layer("time.layers.0", f"{time}.1") | layer("time.layers.2", f"{time}.3")
        names |= layer("stem", "downs.0") | way("down", "shrink", "downs", 1, state)
        names |= block("middle.0", "mid.0", state) | block("middle.1", "mid.1", state)
        names |= way("up", "grow", "ups", 0, state)
        return names | layer("norm", "final_conv.block.0") | layer("tail", "final_conv.block.3")

    return names_of


SR3 = Released(_unet("noise_level_mlp", "noise_func.noise_func.0"), "denoise_fn.")
DDPM = Released(_unet("time_mlp", "mlp.1"), "denoise_fn.", frozenset({"time_mlp.0.inv_freq"}))
