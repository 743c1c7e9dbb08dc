"""SRDiff's U-Net."""

from collections.abc import Mapping

from torch import Tensor

from srbook.convert.names import Names, Released, count, has, layer


def _srdiff(state: Mapping[str, Tensor]) -> Names:
    def block(ours: str, theirs: str) -> Names:
        names = layer(f"{ours}.conv1", f"{theirs}.block1.block.1") | layer(f"{ours}.time", f"{theirs}.mlp.1")
        names |= layer(f"{ours}.conv2", f"{theirs}.block2.block.1")
        return names | (layer(f"{ours}.skip", f"{theirs}.res_conv") if has(state, f"{theirs}.res_conv.") else {})

    names = layer("time.layers.0", "mlp.0") | layer("time.layers.2", "mlp.2") | layer("condition", "cond_proj")
    levels = count(state, "downs")
    for level in range(levels):
        names |= block(f"down.{level}.0", f"downs.{level}.0") | block(f"down.{level}.1", f"downs.{level}.1")
        if level < levels - 1:
            names |= layer(f"shrink.{level}", f"downs.{level}.2.conv.1")
    names |= block("middle.0", "mid_block1") | block("middle.1", "mid_block2")
    for stage in range(levels - 1):
        names |= block(f"up.{stage}.0", f"ups.{stage}.0") | block(f"up.{stage}.1", f"ups.{stage}.1")
        names |= layer(f"grow.{stage}", f"ups.{stage}.2.conv.0")
    return names | layer("head", "final_conv.0.block.1") | layer("tail", "final_conv.1")


SRDIFF = Released(_srdiff, "denoise_fn.")
