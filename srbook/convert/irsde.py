"""IR-SDE's conditional U-Net, or the NAFNet of Refusion."""

from collections.abc import Mapping

from torch import Tensor

from srbook.convert.names import Names, Released, count, has, layer


def _irsde(state: Mapping[str, Tensor]) -> Names:
    names = layer("time.layers.0", "time_mlp.1") | layer("time.layers.2", "time_mlp.3")
    return names | (_nafnet(state) if has(state, "intro.") else _unet(state))


def _unet(state: Mapping[str, Tensor]) -> Names:
    def weight(ours: str, theirs: str) -> Names:
        """A layer, perhaps without bias."""
        names = layer(ours, theirs)
        return names if f"{theirs}.bias" in state else {f"{ours}.weight": names[f"{ours}.weight"]}

    def block(ours: str, theirs: str) -> Names:
        names = layer(f"{ours}.time", f"{theirs}.mlp.1")
        names |= weight(f"{ours}.conv1", f"{theirs}.block1.proj") | weight(f"{ours}.conv2", f"{theirs}.block2.proj")
        return names | (weight(f"{ours}.skip", f"{theirs}.res_conv") if has(state, f"{theirs}.res_conv.") else {})

    def attention(ours: str, theirs: str) -> Names:
        names = {f"{ours}.norm.gain": f"{theirs}.fn.norm.g", f"{ours}.last.gain": f"{theirs}.fn.fn.to_out.1.g"}
        return (
            names | weight(f"{ours}.qkv", f"{theirs}.fn.fn.to_qkv") | layer(f"{ours}.out", f"{theirs}.fn.fn.to_out.0")
        )

    names = weight("stem", "init_conv") | block("last", "final_res_block") | layer("tail", "final_conv")
    for way, resampler, theirs in (("down", "shrink", "downs"), ("up", "grow", "ups")):
        for level in range(count(state, theirs)):
            part = f"{theirs}.{level}"
            names |= block(f"{way}.{level}.0", f"{part}.0") | block(f"{way}.{level}.1", f"{part}.1")
            names |= attention(f"{way}.{level}.2", f"{part}.2")
            inner = ".1" if has(state, f"{part}.3.1.") else ""  # a doubling comes first
            names |= weight(f"{resampler}.{level}{inner}", f"{part}.3{inner}")
    names |= block("middle.0", "mid_block1") | attention("middle.1", "mid_attn")
    return names | block("middle.2", "mid_block2")


def _nafnet(state: Mapping[str, Tensor]) -> Names:
    layers = {"time": "mlp.1", "widen": "conv1", "spread": "conv2", "mix": "conv3", "weigh": "sca.1"}
    layers |= {"hidden": "conv4", "out": "conv5"}
    gains = {"norm1.gain": "norm1.g", "norm2.gain": "norm2.g", "beta": "beta", "gamma": "gamma"}

    def blocks(ours: str, theirs: str) -> Names:
        names: Names = {}
        for k in range(count(state, theirs)):
            for own, released in layers.items():
                names |= layer(f"{ours}.{k}.{own}", f"{theirs}.{k}.{released}")
            names |= {f"{ours}.{k}.{own}": f"{theirs}.{k}.{released}" for own, released in gains.items()}
        return names

    names = layer("stem", "intro") | layer("tail", "ending") | blocks("middle", "middle_blks")
    for level in range(count(state, "encoders")):
        names |= blocks(f"down.{level}", f"encoders.{level}") | layer(f"shrink.{level}", f"downs.{level}")
    for level in range(count(state, "decoders")):
        names |= blocks(f"up.{level}", f"decoders.{level}") | {f"grow.{level}.0.weight": f"ups.{level}.0.weight"}
    return names


IRSDE = Released(_irsde)
