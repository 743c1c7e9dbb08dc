"""ResShift's U-Net with Swin layers, or one of these layers."""

from collections.abc import Mapping

from torch import Tensor

from srbook.convert.names import Names, Released, count, has, layer


def _swin(ours: str, theirs: str, state: Mapping[str, Tensor]) -> Names:
    names = layer(f"{ours}enter", f"{theirs}patch_embed.proj") | layer(f"{ours}leave", f"{theirs}patch_unembed.proj")
    for k in range(count(state, f"{theirs}blocks")):
        block, inner = f"{ours}blocks.{k}", f"{theirs}blocks.{k}"
        names |= layer(f"{block}.norm1", f"{inner}.norm1") | layer(f"{block}.norm2", f"{inner}.norm2")
        names |= {f"{block}.attention.bias": f"{inner}.attn.relative_position_bias_table"}
        names |= layer(f"{block}.attention.qkv", f"{inner}.attn.qkv")
        names |= layer(f"{block}.attention.out", f"{inner}.attn.proj")
        names |= layer(f"{block}.mlp.0", f"{inner}.mlp.fc1") | layer(f"{block}.mlp.2", f"{inner}.mlp.fc2")
    return names


def _block(ours: str, theirs: str, swin: str, state: Mapping[str, Tensor]) -> Names:
    names = layer(f"{ours}.norm1", f"{theirs}.in_layers.0") | layer(f"{ours}.conv1", f"{theirs}.in_layers.2")
    names |= layer(f"{ours}.time", f"{theirs}.emb_layers.1")
    names |= layer(f"{ours}.norm2", f"{theirs}.out_layers.0") | layer(f"{ours}.conv2", f"{theirs}.out_layers.3")
    if has(state, f"{theirs}.skip_connection."):
        names |= layer(f"{ours}.skip", f"{theirs}.skip_connection")
    return names | (_swin(f"{ours}.attention.", f"{swin}.", state) if has(state, f"{swin}.blocks.") else {})


def _unet(state: Mapping[str, Tensor]) -> Names:
    if has(state, "patch_embed."):
        return _swin("", "", state)
    names = layer("time.layers.0", "time_embed.0") | layer("time.layers.2", "time_embed.2")
    for k in range(0, count(state, "feature_extractor"), 3):  # a convolution, an activation, a halving
        names |= layer(f"condition.{k}", f"feature_extractor.{k}")
        names |= layer(f"condition.{k + 2}", f"feature_extractor.{k + 2}.op")
    names |= layer("stem", "input_blocks.0.0")
    level = position = 0
    for index in range(1, count(state, "input_blocks")):  # a flat list; every halving starts a new level
        theirs = f"input_blocks.{index}"
        if has(state, f"{theirs}.0.op."):
            names |= layer(f"shrink.{level}", f"{theirs}.0.op")
            level, position = level + 1, 0
        else:
            names |= _block(f"down.{level}.{position}", f"{theirs}.0", f"{theirs}.1", state)
            position += 1
    names |= _block("middle.0", "middle_block.0", "middle_block.1", state)
    names |= _block("middle.1", "middle_block.2", "", state)
    level = position = 0
    for index in range(count(state, "output_blocks")):  # the last block of a level also doubles
        theirs = f"output_blocks.{index}"
        names |= _block(f"up.{level}.{position}", f"{theirs}.0", f"{theirs}.1", state)
        position += 1
        for doubling in (f"{theirs}.1.conv", f"{theirs}.2.conv"):
            if has(state, f"{doubling}."):
                names |= layer(f"grow.{level}", doubling)
                level, position = level + 1, 0
    return names | layer("norm", "out.0") | layer("tail", "out.2")


RESSHIFT = Released(_unet, unused=frozenset({"relative_position_index", "attn_mask"}))
