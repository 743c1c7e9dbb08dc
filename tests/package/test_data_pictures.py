"""What survives with a picture: transparency, gray, EXIF data, profile, resolution; and what a format can hold."""

import os
import struct
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from rounding import identical

from benchmarks.attack._containers import ASCII, LONG, RATIONAL, SHORT, chunk, exif, png, segment
from srbook.data import (
    Picture,
    fill_transparent,
    picture_size,
    read_picture,
    require_writable,
    write_levels,
    write_picture,
)

RGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY_PROFILE = RGB_PROFILE[:16] + b"GRAY" + RGB_PROFILE[20:]
SUFFIXES = [".png", ".jpg", ".webp", ".bmp", ".tif"]


@pytest.fixture
def picture() -> Picture:
    ramp = torch.arange(48).view(1, 1, 6, 8) / 47
    return Picture(torch.cat([ramp, ramp.flip(2), ramp.flip(3)], dim=1))


def gray(picture: Picture) -> Picture:
    return replace(picture, rgb=picture.rgb[:, :1].expand(-1, 3, -1, -1), gray=True)


def block(**more) -> bytes:
    tags = {274: (SHORT, [1]), 271: (ASCII, b"Maker of cameras\0")}
    return b"Exif\0\0" + exif(tags | more.get("tags", {}), more.get("order", "<"))


# --- transparency


def test_hidden_colors_become_the_nearest_visible_ones():
    rgb = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5]]).expand(1, 3, 1, 5)
    alpha = torch.tensor([0.0, 0.0, 0.25, 1.0, 0.001]).view(1, 1, 1, 5)
    got = fill_transparent(rgb, alpha)
    torch.testing.assert_close(got[0, 1, 0], torch.tensor([0.3, 0.3, 0.3, 0.4, 0.4]))
    assert identical(rgb[0, 1, 0], torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]))  # the argument stays as it was


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_without_a_border_nothing_is_filled(picture, alpha):
    assert identical(fill_transparent(picture.rgb, torch.full((1, 1, 6, 8), alpha)), picture.rgb)


# --- gray


@pytest.mark.parametrize("suffix, mode", [(".png", "L"), (".jpg", "L"), (".tif", "L"), (".bmp", "L"), (".webp", "RGB")])
def test_gray_stays_gray(tmp_path, picture, suffix, mode):
    path = write_picture(tmp_path / f"a{suffix}", gray(picture))
    with Image.open(path) as image:
        assert image.mode == mode
    again = read_picture(path)
    assert again.gray and (again.rgb - gray(picture).rgb).abs().max() < 3 / 255
    assert not read_picture(write_picture(tmp_path / f"b{suffix}", picture)).gray


def test_gray_keeps_its_alpha(tmp_path, picture):
    alpha = picture.rgb[:, :1]
    for suffix in (".png", ".tif"):
        path = write_picture(tmp_path / f"a{suffix}", replace(gray(picture), alpha=alpha))
        with Image.open(path) as image:
            assert image.mode == "LA"
        assert read_picture(path).gray and (read_picture(path).alpha - alpha).abs().max() < 0.51 / 255


def test_a_color_file_without_color_is_gray_and_keeps_its_profile(tmp_path, picture):
    levels = np.arange(48, dtype=np.uint8).reshape(6, 8, 1).repeat(3, 2)
    Image.fromarray(levels).save(tmp_path / "a.png", icc_profile=RGB_PROFILE)
    read = read_picture(tmp_path / "a.png")
    assert read.gray and read.icc == RGB_PROFILE
    with Image.open(write_picture(tmp_path / "b.png", read)) as image:
        assert image.mode == "RGB" and image.info["icc_profile"] == RGB_PROFILE


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_a_gray_profile_is_kept_for_gray(tmp_path, picture, suffix):
    Image.new("L", (4, 4)).save(tmp_path / "in.png", icc_profile=GRAY_PROFILE)
    read = read_picture(tmp_path / "in.png")
    assert read.icc == GRAY_PROFILE and not read.dropped
    assert read_picture(write_picture(tmp_path / f"out{suffix}", read)).icc == GRAY_PROFILE
    assert require_writable("a.webp", read, 4, 4) == ("color profile (of gray, for a file of colors)",)


def test_the_profile_of_cmyk_is_dropped_with_a_word(tmp_path):
    Image.new("CMYK", (8, 8)).save(tmp_path / "a.jpg", icc_profile=RGB_PROFILE[:16] + b"CMYK" + RGB_PROFILE[20:])
    assert read_picture(tmp_path / "a.jpg").dropped == ("color profile (of other colors)",)


# --- EXIF data, resolution, and marks


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_tags_are_copied_whatever_they_hold(tmp_path, picture, suffix, order):
    words = {271: (SHORT, [7, 8, 9]), 305: (RATIONAL, [0, 0]), 0x8298: (LONG, [1])}  # no text where text should be
    exif_of = replace(picture, exif=block(tags=words, order=order))
    again = read_picture(write_picture(tmp_path / f"a{suffix}", exif_of))
    assert again.exif == block(tags=words, order="<" if suffix == ".tif" else order)
    assert again.dropped == ()


def test_sizes_in_exif_are_brought_up_to_date(tmp_path, picture):
    inner = exif({0xA002: (SHORT, [8]), 0xA003: (SHORT, [6])})[8:]
    outer = exif({274: (SHORT, [1]), 34665: (LONG, [38])})
    path = write_picture(tmp_path / "a.jpg", replace(picture, exif=b"Exif\0\0" + outer + inner))
    with Image.open(path) as image:
        assert dict(image.getexif().get_ifd(34665)) == {0xA002: 8, 0xA003: 6}
    wide = Image.new("RGB", (70_000, 1))
    with Image.open(write_levels(tmp_path / "b.png", wide, read_picture(path))) as image:
        assert dict(image.getexif().get_ifd(34665)) == {0xA002: 70_000, 0xA003: 1}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_resolution_is_kept(tmp_path, picture, suffix):
    path = write_picture(tmp_path / f"a{suffix}", replace(picture, dpi=(300.0, 150.0)))
    assert read_picture(path).dpi == pytest.approx((300, 150), abs=0.02)


def test_resolution_turns_with_the_picture(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg", dpi=(300, 150), exif=block(tags={274: (SHORT, [6])}))
    assert read_picture(tmp_path / "a.jpg").dpi == (150, 300)


def test_resolution_out_of_range_is_dropped(tmp_path, picture):
    levels = np.zeros((6, 8, 3), int)
    (tmp_path / "a.png").write_bytes(png(levels, 2, 8, before=chunk(b"pHYs", struct.pack(">LLB", 2**31, 1, 1))))
    assert read_picture(tmp_path / "a.png").dropped == ("resolution (out of range)",)


def test_what_is_dropped_is_named_once(tmp_path):
    texts = (
        chunk(b"tEXt", b"Title\0a") + chunk(b"tEXt", b"Author\0b") + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>")
    )
    (tmp_path / "a.png").write_bytes(png(np.zeros((6, 8, 3), int), 2, 8, before=texts))
    assert read_picture(tmp_path / "a.png").dropped == ("text", "XMP")


def test_marks_of_color_stay_in_png_and_are_named_elsewhere(tmp_path):
    linear, hdr = chunk(b"gAMA", struct.pack(">L", 100_000)), chunk(b"cICP", b"\x09\x10\0\1")
    (tmp_path / "a.png").write_bytes(png(np.zeros((6, 8, 3), int), 2, 8, before=linear + hdr))
    read = read_picture(tmp_path / "a.png")
    assert dict(read.marks) == {b"gAMA": linear[8:12], b"cICP": b"\x09\x10\0\1"}
    assert read_picture(write_picture(tmp_path / "b.png", read)).marks == read.marks
    assert require_writable("b.png", read, 6, 8) == ()
    assert require_writable("b.tif", read, 6, 8) == ("gAMA (TIFF has none)", "cICP (TIFF has none)")
    usual = replace(read, marks=((b"gAMA", struct.pack(">L", 45455)), (b"sRGB", b"\0")))
    assert require_writable("b.tif", usual, 6, 8) == ()


# --- what a format can hold


@pytest.mark.parametrize(
    "name, height, width, message",
    [
        ("a.webp", 4, 16384, "WEBP holds at most 16383 pixels a side and this would have 16384 x 4"),
        ("a.jpg", 65501, 4, "JPEG holds at most 65500 pixels a side"),
        ("a.tif", 40_000, 40_000, "TIFF holds at most 4 GiB"),
        ("a.bmp", 40_000, 40_000, "BMP holds at most 4 GiB"),
        ("a.gif", 4, 4, r"unknown suffix '\.gif'"),
    ],
)
def test_limits_are_known_before_the_work(picture, name, height, width, message):
    with pytest.raises(ValueError, match=message):
        require_writable(name, picture, height, width)
    require_writable("a.png", picture, height, width)


def test_the_stated_limits_are_those_of_the_encoders(tmp_path, picture):
    for name, side in (("a.webp", 16383), ("a.jpg", 65500)):
        require_writable(tmp_path / name, picture, 1, side)
        write_levels(tmp_path / name, Image.new("L", (side, 1)), picture)
        with pytest.raises((ValueError, OSError)):
            Image.new("L", (side + 1, 1)).save(tmp_path / name)


def test_what_a_format_cannot_hold_is_said_and_left_out(tmp_path, picture):
    long = replace(picture, exif=block(tags={0x9286: (7, bytes(70_000))}), icc=RGB_PROFILE, dpi=(72, 72))
    assert require_writable("a.jpg", long, 6, 8) == ("EXIF data (over 64 kB, the limit of JPEG)",)
    assert require_writable("a.bmp", long, 6, 8) == ("EXIF data (BMP has none)", "color profile (BMP has none)")
    assert require_writable("a.webp", long, 6, 8) == ("resolution (WEBP has none)",)
    assert require_writable("a.png", long, 6, 8) == ()
    for suffix in SUFFIXES:
        assert read_picture(write_picture(tmp_path / f"a{suffix}", long)).rgb.shape == (1, 3, 6, 8)
    assert read_picture(tmp_path / "a.png").exif == long.exif and read_picture(tmp_path / "a.jpg").exif is None
    largest = 65532 - len(long.exif) + 70_000
    fits = replace(picture, exif=block(tags={0x9286: (7, bytes(largest))}))
    assert require_writable("a.jpg", fits, 6, 8) == ()
    assert read_picture(write_picture(tmp_path / "b.jpg", fits)).exif == fits.exif


def test_places_that_cannot_be_written_to(tmp_path, picture, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(NotADirectoryError, match="file is a file"):
        require_writable(tmp_path / "file" / "deep" / "a.png", picture, 6, 8)
    with pytest.raises(IsADirectoryError, match=r"folder\.png is a folder"):
        require_writable(tmp_path / "folder.png", picture, 6, 8)
    with pytest.raises(OSError, match="name too long"):
        require_writable(tmp_path / f"{'x' * 300}.png", picture, 6, 8)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(PermissionError, match="no permission to write into"):
        require_writable(tmp_path / "new" / "a.png", picture, 6, 8)


# --- sizes


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_size_from_the_header_is_upright(tmp_path, suffix):
    Image.new("RGB", (8, 6)).save(tmp_path / f"a{suffix}", exif=block(tags={274: (SHORT, [6])}))
    assert picture_size(tmp_path / f"a{suffix}") == (8, 6) == read_picture(tmp_path / f"a{suffix}").rgb.shape[2:]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_more_pixels_than_usual_are_taken_on_request(tmp_path, picture, monkeypatch):
    path = write_picture(tmp_path / "a.png", picture)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(ValueError, match="larger than Pillow reads safely"):
        read_picture(path)
    assert read_picture(path, max_pixels=48).rgb.shape == (1, 3, 6, 8) and picture_size(path, max_pixels=48) == (6, 8)
    with pytest.raises(ValueError, match=r"a\.png has 8 x 6 pixels, and at most 47 are taken"):
        read_picture(path, max_pixels=47)
    assert Image.MAX_IMAGE_PIXELS == 20


def test_the_limit_is_restored_whatever_happens(tmp_path, picture, monkeypatch):
    write_picture(tmp_path / "a.png", picture)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)

    def read(name: str) -> None:
        for _ in range(20):
            try:
                read_picture(tmp_path / name, max_pixels=100)
            except ValueError:
                assert name == "b.png"

    threads = [threading.Thread(target=read, args=(name,)) for name in ("a.png", "b.png", "a.png")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_no_pixels_are_copied_to_be_written(tmp_path, picture):
    """The encoders take the pixels from where they are: the image is not asked for another one."""

    class Watched(Image.Image):
        def copy(self):
            raise AssertionError("copied")

        convert = copy

    for mode in ("L", "RGB", "RGBA"):
        for suffix in (".png", ".tif") if mode == "RGBA" else (".png", ".tif", ".jpg", ".bmp"):
            image = Image.new(mode, (8, 6))
            image.__class__ = Watched
            write_levels(tmp_path / f"a{suffix}", image, picture)


def test_a_segment_of_a_jpeg_does_not_outlive_it(tmp_path):
    """A resolution in EXIF alone counts, one in JFIF before it."""
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    tags = {282: (RATIONAL, [240, 1]), 283: (RATIONAL, [120, 1])}
    (tmp_path / "b.jpg").write_bytes(data[:2] + segment(0xE1, block(tags=tags)) + data[20:])
    assert read_picture(tmp_path / "b.jpg").dpi == (240, 120)
