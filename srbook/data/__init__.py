"""Photographs: reading, writing, folders, training patches, samples, and the standard sets."""

from srbook.data import catalog
from srbook.data.classes import LabeledPatches, image_classes
from srbook.data.folder import ImageFolder, image_files
from srbook.data.io import (
    IMAGE_SUFFIXES,
    Picture,
    image_format,
    picture_size,
    read_image,
    read_picture,
    require_writable,
    write_image,
    write_levels,
    write_picture,
)
from srbook.data.patches import PairedPatches
from srbook.data.photographs import Sample, held_out_samples, sample, samples, training_samples
from srbook.data.transparency import fill_transparent

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageFolder",
    "LabeledPatches",
    "PairedPatches",
    "Picture",
    "Sample",
    "catalog",
    "fill_transparent",
    "held_out_samples",
    "image_classes",
    "image_files",
    "image_format",
    "picture_size",
    "read_image",
    "read_picture",
    "require_writable",
    "sample",
    "samples",
    "training_samples",
    "write_image",
    "write_levels",
    "write_picture",
]
