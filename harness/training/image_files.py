"""Image files in folders, one folder for each class: decoded once, into the project's store."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from harness.base.errors import BadRequest, nearest
from harness.base.processors import processors
from harness.training.downloads import DataUnavailable
from harness.training.mapped_arrays import key_of, mapped, stored

if TYPE_CHECKING:
    from PIL import Image

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
"""Of the files that are taken for images."""

MOST_DECODERS = 8
"""Threads that decode images; the decoders release Python's lock."""


@dataclass(frozen=True)
class ImageFolder:
    """The image files below a folder.

    Attributes:
        files: in the order of their classes, then of their paths.
        labels: (n,), the number of the class of each.
    """

    path: Path
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: tuple[int, ...]

    def chosen(self, positions: Sequence[int]) -> ImageFolder:
        """The files at some positions."""
        return ImageFolder(
            self.path,
            self.classes,
            tuple(self.files[i] for i in positions),
            tuple(self.labels[i] for i in positions),
        )


def find_images(path: Path) -> ImageFolder:
    """The images in the folders below `path`, each of which is a class.

    Raises:
        BadRequest: there is no such folder, or no image in it or in one of the classes.
    """
    if not path.is_dir():
        siblings = [entry.name for entry in path.parent.glob("*") if entry.is_dir()]
        hint = f" {nearest(path.name, siblings)}" if siblings else ""
        raise BadRequest(f"from_image_folder: {path} is no folder.{hint}")
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and _is_shown(entry))
    if not folders:
        raise BadRequest(
            f"from_image_folder: {path} holds no folders: expected one for each class, with the "
            "images of the class in it."
        )
    if len(folders) < 2:
        raise BadRequest(
            f"from_image_folder: {path} holds the folder {folders[0].name} alone: expected one for "
            "each class, or train and test with the folders of the classes in both."
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in ENDINGS)
        if not found:
            raise BadRequest(f"from_image_folder: {folder} holds no images ({_endings()}).")
        files += found
        labels += [label] * len(found)
    classes = tuple(folder.name for folder in folders)
    return ImageFolder(path, classes, tuple(files), tuple(labels))


def decoded_images(
    images: ImageFolder, size: tuple[int, int] | None, *, grey: bool
) -> torch.Tensor:
    """The images, (n, channels, height, width), uint8, with three channels or, if grey, one.

    Args:
        size: height and width to scale each image to; by default all are of one size.

    Raises:
        BadRequest: the images differ in size, or do not fit into memory.
        DataUnavailable: a file cannot be decoded.
    """
    import psutil  # a training on other data does without it

    height, width = size or _size_of(images.files[0])
    shape = (len(images.files), 1 if grey else 3, height, width)
    needed, free = int(np.prod(shape)), psutil.virtual_memory().available
    if needed > free:
        raise BadRequest(
            f"from_image_folder: {len(images.files):,} images of {'x'.join(map(str, shape[1:]))} "
            f"take {needed / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB of memory are free. "
            "Scale them to a smaller size=(height, width)."
        )
    known = [(str(f), (s := f.stat()).st_size, s.st_mtime_ns) for f in images.files]

    def write(folder: Path) -> None:
        from tqdm import tqdm  # only here, where a user waits

        array = np.memmap(folder / "array", np.uint8, "w+", shape=shape)

        def decode(position: int) -> None:
            array[position] = _decoded(images.files[position], (height, width), size, grey)

        with ThreadPoolExecutor(min(MOST_DECODERS, processors())) as pool:
            positions = pool.map(decode, range(len(array)))
            title = f"decoding {images.path.name}"
            for _ in tqdm(positions, title, len(array), unit=" images", leave=False, disable=None):
                pass
        array.flush()

    folder = stored(key_of(known, size, grey), write)
    return mapped(folder / "array", torch.uint8, shape)


def _decoded(
    file: Path, expected: tuple[int, int], size: tuple[int, int] | None, grey: bool
) -> np.ndarray:
    """One image, (channels, height, width), uint8."""
    with _opened(file) as image:
        if (image.height, image.width) != expected and not size:
            raise BadRequest(
                f"from_image_folder: {file} is {image.height}x{image.width} pixels, the first "
                f"image {expected[0]}x{expected[1]}. Scale all to one size=(height, width)."
            )
        if image.mode.startswith(("I", "F")):
            raise BadRequest(
                f"from_image_folder: {file} has more than 8 bits for each value: read such images "
                "yourself, and give them to Dataset.from_arrays as float32."
            )
        try:
            converted = image.convert("L" if grey else "RGB")
        except Exception as error:  # whatever the format's decoder raises
            raise DataUnavailable(f"{file}: cannot be decoded ({error}).") from None
    if size:
        converted = converted.resize((size[1], size[0]))
    pixels = np.asarray(converted, np.uint8)
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _size_of(file: Path) -> tuple[int, int]:
    with _opened(file) as image:
        return image.height, image.width


def _opened(file: Path) -> Image.Image:
    from PIL import Image  # only where images are read

    try:
        return Image.open(file)
    except Exception as error:  # whatever the format's decoder raises
        raise DataUnavailable(f"{file}: cannot be decoded ({error}).") from None


def _is_shown(entry: Path) -> bool:
    return not entry.name.startswith((".", "__"))


def _endings() -> str:
    return ", ".join(sorted(ENDINGS))
