"""The built-in data sets: found on disk or downloaded, checked, memory-mapped.

torchvision downloads, checks and extracts. The extracted files are mapped as they are, so all
processes of a machine share one copy; files that are there as gzip only are extracted once, into
the project's store. Opening a data set that is on disk imports no torchvision.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import math
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from harness.base import project
from harness.training.dataset import Dataset, Examples
from harness.training.downloads import DataUnavailable, download, torchvision_class
from harness.training.mapped_arrays import key_of, stored

DatasetName = Literal["fashion-mnist", "mnist", "kmnist", "digits"]

TORCHVISION_CLASSES = {"fashion-mnist": "FashionMNIST", "mnist": "MNIST", "kmnist": "KMNIST"}
"""The class in `torchvision.datasets`; also the name of its folder below the data root."""

CLASS_NAMES = {
    "fashion-mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "mnist": tuple("0123456789"),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    "digits": tuple("0123456789"),
}

SIDE = 28
"""Height and width of an image, in pixels."""

DIGITS_TEST_SIZE = 360
"""The last 360 of the 1,797 digits are the test set."""

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist has the gzip files."""

FASHION_MNIST_SHA256 = (
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
)
"""Digests of the four published files of Fashion-MNIST, extracted: the package is another gzip."""


def data_root(folder: Path | None = None) -> Path:
    """The folder of the data sets: `folder`, or HARNESS_DATA_ROOT, or `data` in the project.

    A relative `folder`, which is typed, starts at the current folder. HARNESS_DATA_ROOT is set for
    all folders of a project and starts at its root.
    """
    if folder is not None:
        return folder.absolute()
    return project.root() / (os.environ.get("HARNESS_DATA_ROOT") or "data")


def on_disk(name: DatasetName, root: Path) -> bool:
    """Whether all files of a data set exist, extracted or not; they may still be damaged."""
    return name == "digits" or bool(_extracted_files(name, root) or _gzip_files(name, root))


def open_dataset(name: DatasetName, root: Path) -> Dataset:
    """Open a data set below `root`; the first use downloads it there.

    Raises:
        DataUnavailable: the data set cannot be downloaded, or a file is truncated, malformed or
            unreadable. The message names the file and the ways out.
    """
    classes = CLASS_NAMES[name]
    if name == "digits":
        train, test = _digits()
        return Dataset(name, train, lambda: test, classes)
    if not on_disk(name, root):
        _download(name, root)
    files = _extracted_files(name, root) or _extracted(_gzip_files(name, root))
    train_images, train_labels, test_images, test_labels = files
    train = read_images(train_images, train_labels)
    return Dataset(name, train, lambda: read_images(test_images, test_labels), classes)


def read_images(images: Path, labels: Path) -> Examples:
    """Map an images file and read its labels file, both in the IDX format.

    The format is big-endian: a magic number (2051 for images, 2049 for labels), the count, for
    images the height and the width, then one byte for each pixel or label.

    Returns:
        Inputs (n, 1, 28, 28), uint8, and labels (n,) in 0..9.

    Raises:
        DataUnavailable: a file is malformed, or the two do not belong together.
    """
    pixels = _map_idx(images, magic=2051, item_shape=(SIDE, SIDE)).unsqueeze(1)
    classes = _map_idx(labels, magic=2049, item_shape=()).to(torch.int64)
    if len(pixels) != len(classes):
        what = f"{len(classes)} labels for the {len(pixels)} images of {images.name}"
        raise _damaged(labels, what)
    if int(classes.max()) > 9:
        raise _damaged(labels, f"label {int(classes.max())} is not in 0..9")
    return Examples(pixels, classes)


def _raw(name: str, root: Path) -> Path:
    """Where torchvision keeps the files of a data set."""
    return root / TORCHVISION_CLASSES[name] / "raw"


def _files(folder: Path, ending: str = "") -> list[Path]:
    parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return [folder / f"{part}-ubyte{ending}" for part in parts]


def _extracted_files(name: str, root: Path) -> list[Path]:
    """The four files, as torchvision lays them out or in the folder itself; empty if one lacks."""
    found = (_files(folder) for folder in (_raw(name, root), root))
    return next((files for files in found if all(map(os.path.exists, files))), [])


def _gzip_files(name: str, root: Path) -> list[Path]:
    """The same as gzip files; those of Debian's package last."""
    folders = [_raw(name, root), root, *([DEBIAN_FOLDER] if name == "fashion-mnist" else [])]
    found = (_files(folder, ".gz") for folder in folders)
    return next((files for files in found if all(map(os.path.exists, files))), [])


def _extracted(files: Sequence[Path]) -> list[Path]:
    """Gzip files as extracted ones in the project's store, made once: their own folder may be
    read-only.

    Raises:
        DataUnavailable: a file is damaged, or the store cannot be written.
    """
    known = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]

    def write(folder: Path) -> None:
        for file, target in zip(files, _files(folder), strict=True):
            _extract(file, target)

    return _files(stored(key_of(known), write))


def _extract(file: Path, target: Path) -> None:
    sha256 = hashlib.sha256()
    with target.open("wb") as out:
        try:
            with gzip.open(file) as packed:
                while part := packed.read(1 << 20):
                    sha256.update(part)
                    out.write(part)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise _damaged(file, f"cannot be extracted ({error})") from None
    if not target.stat().st_size:
        raise _damaged(file, "cannot be extracted (it is empty)")
    if file.parent == DEBIAN_FOLDER and sha256.hexdigest() not in FASHION_MNIST_SHA256:
        raise _damaged(file, "its content is not that of Fashion-MNIST")


def _map_idx(path: Path, magic: int, item_shape: tuple[int, ...]) -> torch.Tensor:
    """The bytes of an IDX file after its header, mapped copy-on-write, (count, ...) uint8."""
    header = struct.Struct(f">{2 + len(item_shape)}I")
    try:
        with path.open("rb") as file:
            start = file.read(header.size)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise _damaged(path, f"cannot be read ({error.strerror})") from None
    if len(start) < header.size:
        raise _damaged(path, f"truncated, {size} bytes are less than its header")
    found, count, *shape = header.unpack(start)
    if found != magic:
        raise _damaged(path, f"magic number {found} instead of {magic}")
    if tuple(shape) != item_shape:
        raise _damaged(path, f"images of {'x'.join(map(str, shape))} instead of 28x28 pixels")
    if count == 0:
        raise _damaged(path, "it is empty")
    expected = header.size + count * math.prod(item_shape)
    if size != expected:
        what = "truncated" if size < expected else "too long"
        raise _damaged(path, f"{what}, {size} bytes instead of the {expected} of {count} items")
    try:
        mapped = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    except RuntimeError as error:
        raise _damaged(path, f"cannot be mapped ({error})") from None
    return mapped[header.size :].view(count, *item_shape)


def _damaged(path: Path, what: str) -> DataUnavailable:
    return DataUnavailable(
        f"{path}: {what}.\n"
        "Delete the file to download it again, choose another --data-root, or train on "
        "--dataset digits."
    )


def _digits() -> tuple[Examples, Examples]:
    """The 8x8 digits of scikit-learn, enlarged to 28x28.

    Each pixel becomes a square of 3x3, a black border of 2 pixels surrounds the 24x24 image, and
    the grey values 0..16 become 0..255. The file is read directly, because importing scikit-learn
    takes longer than training on the digits.
    """
    try:
        package = importlib.metadata.distribution("scikit-learn")
        table_file = package.locate_file("sklearn/datasets/data/digits.csv.gz")
        with gzip.open(str(table_file), "rt") as file:
            rows = [[int(float(value)) for value in line.split(",")] for line in file]
    except (importlib.metadata.PackageNotFoundError, OSError) as error:
        message = f"digits comes with scikit-learn, which is missing: {error}"
        raise DataUnavailable(message) from None
    table = torch.tensor(rows)
    grey = (table[:, :64].view(-1, 8, 8) * 255 + 8) // 16
    enlarged = grey.repeat_interleave(3, dim=1).repeat_interleave(3, dim=2)
    pixels = torch.nn.functional.pad(enlarged, (2, 2, 2, 2)).to(torch.uint8).unsqueeze(1)
    labels = table[:, 64].contiguous()
    n = len(table) - DIGITS_TEST_SIZE
    return Examples(pixels[:n], labels[:n]), Examples(pixels[n:], labels[n:])


def _download(name: DatasetName, root: Path) -> None:
    folder = TORCHVISION_CLASSES[name]

    def fetch(staging: Path) -> None:
        torchvision_class(folder)(staging, download=True)
        for file in _raw(name, staging).glob("*.gz"):
            file.unlink()

    debian = "Debian's package dataset-fashion-mnist, " if name == "fashion-mnist" else ""
    download(
        name,
        root,
        lambda: on_disk(name, root),
        fetch,
        f"a --data-root (or HARNESS_DATA_ROOT) that holds {folder}/raw or the four files "
        f"themselves, {debian}a mirror (HARNESS_DATA_MIRROR=URL), --dataset digits, or "
        "harness.run's --fallback digits.",
    )
