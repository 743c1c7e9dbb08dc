"""Files of every kind that the formats allow are read with their right values, or refused by name."""

from collections import Counter

import numpy as np
import pytest

from benchmarks.attack import pictures
from benchmarks.attack._containers import SHORT, packed, png, tiff
from benchmarks.attack._kinds import COLORS, HEIGHT, RAMP, WIDTH, Kind, stored
from benchmarks.attack.pictures import KINDS, judge
from srbook.data import read_picture

# Good files that are refused by name all the same.
REFUSED = tuple(f"gray {bits} bits" for bits in (6, 10, 14, 32))
REFUSED += ("gray 16 bits, pl", "gray 16 bits, premultiplied", "RGB 16 bits in planes", "planes with premultiplied")
REFUSED += ("one plane more", "CMYK 16 bits")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kinds", KINDS)
def test_every_kind_is_right_or_refused(tmp_path, kinds):
    for kind in kinds():
        verdict = judge(kind, tmp_path)
        assert verdict in ("survived", "clear"), f"{kind.name}: {verdict}"
        if kind.right is not None:
            assert (verdict == "clear") == kind.name.startswith(REFUSED), f"{kind.name}: {verdict}"


def test_a_white_disk_on_nothing_stays_white(tmp_path):
    assert pictures.disk_on_nothing(tmp_path) == "survived"


def test_what_is_opaque_everywhere_is_not_transparent(tmp_path):
    assert pictures.opaque_as_jpeg(tmp_path) == "survived"


def test_the_judge_sees_wrong_values_and_unclear_refusals(tmp_path):
    good = Kind("a.png", png(stored(COLORS, 8), 2, 8), COLORS)
    assert judge(good, tmp_path) == "survived"
    verdicts = Counter(
        judge(kind, tmp_path)
        for kind in (
            Kind("b.png", good.data, COLORS[::-1]),
            Kind("c.png", good.data, RAMP),
            Kind("d.png", good.data, None),
            Kind("e.png", good.data, COLORS, notes=("text",)),
            Kind("f.png", good.data[:60], COLORS),
        )
    )
    assert verdicts == {"silent": 4, "unclear": 1}


@pytest.mark.parametrize(
    "more, message",
    [
        (
            {"bits": (14,)},
            "of 14 bits per channel, of which 1, 2, 4, 8, 12, 16 are read here; convert it to 8 or 16 bits",
        ),
        ({"tags": {339: (SHORT, [2])}}, "of signed or floating-point values, whose range is unknown"),
        ({"bits": (8, 8, 8), "colors": 8}, "stores CIE Lab; convert it to RGB or gray"),
        ({"tags": {259: (SHORT, [34712])}}, "of compression 34712, which is not read; save it with another"),
        ({"bits": (8, 8)}, "of 2 channels, of which it does not say what they are"),
        ({"pages": 3}, "holds 3 frames; extract the one you mean"),
    ],
)
def test_refusals_say_what_the_file_is(tmp_path, more, message):
    (tmp_path / "a.tif").write_bytes(tiff((HEIGHT, WIDTH), [packed(stored(RAMP, 8), 8) * 3], **more))
    with pytest.raises(ValueError, match=rf"a\.tif .*{message}"):
        read_picture(tmp_path / "a.tif")


def test_a_thumbnail_behind_a_picture_is_left_out(tmp_path):
    data = tiff((HEIGHT, WIDTH), [packed(stored(RAMP, 8), 8)], pages=2, tags={254: (SHORT, [0])})
    (tmp_path / "two.tif").write_bytes(data)
    with pytest.raises(ValueError, match="2 frames"):
        read_picture(tmp_path / "two.tif")
    before, entry, after = data.rpartition(bytes([254, 0, 3, 0, 1, 0, 0, 0]))
    (tmp_path / "preview.tif").write_bytes(before + entry + b"\x01" + after[1:])
    picture = read_picture(tmp_path / "preview.tif")
    assert picture.dropped == ("further pictures (previews)",)
    assert np.abs(picture.rgb[0, 0].numpy() - RAMP[..., 0]).max() < 0.51 / 255
