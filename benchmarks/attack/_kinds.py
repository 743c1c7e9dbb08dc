"""Picture files of every kind that the formats allow, each with its right values."""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from benchmarks.attack._containers import ASCII, LONG, RATIONAL, SHORT, bmp, chunk, exif, packed, png, segment, tiff

HEIGHT, WIDTH = 5, 7
RAMP = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1)  # black to white
COLORS = np.concatenate([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)
ALPHA = np.clip(2 * RAMP, 0, 1)  # nothing in one corner, everything in half of the picture
ROUNDED, JPEG = 0.51 / 255, 8 / 255


@dataclass(frozen=True)
class Kind:
    """A file and what is right.

    Attributes:
        name: with the suffix.
        data: the file.
        right: (H, W, 1, 2, 3 or 4), gray or color and perhaps alpha, in [0, 1]; None if it must be refused.
        tolerance: of each value; colors count where alpha is above a tenth, and there after it is multiplied in.
        notes: words that what was dropped must contain.
    """

    name: str
    data: bytes
    right: np.ndarray | None
    tolerance: float = ROUNDED
    notes: tuple[str, ...] = ()


def stored(values: np.ndarray, bits: int) -> np.ndarray:
    return np.rint(values * (2**bits - 1)).astype(np.uint32)


def rounded(values: np.ndarray, bits: int) -> np.ndarray:
    return stored(values, bits) / (2**bits - 1)


def tiffs() -> Iterator[Kind]:
    size = (HEIGHT, WIDTH)
    for order, name in (("<", "little"), (">", "big")):
        for bits in (1, 2, 4, 6, 8, 10, 12, 14, 16, 32):
            for colors, zero in ((0, "white"), (1, "black")):
                values = stored(RAMP if colors else 1 - RAMP, bits)
                right = values / (2**bits - 1) if colors else 1 - values / (2**bits - 1)
                data = tiff(size, [packed(values, bits, order)], bits=(bits,), colors=colors, order=order)
                yield Kind(f"gray {bits} bits {zero} is zero, {name}-endian.tif", data, right)
        rgb16 = packed(stored(COLORS, 16), 16, order)
        deep = partial(tiff, size, bits=(16,) * 3, colors=2, order=order)
        yield Kind(f"RGB 16 bits, {name}-endian.tif", deep([rgb16]), COLORS, 1e-4)
        strips = [packed(stored(COLORS, 16)[at : at + 2], 16, order) for at in range(0, HEIGHT, 2)]
        yield Kind(f"RGB 16 bits in strips, {name}-endian.tif", deep(strips, rows=2), COLORS, 1e-4)
        planes = [packed(stored(COLORS, 16)[..., c : c + 1], 16, order) for c in range(3)]
        yield Kind(f"RGB 16 bits in planes, {name}-endian.tif", deep(planes, tags={284: (SHORT, [2])}), COLORS, 1e-4)
        steps = np.diff(stored(COLORS, 16).astype(np.int64), axis=1, prepend=0) % 65536
        tags = {259: (SHORT, [8]), 317: (SHORT, [2])}
        predicted = deep([zlib.compress(packed(steps, 16, order))], tags=tags)
        yield Kind(f"RGB 16 bits deflated differences, {name}-endian.tif", predicted, COLORS, 1e-4)
        for bits in (8, 16):
            for extra, word in ((1, "premultiplied"), (2, "plain")):
                for part, photometric, what in ((COLORS, 2, "RGB"), (RAMP, 1, "gray")):
                    mixed = np.concatenate([part * ALPHA if extra == 1 else part, ALPHA], axis=2)
                    data = tiff(
                        size, [packed(stored(mixed, bits), bits, order)], bits=(bits,) * mixed.shape[2],
                        colors=photometric, order=order, tags={338: (SHORT, [extra])},
                    )  # fmt: skip
                    right = np.concatenate([part, ALPHA], axis=2)
                    yield Kind(f"{what} {bits} bits, {word} alpha, {name}-endian.tif", data, right, 1.01 / 255)
        big = tiff(size, [packed(stored(COLORS, 8), 8)], bits=(8,) * 3, colors=2, order=order, big=True)
        yield Kind(f"BigTIFF, {name}-endian.tif", big, COLORS)

    rgb = packed(stored(COLORS, 8), 8)
    plain = partial(tiff, size, bits=(8,) * 3, colors=2)
    planes = [packed(stored(COLORS, 8)[..., c : c + 1], 8) for c in range(3)]
    yield Kind("planes.tif", plain(planes, tags={284: (SHORT, [2])}), COLORS)
    more = np.concatenate([COLORS, ALPHA, RAMP], axis=2)
    for extra, right in (([0, 0], COLORS), ([2, 0], more[..., :4]), ([0, 2], None), ([1, 2], None)):
        data = tiff(size, [packed(stored(more, 8), 8)], bits=(8,) * 5, colors=2, tags={338: (SHORT, extra)})
        yield Kind(f"extra channels {extra}.tif", data, right, notes=("further channels",) if right is not None else ())
    yield Kind("two channels unexplained.tif", tiff(size, [packed(stored(more[..., :2], 8), 8)], bits=(8, 8)), None)
    yield Kind("one plane more.tif", plain([*planes, packed(stored(RAMP, 8), 8)], bits=(8,) * 4,
               tags={284: (SHORT, [2]), 338: (SHORT, [0])}), COLORS)  # fmt: skip
    glass = np.concatenate([COLORS, ALPHA], axis=2)
    for extra, word in ((1, "premultiplied"), (2, "plain")):
        mixed = stored(np.concatenate([COLORS * ALPHA, ALPHA], axis=2) if extra == 1 else glass, 8)
        data = plain([packed(mixed[..., c : c + 1], 8) for c in range(4)], bits=(8,) * 4,
                     tags={284: (SHORT, [2]), 338: (SHORT, [extra])})  # fmt: skip
        yield Kind(f"planes with {word} alpha.tif", data, glass, 1.01 / 255)
    tiles = []
    for left in (0, 16):
        tile = np.zeros((16, 16, 3), np.uint32)
        wide = np.concatenate([COLORS] * 3, axis=1)[:, left : left + 16]
        tile[:HEIGHT, : wide.shape[1]] = stored(wide, 8)
        tiles.append(packed(tile, 8))
    tags = {322: (SHORT, [16]), 323: (SHORT, [16])}
    data = tiff((HEIGHT, 3 * WIDTH), tiles, bits=(8,) * 3, colors=2, tags=tags)
    yield Kind("tiles.tif", data, np.concatenate([COLORS] * 3, axis=1))
    reversed_bits = bytes(int(f"{byte:08b}"[::-1], 2) for byte in packed(stored(RAMP, 4), 4))
    yield Kind("low bits first.tif", tiff(size, [reversed_bits], bits=(4,), tags={266: (SHORT, [2])}), rounded(RAMP, 4))

    for codec in ("tiff_lzw", "packbits", "tiff_adobe_deflate", "lzma", "zstd", "jpeg"):
        data = encoded(
            "RGB", stored(COLORS, 8), "TIFF", compression=codec, **({"quality": 98} if codec == "jpeg" else {})
        )
        yield Kind(f"{codec}.tif", data, COLORS, 40 / 255 if codec == "jpeg" else ROUNDED)
    for codec in ("group3", "group4"):
        bits = io.BytesIO()
        Image.fromarray(stored(RAMP[..., 0], 1).astype(bool)).save(bits, "TIFF", compression=codec)
        yield Kind(f"{codec}.tif", bits.getvalue(), rounded(RAMP, 1))
        photometric = struct.pack("<HHL", 262, SHORT, 1)  # and then 1, which becomes 0
        before, entry, after = bits.getvalue().partition(photometric)
        yield Kind(f"{codec}, white is zero.tif", before + entry + bytes(1) + after[1:], 1 - rounded(RAMP, 1))
    inks = stored(np.concatenate([1 - COLORS, 0 * RAMP], axis=2), 8)
    planes = [packed(inks[..., c : c + 1], 8) for c in range(4)]
    yield Kind(
        "CMYK in planes.tif", tiff(size, planes, bits=(8,) * 4, colors=5, tags={284: (SHORT, [2])}), COLORS, 1.01 / 255
    )
    inked = packed(np.concatenate([inks, stored(ALPHA, 8)], axis=2), 8)
    yield Kind("CMYK with alpha.tif", tiff(size, [inked], bits=(8,) * 5, colors=5, tags={338: (SHORT, [2])}), None)
    for sampling in ((1, 1), (2, 2)):
        tags = {259: (SHORT, [8]), 530: (SHORT, sampling)}
        yield Kind(f"YCbCr {sampling}.tif", plain([zlib.compress(rgb)], colors=6, tags=tags), None)
    for kind, word in ((2, "signed"), (3, "floating"), (5, "complex")):
        for bits in (8, 16, 32):
            data = tiff(size, [packed(stored(RAMP, bits), bits)], bits=(bits,), tags={339: (SHORT, [kind])})
            yield Kind(f"{word} {bits} bits.tif", data, None)
    mixed_bits = plain([rgb + rgb], bits=(8, 8, 16))
    yield Kind("mixed depths.tif", mixed_bits, None)
    yield Kind("5 6 5 bits.tif", plain([rgb], bits=(5, 6, 5)), None)
    for colors, word in ((4, "mask"), (6, "YCbCr"), (8, "Lab"), (9, "ICCLab"), (32803, "CFA"), (99, "unknown")):
        yield Kind(f"{word}.tif", plain([rgb], colors=colors), None)
    yield Kind("colors unsaid.tif", plain([rgb], without=[262]), None)
    yield Kind("compression unknown.tif", plain([rgb], tags={259: (SHORT, [34712])}), None)
    yield Kind("strips missing.tif", tiff((2 * HEIGHT, WIDTH), [rgb], bits=(8,) * 3, colors=2, rows=HEIGHT), None)
    yield Kind("half a strip.tif", tiff((900 * HEIGHT, WIDTH), [rgb], bits=(8,) * 3, colors=2), None)
    yield Kind("no size.tif", plain([rgb], without=[256]), None)
    yield Kind("pages.tif", plain([rgb], pages=2), None)
    yield Kind("cut.tif", plain([rgb])[:60], None)
    for bits in (4, 8):
        palette = stored(np.linspace([0, 0.5, 1], [1, 0, 0.2], 2**bits), 16)
        index = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1) % 2**bits
        for scale, word in ((1, "16"), (257, "8")):
            tags = {320: (SHORT, (palette // scale).T.ravel())}
            data = tiff(size, [packed(index, bits)], bits=(bits,), colors=3, tags=tags)
            yield Kind(f"palette of {word} bits, {bits} bits.tif", data, palette[index[..., 0]] / 65535, 1.01 / 255)
    inks = stored(np.concatenate([1 - COLORS, 0 * RAMP], axis=2), 8)
    yield Kind("CMYK.tif", tiff(size, [packed(inks, 8)], bits=(8,) * 4, colors=5), COLORS, 1.01 / 255)
    yield Kind("CMYK 16 bits.tif", tiff(size, [packed(257 * inks, 16)], bits=(16,) * 4, colors=5), COLORS, 1.01 / 255)
    yield Kind(
        "CMYK other inks.tif", tiff(size, [packed(inks, 8)], bits=(8,) * 4, colors=5, tags={332: (SHORT, [2])}), None
    )
    turned = np.rot90(COLORS, -1).copy()
    yield Kind("on its side.tif", plain([rgb], tags={274: (SHORT, [6])}), turned)
    yield Kind("on its side, said in 32 bits.tif", plain([rgb], tags={274: (LONG, [6])}), turned)
    words = {282: (ASCII, b"seventy\0"), 283: (ASCII, b"two\0"), 296: (SHORT, [3]), 274: (SHORT, [6])}
    yield Kind("resolution in words.tif", plain([rgb], tags=words), turned)
    yield Kind("resolution by zero.tif", plain([rgb], tags={282: (RATIONAL, [1, 0]), 283: (RATIONAL, [0, 0])}), COLORS)
    yield Kind("XMP.tif", plain([rgb], tags={700: (1, b"<x/>")}), COLORS, notes=("XMP",))


def pngs() -> Iterator[Kind]:
    for interlaced in (False, True):
        word = ", interlaced" if interlaced else ""
        for depth in (1, 2, 4, 8, 16):
            make = partial(png, depth=depth, interlaced=interlaced)
            values = stored(RAMP, depth)
            yield Kind(f"gray {depth}{word}.png", make(values, 0), rounded(RAMP, depth), 1e-4)
            key = int(values[2, 3, 0])
            right = np.concatenate([rounded(RAMP, depth), values != key], axis=2)
            before = chunk(b"tRNS", struct.pack(">H", key))
            yield Kind(f"gray {depth}, one level transparent{word}.png", make(values, 0, before=before), right, 1e-4)
            if depth < 16:
                palette = stored(np.linspace([0, 0.5, 1], [1, 0, 0.2], 2**depth), 8)
                index = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1) % 2**depth
                before = chunk(b"PLTE", palette.astype(np.uint8).tobytes()) + chunk(b"tRNS", b"\x80\x40"[: 2**depth])
                levels = np.full(2**depth, 255)
                levels[:2] = 128, 64
                right = np.concatenate([palette[index[..., 0]], levels[index]], axis=2) / 255
                yield Kind(f"palette {depth}, half transparent{word}.png", make(index, 3, before=before), right, 1e-4)
        for depth in (8, 16):
            make = partial(png, depth=depth, interlaced=interlaced)
            values = stored(COLORS, depth)
            yield Kind(f"RGB {depth}{word}.png", make(values, 2), rounded(COLORS, depth), 1e-6)
            key = values[1, 2]
            near = values.copy()
            near[0, 0] = key ^ 1  # differs in the lowest bit alone
            right = np.concatenate([near / (2**depth - 1), (near != key).any(axis=2, keepdims=True)], axis=2)
            before = chunk(b"tRNS", struct.pack(">3H", *key))
            yield Kind(f"RGB {depth}, one color transparent{word}.png", make(near, 2, before=before), right, 1e-6)
            for part, color, what in ((RAMP, 4, "gray"), (COLORS, 6, "RGB")):
                mixed = np.concatenate([part, ALPHA], axis=2)
                name = f"{what} and alpha {depth}{word}.png"
                yield Kind(name, make(stored(mixed, depth), color), rounded(mixed, depth), 1e-6)

    values = stored(COLORS, 8)
    make = partial(png, values, 2, 8)
    good = partial(Kind, right=rounded(COLORS, 8), tolerance=1e-6)
    for keyword in (b"transparency", b"icc_profile", b"dpi", b"gamma", b"exif", b"bbox", b"interlace", b""):
        data = make(before=chunk(b"tEXt", keyword + b"\0red"))
        yield good(f"a text named {keyword.decode()!r}.png", data, notes=("text",))
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 23), 1))
    yield good("a text of 8 MB.png", make(before=bomb), notes=("text",))
    yield good("a text of 8 MB behind.png", make(after=bomb), notes=("text",))
    yield good(
        "a text with a wrong checksum.png", make(before=chunk(b"tEXt", b"Title\0x")[:-1] + b"?"), notes=("text",)
    )
    yield good(
        "texts that are none.png",
        make(before=b"".join(chunk(kind, b"\xff\xfe") for kind in (b"tEXt", b"zTXt", b"iTXt"))),
    )
    for name, body in (("broken", b"icc\0\0broken"), ("of another compression", b"icc\0\x07abc"), ("empty", b"")):
        yield good(f"a profile {name}.png", make(before=chunk(b"iCCP", body)), notes=("color profile (damaged)",))
    profile = bytes(16) + b"RGB " + bytes(3 << 20)
    yield good("a profile of 3 MB.png", make(before=chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile))))
    body = b"icc\0\0" + zlib.compress(bytes((1 << 24) + 1), 1)
    yield good("a profile of 17 MB.png", make(before=chunk(b"iCCP", body)), notes=("color profile (damaged)",))
    for kind in (b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"cICP", b"sBIT", b"tIME", b"bKGD", b"vpAg"):
        yield good(f"an empty {kind.decode()}.png", make(before=chunk(kind, b"")))
    yield good(
        "HDR marks.png", make(before=chunk(b"cICP", b"\x09\x10\0\1") + chunk(b"mDCV", bytes(24))), notes=("mDCV (HDR)",)
    )
    yield good("EXIF that is none.png", make(before=chunk(b"eXIf", b"nothing")), notes=("EXIF data (damaged)",))
    turned = rounded(np.rot90(COLORS, -1).copy(), 8)
    block = exif({274: (SHORT, [6]), 282: (ASCII, b"x\0"), 296: (ASCII, b"inch\0")})
    yield Kind("EXIF behind the pixels.png", make(after=chunk(b"eXIf", block)), turned, 1e-6)
    raw = b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n%8d\n" % len(block) + block.hex().encode() + b"\n")
    yield Kind("EXIF in a text.png", make(before=chunk(b"zTXt", raw)), turned, 1e-6)
    yield good("pixels in pieces of one byte.png", make(part=1))
    yield good("bytes behind the end.png", make() + b"more")
    yield good("a film of one frame.png", make(before=chunk(b"acTL", struct.pack(">LL", 1, 0))))
    yield Kind("a film.png", make(before=chunk(b"acTL", struct.pack(">LL", 2, 0))), None)
    yield Kind(
        "Apple's form.png", make().replace(chunk(b"IHDR", make()[16:29]), chunk(b"CgBI", bytes(4)) + make()[8:33]), None
    )
    yield Kind("a part that must be known.png", make(before=chunk(b"ABCD", b"")), None)
    yield Kind("cut.png", make()[:-30], None)
    yield Kind("no header.png", b"\x89PNG\r\n\x1a\n" + make()[33:], None)
    yield Kind("a header alone.png", make()[:33], None)
    yield Kind("a transparent color cut off.png", make(before=chunk(b"tRNS", b"\0")), None)


def encoded(mode: str, values: np.ndarray, kind: str, **settings) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.uint8).squeeze(), mode).save(buffer, kind, **settings)
    return buffer.getvalue()


def jpegs() -> Iterator[Kind]:
    y, x = np.mgrid[0:24, 0:32] / 31
    colors = np.stack([x, y, 1 - x], axis=2)
    levels = stored(colors, 8)
    make = partial(encoded, "RGB", levels, "JPEG", quality=98)
    base = make()
    good = partial(Kind, right=colors, tolerance=JPEG)
    turned = partial(Kind, right=np.rot90(colors, -1).copy(), tolerance=JPEG)
    behind_start = lambda *parts: base[:2] + b"".join(parts) + base[2:]  # noqa: E731
    yield good("plain.jpg", base)
    yield good("progressive.jpg", make(progressive=True))
    yield good("RGB inside.jpg", make(keep_rgb=True))
    yield good("restarts.jpg", make(restart_marker_blocks=1))
    yield good("colors at half size.jpg", make(subsampling=2), tolerance=3 * JPEG)
    yield Kind("gray.jpg", encoded("L", levels[..., :1], "JPEG", quality=98), colors[..., :1], JPEG)
    inks = np.concatenate([255 - levels, 0 * levels[..., :1]], axis=2)
    cmyk = encoded("CMYK", inks, "JPEG", quality=98)
    yield good("CMYK of Adobe.jpg", cmyk)
    adobe = cmyk.index(b"\xff\xee")
    length = struct.unpack(">H", cmyk[adobe + 2 : adobe + 4])[0]
    plain = encoded("CMYK", 255 - inks, "JPEG", quality=98)
    yield good("CMYK not of Adobe.jpg", plain[:adobe] + plain[adobe + 2 + length :], right=None)
    frame = base.index(b"\xff\xc0")
    for at, value, word in ((4, 12, "12 bits"), (9, 2, "two channels"), (9, 7, "seven channels")):
        data = bytearray(base)
        data[frame + at] = value
        yield Kind(f"{word}.jpg", bytes(data), None)
    yield Kind("cut.jpg", base[: len(base) * 2 // 3], None)
    yield good("a comment.jpg", behind_start(segment(0xFE, b"hello")), notes=("comment",))
    yield good("padding.jpg", base[:2] + b"\xff\xff\xff" + base[2:])
    yield good("Photoshop cut off.jpg", behind_start(segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\x09")),
               notes=("Photoshop and IPTC data",))  # fmt: skip
    yield good("XMP.jpg", behind_start(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x>")), notes=("XMP",))
    further = ("further pictures (previews, gain or depth maps)",)
    mpf = segment(0xE2, b"MPF\0" + exif({0xB001: (LONG, [2])}, ">"))
    yield good("a preview behind.jpg", behind_start(mpf) + base, notes=further)
    yield good("pictures behind, index broken.jpg", behind_start(segment(0xE2, b"MPF\0nothing")), notes=further)
    part = lambda number, count: segment(0xE2, b"ICC_PROFILE\0" + bytes([number, count]) + bytes(50))  # noqa: E731
    yield good("a profile without its second part.jpg", behind_start(part(1, 2)), notes=("color profile (damaged)",))
    gray_profile = b"ICC_PROFILE\0\1\1" + bytes(16) + b"GRAY" + bytes(108)
    yield good(
        "a gray profile.jpg", behind_start(segment(0xE2, gray_profile)), notes=("color profile (of other colors)",)
    )

    tags = {
        274: (SHORT, [6]),
        271: (ASCII, b"Maker of cameras\0"),
        282: (RATIONAL, [72, 1]),
        0x9286: (7, b"ASCII\0\0\0hello"),
    }
    for order in "<>":
        block = exif(tags, order)
        yield turned(f"EXIF {order}.jpg", behind_start(segment(0xE1, b"Exif\0\0" + block)))
    wrong = {
        "strings": {282: (ASCII, b"x\0"), 296: (ASCII, b"i\0"), 34665: (ASCII, b"no\0"), 34853: (ASCII, b"no\0")},
        "numbers": {
            271: (SHORT, [1, 2, 3]),
            306: (RATIONAL, [0, 0]),
            34665: (LONG, [4_000_000_000]),
            34853: (SHORT, [9]),
        },
        "loops": {34665: (LONG, [8]), 34853: (LONG, [8])},
    }
    for word, more in wrong.items():
        block = exif({274: (SHORT, [6]), **more})
        yield turned(f"EXIF with {word}.jpg", behind_start(segment(0xE1, b"Exif\0\0" + block)))
    random = np.random.default_rng(0)
    block = exif(tags)
    keep = range(8 + 2, 8 + 2 + 24)  # the entries of maker and orientation
    for number in range(40):
        damaged = bytearray(block[: random.integers(keep.stop, len(block) + 1)])
        for at in random.integers(keep.stop, max(len(damaged), keep.stop + 1), 4):
            if at < len(damaged):
                damaged[at] = random.integers(256)
        data = behind_start(segment(0xE1, b"Exif\0\0" + bytes(damaged)))
        yield turned(f"EXIF damaged, number {number}.jpg", data)


def others() -> Iterator[Kind]:
    levels = stored(COLORS, 8)
    glass = stored(np.concatenate([COLORS, ALPHA], axis=2), 8)
    webp = encoded("RGB", levels, "WEBP", lossless=True)
    good = partial(Kind, right=rounded(COLORS, 8), tolerance=1e-6)
    yield good("lossless.webp", webp)
    yield Kind("alpha.webp", encoded("RGBA", glass, "WEBP", lossless=True), glass / 255, 1e-6)
    for name, block in (
        ("EXIF without prefix", exif({274: (SHORT, [6])})),
        ("EXIF", b"Exif\0\0" + exif({274: (SHORT, [6])})),
    ):
        data = encoded("RGB", levels, "WEBP", lossless=True, exif=block)
        yield Kind(f"{name}.webp", data, rounded(np.rot90(COLORS, -1).copy(), 8), 1e-6)
    data = encoded("RGB", levels, "WEBP", lossless=True, exif=b"nothing at all")
    yield good("EXIF that is none.webp", data, notes=("EXIF data (damaged)",))
    frames = [Image.fromarray(levels.astype(np.uint8)), Image.fromarray(255 - levels.astype(np.uint8))]
    for kind, suffix in (("WEBP", "webp"), ("GIF", "gif"), ("TIFF", "tif"), ("PNG", "png")):
        buffer = io.BytesIO()
        frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
        yield Kind(f"a film of two.{suffix}", buffer.getvalue(), None)
    yield Kind("cut.webp", webp[: len(webp) // 2], None)

    size = (HEIGHT, WIDTH)
    rows = lambda values, bits: b"".join(  # noqa: E731
        (row + bytes(-len(row) % 4)) for row in (packed(line[None], bits) for line in values[::-1])
    )
    bgr = levels[..., ::-1]
    yield good("24 bits.bmp", bmp(rows(bgr, 8), size, 24))
    yield good("from the top.bmp", bmp(rows(bgr[::-1], 8), size, 24, top_down=True))
    yield good("32 bits without alpha.bmp", bmp(rows(np.concatenate([bgr, 0 * bgr[..., :1]], axis=2), 8), size, 32))
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    alpha = np.concatenate([bgr, glass[..., 3:]], axis=2)
    yield Kind("32 bits with alpha.bmp", bmp(rows(alpha, 8), size, 32, compression=3, masks=masks), glass / 255, 1e-6)
    for word, bits, masks in (("5 5 5", (5, 5, 5), ()), ("5 6 5", (5, 6, 5), (0xF800, 0x7E0, 0x1F))):
        parts = [stored(COLORS[..., c], bits[c]) for c in range(3)]
        mixed = (parts[0] << bits[1] + bits[2] | parts[1] << bits[2] | parts[2])[..., None]
        data = bmp(rows(mixed, 16), size, 16, compression=3 if masks else 0, masks=masks)
        right = np.stack([part / (2**bit - 1) for part, bit in zip(parts, bits, strict=True)], axis=2)
        yield Kind(f"{word} bits.bmp", data, right, 1.01 / 255)
    for bits in (1, 4, 8):
        palette = np.pad(stored(np.linspace([0, 0.5, 1], [1, 0, 0.2], 2**bits), 8), ((0, 0), (0, 1)))
        index = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1) % 2**bits
        data = bmp(rows(index, bits), size, bits, palette=palette.astype(np.uint8).tobytes())
        yield Kind(f"palette {bits}.bmp", data, palette[index[..., 0], 2::-1] / 255, 1e-6)
    yield Kind("cut.bmp", bmp(rows(bgr, 8), size, 24)[:-40], None)
    runs = b"".join(bytes([WIDTH, 10 * row]) + b"\0\0" for row in range(HEIGHT)) + b"\0\1"
    palette = np.repeat(np.arange(256)[:, None], 4, axis=1).astype(np.uint8).tobytes()
    right = np.repeat(10 * np.arange(HEIGHT)[::-1, None, None], WIDTH, axis=1) / 255
    yield Kind("runs.bmp", bmp(runs, size, 8, compression=1, palette=palette), right, 1e-6)

    image = Image.fromarray(levels.astype(np.uint8)).quantize(32)
    buffer = io.BytesIO()
    image.save(buffer, "GIF", transparency=3)
    right = np.concatenate([np.asarray(image.convert("RGB")), 255 * (np.asarray(image) != 3)[..., None]], axis=2) / 255
    yield Kind("transparent.gif", buffer.getvalue(), right, 1e-6)
    yield Kind("cut.gif", buffer.getvalue()[:-20], None)
    ppm = b"P5 7 5 65535\n" + packed(stored(RAMP, 16), 16, ">")
    for suffix in ("ppm", "png"):
        yield Kind(f"PPM.{suffix}", ppm, None)
    yield Kind("ICO.png", encoded("RGB", levels, "ICO"), None)
    yield Kind("SVG.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", None)
    yield Kind("nothing.png", b"", None)
    yield Kind("one byte.jpg", b"\xff", None)
