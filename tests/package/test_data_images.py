"""Reading and writing pictures: every kind of file is read faithfully or refused with its name."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from rounding import identical

from srbook.data import Picture, read_image, read_picture, write_image, write_picture
from srbook.data.decode import stored_size

LOSSLESS = (".png", ".webp", ".bmp", ".tif", ".tiff")
ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def levels() -> np.ndarray:
    """(6, 8, 3) uint8, smooth enough for JPEG."""
    y, x = np.mgrid[0:6, 0:8]
    return np.stack([20 * x + 40, 25 * y + 60, 200 - 10 * x - 8 * y], axis=-1).astype(np.uint8)


def as_image(levels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(levels.astype(np.float32) / 255).permute(2, 0, 1)


def png_16bit(values: np.ndarray) -> bytes:
    """A 16-bit PNG, which Pillow can write only in gray. Row filter 1 (difference to the left neighbor)."""
    height, width, channels = values.shape
    rows = np.frombuffer(values.astype(">u2").tobytes(), np.uint8).reshape(height, -1)
    left = np.pad(rows, ((0, 0), (2 * channels, 0)))[:, : rows.shape[1]]
    raw = b"".join(b"\x01" + row.tobytes() for row in rows - left)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )  # fmt: skip


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_lossless_formats_come_back(tmp_path, levels, suffix):
    path = write_image(tmp_path / "deep" / f"a{suffix}", as_image(levels))
    assert identical(read_image(path), as_image(levels))
    assert stored_size(path) == (6, 8)
    assert [each.name for each in path.parent.iterdir()] == [path.name]  # no temporary file stays


def test_names_may_be_as_long_as_the_system_allows(tmp_path, levels):
    path = write_image(tmp_path / f"{'x' * 251}.png", as_image(levels))
    assert identical(read_image(path), as_image(levels))


def test_jpeg_is_close(tmp_path, levels):
    path = write_image(tmp_path / "a.JPG", as_image(levels)[None])
    assert Image.open(path).format == "JPEG"
    assert (read_image(path) - as_image(levels)).abs().max() < 6 / 255


def test_writing_rounds_to_the_nearest_level(tmp_path):
    image = torch.tensor([-0.005, 0.4 / 255, 0.6 / 255, 254.5 / 255, 1.009]).view(1, 1, 5).expand(3, 1, 5)
    got = read_image(write_image(tmp_path / "a.png", image)) * 255
    torch.testing.assert_close(got[0, 0], torch.tensor([0.0, 0.0, 1.0, 255.0, 255.0]))


def test_gray_and_palette_become_rgb(tmp_path, levels):
    gray = Image.fromarray(levels[..., 0])
    gray.save(tmp_path / "gray.png")
    assert identical(read_image(tmp_path / "gray.png"), as_image(levels[..., :1]).expand(3, -1, -1))
    palette = Image.fromarray(levels).quantize(16)
    palette.save(tmp_path / "palette.png")
    assert identical(read_image(tmp_path / "palette.png"), as_image(np.asarray(palette.convert("RGB"))))
    bits = Image.fromarray(levels[..., 0]).point(lambda v: 255 * (v > 100)).convert("1")
    bits.save(tmp_path / "bits.png")
    assert read_image(tmp_path / "bits.png").unique().tolist() == [0, 1]


def test_16_bit_gray_is_scaled(tmp_path):
    values = np.array([[0, 1, 255, 256], [257, 32768, 65534, 65535]], dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        expected = torch.from_numpy(values.astype(np.float32) / 65535).expand(3, 2, 4)
        torch.testing.assert_close(read_image(tmp_path / name), expected, rtol=0, atol=1e-7)


def test_16_bit_color_keeps_its_low_bytes(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (7, 5, 4)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(png_16bit(values[..., :3]))
    expected = torch.from_numpy(values.astype(np.float32) / 65535).permute(2, 0, 1)
    torch.testing.assert_close(read_image(tmp_path / "a.png"), expected[:3], rtol=0, atol=1e-7)
    (tmp_path / "b.png").write_bytes(png_16bit(values))
    picture = read_picture(tmp_path / "b.png")
    torch.testing.assert_close(torch.cat([picture.rgb, picture.alpha], 1)[0], expected, rtol=0, atol=1e-7)


def test_cmyk_is_converted(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=95)
    red = read_image(tmp_path / "red.jpg").mean(dim=(1, 2))
    torch.testing.assert_close(red, torch.tensor([1.0, 0.0, 0.0]), rtol=0, atol=0.02)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_refused_unless_opaque(tmp_path, levels, mode):
    image = Image.fromarray(levels).convert(mode)
    image.save(tmp_path / "opaque.png")
    expected = np.asarray(Image.fromarray(levels).convert("L" if mode == "LA" else "RGB").convert("RGB"))
    assert identical(read_image(tmp_path / "opaque.png"), as_image(expected))
    image.putalpha(254)
    image.save(tmp_path / "glass.png")
    with pytest.raises(ValueError, match=r"glass\.png has transparent pixels.*flatten it"):
        read_image(tmp_path / "glass.png")


def test_transparent_palette_entry_is_transparency(tmp_path, levels):
    Image.fromarray(levels).quantize(4).save(tmp_path / "a.png", transparency=0)
    alpha = read_picture(tmp_path / "a.png").alpha
    assert alpha.shape == (1, 1, 6, 8) and alpha.unique().tolist() == [0, 1]


def test_tiny_is_read(tmp_path):
    write_image(tmp_path / "dot.png", torch.full((3, 1, 1), 51 / 255))
    assert identical(read_image(tmp_path / "dot.png"), torch.full((3, 1, 1), 51 / 255))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path, levels, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(levels).save(tmp_path / "a.png", exif=exif)
    upright = {
        1: levels,
        2: levels[:, ::-1],
        3: levels[::-1, ::-1],
        4: levels[::-1],
        5: levels.transpose(1, 0, 2),
        6: np.rot90(levels, -1),
        7: levels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(levels),
    }[orientation]
    assert identical(read_image(tmp_path / "a.png"), as_image(upright.copy()))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_picture_keeps_exif_and_profile(tmp_path, levels, suffix):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[0x0110] = "Camera"
    exif.get_ifd(0x8769).update({0x9003: "2024:01:02 03:04:05", 0xA002: 8, 0xA003: 6})
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = tmp_path / f"in{suffix}"
    Image.fromarray(levels).save(source, exif=exif.tobytes(), icc_profile=profile)
    picture = read_picture(source)
    assert picture.rgb.shape == (1, 3, 8, 6) and picture.alpha is None
    larger = Picture(picture.rgb.repeat_interleave(2, 2).repeat_interleave(2, 3), None, picture.exif, picture.icc)
    with Image.open(write_picture(tmp_path / f"out{suffix}", larger)) as image:
        assert image.size == (12, 16)
        assert image.info["icc_profile"] == profile
        kept = image.getexif()
        assert kept.get(ORIENTATION, 1) == 1 and kept[0x0110] == "Camera"
        photo = kept.get_ifd(0x8769)
        assert photo[0x9003] == "2024:01:02 03:04:05" and (photo[0xA002], photo[0xA003]) == (12, 16)
    write_picture(tmp_path / "other.png", larger)  # what a TIFF says about its storage must not leak
    with Image.open(tmp_path / "other.png") as image:
        assert set(image.getexif()) == {ORIENTATION, 0x0110, 0x8769}
    again = read_picture(tmp_path / f"out{suffix}")
    assert again.rgb.shape == (1, 3, 16, 12)  # not turned a second time


def test_profile_of_another_color_space_is_dropped(tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.new("L", (4, 4)).save(tmp_path / "a.png", icc_profile=lab)
    assert read_picture(tmp_path / "a.png").icc is None


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_picture_keeps_transparency(tmp_path, levels, suffix):
    rgb = as_image(levels)[None]
    alpha = torch.linspace(1, 255, 48).round().view(1, 1, 6, 8) / 255
    got = read_picture(write_picture(tmp_path / f"a{suffix}", Picture(rgb, alpha)))
    assert identical(got.rgb, rgb)
    assert identical(got.alpha, alpha)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_transparency_is_refused_where_the_format_has_none(tmp_path, levels, suffix):
    picture = Picture(as_image(levels)[None], torch.ones(1, 1, 6, 8))
    with pytest.raises(ValueError, match=r"has no transparency and this picture does; write a \.png"):
        write_picture(tmp_path / f"a{suffix}", picture)
    assert not list(tmp_path.iterdir())


def broken_files(folder: Path, levels: np.ndarray) -> dict[str, str]:
    """Writes files that cannot be read faithfully; their names, and what the message must say."""
    big = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))

    def encoded(kind: str) -> bytes:
        buffer = io.BytesIO()
        big.save(buffer, kind)
        return buffer.getvalue()

    for kind, suffix in (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("BMP", "bmp"), ("TIFF", "tif")):
        (folder / f"cut.{suffix}").write_bytes(encoded(kind)[: len(encoded(kind)) // 2])
    flipped = bytearray(encoded("PNG"))
    flipped[len(flipped) // 2] ^= 0xFF
    (folder / "flipped.png").write_bytes(flipped)
    (folder / "zero.png").write_bytes(b"")
    (folder / "text.png").write_text("not a picture")
    Image.new("F", (4, 4)).save(folder / "float.tif")
    Image.new("I", (4, 4)).save(folder / "int.tif")
    frame = Image.fromarray(levels)
    frame.save(folder / "film.webp", save_all=True, append_images=[frame.transpose(Image.Transpose.ROTATE_180)])
    frame.save(folder / "sizeless.tif", save_all=True, append_images=[frame])
    width = struct.pack("<HHI", 256, 4, 1)  # how the entry of ImageWidth begins
    before, _, after = (folder / "sizeless.tif").read_bytes().rpartition(width)
    (folder / "sizeless.tif").write_bytes(before + b"\xff" + width[1:] + after)  # the second frame has none
    return {
        **{f"cut.{suffix}": "is (damaged|not a picture)" for suffix in ("jpg", "png", "webp", "bmp", "tif")},
        "flipped.png": "is damaged",
        "sizeless.tif": "holds 2 frames",
        "zero.png": "is empty",
        "text.png": "is not a picture",
        "float.tif": "32 bits per channel",
        "int.tif": "32 bits per channel",
        "film.webp": "holds 2 frames",
    }


def test_unfaithful_files_are_refused_by_name(tmp_path, levels):
    for name, message in broken_files(tmp_path, levels).items():
        for read in (read_image, read_picture):
            with pytest.raises(ValueError, match=f"{name} .*{message}"):
                read(tmp_path / name)


def test_bombs_are_refused(tmp_path, levels, monkeypatch):
    Image.fromarray(levels).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(ValueError, match=r"a\.png is larger than Pillow reads safely"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["nothing.png", "."])
def test_absent_files(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_image(tmp_path / name)


@pytest.mark.parametrize(
    "name, image, error, message",
    [
        ("a.gif", torch.zeros(3, 4, 4), ValueError, r"unknown suffix '\.gif'; use one of \.png"),
        ("a", torch.zeros(3, 4, 4), ValueError, "unknown suffix ''"),
        ("a.png", torch.zeros(2, 3, 4, 4), ValueError, "one file holds one image, got a batch of 2"),
        ("a.png", torch.zeros(1, 4, 4), ValueError, r"shape \(N, 3, H, W\)"),
        ("a.png", torch.full((3, 4, 4), 255.0), ValueError, r"must lie in \[0, 1\]"),
        ("a.png", torch.full((3, 4, 4), torch.nan), ValueError, r"must lie in \[0, 1\]"),
        ("a.png", torch.zeros(3, 4, 4, dtype=torch.uint8), TypeError, "divide 8-bit values by 255"),
    ],
)
def test_writing_refuses_before_it_writes(tmp_path, name, image, error, message):
    with pytest.raises(error, match=message):
        write_image(tmp_path / name, image)
    assert not list(tmp_path.iterdir())
