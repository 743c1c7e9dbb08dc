"""EXIF blocks: the orientation, and a block that fits the picture as it is written."""

from PIL import Image

ORIENTATION = 0x0112
_EXIF_IFD, _WIDTH, _HEIGHT = 0x8769, 0xA002, 0xA003


def exif_for_size(exif: bytes, width: int, height: int) -> bytes:
    """The EXIF block with the size it states, if it does, brought up to date."""
    block = Image.Exif()
    block.load(exif)
    photo = block.get_ifd(_EXIF_IFD)
    photo.update({tag: value for tag, value in ((_WIDTH, width), (_HEIGHT, height)) if tag in photo})
    return block.tobytes()
