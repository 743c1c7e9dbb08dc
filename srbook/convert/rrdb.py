"""RRDBNet under ESRGAN's first names, which SRDiff kept."""

from collections.abc import Mapping

from torch import Tensor

from srbook.convert.names import Names, Released, count, has, layer


def _rrdb(state: Mapping[str, Tensor]) -> Names:
    names = layer("head", "conv_first") | layer("trunk", "trunk_conv")
    names |= layer("refine", "HRconv") | layer("tail", "conv_last")
    for block in range(count(state, "RRDB_trunk")):
        for dense in range(3):
            for k in range(5):
                ours = f"blocks.{block}.blocks.{dense}.convolutions.{k}"
                names |= layer(ours, f"RRDB_trunk.{block}.RDB{dense + 1}.conv{k + 1}")
    octave = 0
    while has(state, f"upconv{octave + 1}."):
        names |= layer(f"upscale.{octave}", f"upconv{octave + 1}")
        octave += 1
    return names


RRDB = Released(_rrdb, "rrdb.")
