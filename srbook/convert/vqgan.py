"""The autoencoder of latent diffusion, which ResShift, SinSR, and DeltaDiff took over.

    codec = srbook.build("vqgan-f4", adversary=None)
    codec.network.load_state_dict(from_released("vqgan", state))
    codec.save("vqgan-f4.safetensors")

Its deviation stays 1, as these programs have it (their `scale_factor`).
"""

from collections.abc import Mapping

from torch import Tensor

from srbook.convert.names import Names, Released, count, has, layer


def _vqgan(state: Mapping[str, Tensor]) -> Names:
    names = layer("before", "quant_conv") | layer("after", "post_quant_conv")
    names["codebook.weight"] = "quantize.embedding.weight"
    levels = count(state, "encoder.down")
    for half, way, resample, theirs in (("encoder", "down", "shrink", "down"), ("decoder", "up", "grow", "up")):
        names |= layer(f"{half}.stem", f"{half}.conv_in") | layer(f"{half}.tail", f"{half}.conv_out")
        names |= layer(f"{half}.norm", f"{half}.norm_out")
        for place, released in enumerate(("block_1", "attn_1", "block_2")):
            if place != 1:
                names |= _block(state, f"{half}.middle.{place}", f"{half}.mid.{released}")
            elif has(state, f"{half}.mid.{released}."):
                names |= _attention(f"{half}.middle.{place}", f"{half}.mid.{released}")
        for level in range(levels):
            ours = level if half == "encoder" else levels - 1 - level  # in the order in which they work
            for block in range(count(state, f"{half}.{theirs}.{level}.block")):
                names |= _block(state, f"{half}.{way}.{ours}.{block}", f"{half}.{theirs}.{level}.block.{block}")
            if ours < levels - 1:
                names |= layer(
                    f"{half}.{resample}.{ours}",
                    f"{half}.{theirs}.{level}.{'down' if half == 'encoder' else 'up'}sample.conv",
                )
    return names


def _block(state: Mapping[str, Tensor], ours: str, theirs: str) -> Names:
    names: Names = {}
    for part in ("norm1", "conv1", "norm2", "conv2"):
        names |= layer(f"{ours}.{part}", f"{theirs}.{part}")
    return names | (layer(f"{ours}.skip", f"{theirs}.nin_shortcut") if has(state, f"{theirs}.nin_shortcut.") else {})


def _attention(ours: str, theirs: str) -> Names:
    released = {"norm": "norm", "query": "q", "key": "k", "value": "v", "out": "proj_out"}
    return {
        name: tensor
        for part, their_part in released.items()
        for name, tensor in layer(f"{ours}.{part}", f"{theirs}.{their_part}").items()
    }


VQGAN = Released(_vqgan)
