"""Image data sets: found on disk or downloaded, checked, memory-mapped, split.

torchvision downloads, checks and extracts; the extracted files are mapped as they are, so that all
processes of a machine share one copy, and nothing is cached beside them. A data set that is on disk
already is opened without importing torchvision.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import gzip
import hashlib
import http.client
import importlib.metadata
import os
import shutil
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock

from harness.base.errors import BadRequest, RunFailed
from harness.base.privacy import mask
from harness.base.project import ROOT

DatasetName = Literal["fashion-mnist", "mnist", "kmnist", "digits"]

TORCHVISION_CLASSES = {"fashion-mnist": "FashionMNIST", "mnist": "MNIST", "kmnist": "KMNIST"}
"""The class in `torchvision.datasets`, which is also the folder it uses below the data root."""

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

PIXELS = SIDE * SIDE

DIGITS_TEST_SIZE = 360
"""The last 360 of the 1,797 digits are their test set."""

SILENCE_SECONDS = 10.0
"""How long a download server may stay silent, connecting included."""


class DataUnavailable(RunFailed):
    """A data set is neither on disk nor to be downloaded, or its files are damaged."""


@dataclass(frozen=True)
class Images:
    """Images with their labels, on one device.

    Attributes:
        pixels: (n, 784), uint8.
        labels: (n,), int64, in 0..9.
        rows: (m,), int64: which of the n belong to this set; None for all of them.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels if self.rows is None else self.rows)

    def batch(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (b, 1, 28, 28) as float32 in [0, 1] and labels (b,) at `positions`, (b,) int64.

        The conversion is that of torchvision's `ToTensor`: to float32, then divided by 255.
        """
        if self.rows is not None:
            positions = self.rows.index_select(0, positions)
        return (
            _as_float(self.pixels.index_select(0, positions)),
            self.labels.index_select(0, positions),
        )

    def batches(
        self, size: int, order: torch.Tensor | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Images and labels as `batch` has them, `size` at once and in the end what is left.

        Args:
            order: positions, (m,) int64; those of all images, as they come, unless given.
        """
        rows = self.rows
        if order is not None:
            rows = order if rows is None else rows.index_select(0, order)
        # Labels and rows are small: they are looked up for all batches at once. It is a copy, as
        # the pixels' conversion is: whoever trains may write into what he is given.
        labels = self.labels.clone() if rows is None else self.labels.index_select(0, rows)
        for start in range(0, len(labels), size):
            part = slice(start, start + size)
            pixels = self.pixels[part] if rows is None else self.pixels.index_select(0, rows[part])
            yield _as_float(pixels), labels[part]

    def to(self, device: torch.device) -> Images:
        """The same images on another device (themselves where they are there already)."""
        rows = None if self.rows is None else self.rows.to(device)
        return Images(self.pixels.to(device), self.labels.to(device), rows)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the shape, the pixels and the labels of this set, in its order."""
        chosen = slice(None) if self.rows is None else self.rows
        pixels, labels = self.pixels[chosen].cpu(), self.labels[chosen].to("cpu", torch.uint8)
        sha256 = hashlib.sha256(f"{tuple(pixels.shape)}".encode())
        sha256.update(pixels.numpy().data)
        sha256.update(labels.numpy().data)
        return sha256.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """A data set as it was found: the published training and test images.

    Opened without its test images, `test` is empty.
    """

    name: str
    train: Images
    test: Images

    def split(self, validation_size: int, split_seed: int) -> tuple[Images, Images]:
        """Training images less `validation_size` drawn by `split_seed`, and those drawn.

        Both keep the order of the data set. With `validation_size` 0 the second set is empty.

        Raises:
            BadRequest: no image would be left to train on.
        """
        n = len(self.train)
        if validation_size >= n:
            raise BadRequest(
                f"validation_size: {validation_size} is not allowed, {self.name} has {n} training "
                f"images here: it must be at most {n - 1}."
            )
        generator = torch.Generator().manual_seed(split_seed)
        drawn = torch.zeros(n, dtype=torch.bool)
        drawn[torch.randperm(n, generator=generator)[:validation_size]] = True
        kept = (~drawn).nonzero()[:, 0] if validation_size else None
        return (
            dataclasses.replace(self.train, rows=kept),
            dataclasses.replace(self.train, rows=drawn.nonzero()[:, 0]),
        )


def data_root(folder: Path | None = None) -> Path:
    """The folder of the data sets: the one given, HARNESS_DATA_ROOT, or `data` in the root.

    A relative path starts at the project's root, whatever the current folder.
    """
    return ROOT / (folder or os.environ.get("HARNESS_DATA_ROOT") or "data")


def on_disk(name: DatasetName, root: Path) -> bool:
    """Whether the data set needs no download (its files may still turn out to be damaged)."""
    return name == "digits" or all(map(os.path.exists, _paths(name, root)))


def open_dataset(name: DatasetName, root: Path, *, with_test: bool = True) -> Dataset:
    """Open a data set below `root`, downloading it there on first use.

    Without `with_test` the test images are not read: who selects must not see them.

    Raises:
        DataUnavailable: it cannot be had, or a file is truncated, malformed or unreadable; the
            message names the file and the ways out.
    """
    if name == "digits":
        train, test = _digits()
    else:
        if not on_disk(name, root):
            _download(name, root)
        train_images, train_labels, test_images, test_labels = _paths(name, root)
        train = read_images(train_images, train_labels)
        test = read_images(test_images, test_labels) if with_test else train
    return Dataset(name, train, test if with_test else dataclasses.replace(train, rows=_no_rows()))


def read_images(images: Path, labels: Path) -> Images:
    """Map an images file and read its labels file, both in the IDX format.

    The format is big-endian: a magic number, 2051 for images and
    2049 for labels; the count; for images the height and width; then one byte a pixel or label.

    Raises:
        DataUnavailable: a file is not what it should be, or the two do not belong together.
    """
    pixels = _map_idx(images, magic=2051, item_shape=(SIDE, SIDE)).view(-1, PIXELS)
    classes = _map_idx(labels, magic=2049, item_shape=()).to(torch.int64)
    if len(pixels) != len(classes):
        what = f"{len(classes)} labels for the {len(pixels)} images of {images.name}"
        raise _damaged(labels, what)
    if int(classes.max()) > 9:
        raise _damaged(labels, f"label {int(classes.max())} is not in 0..9")
    return Images(pixels, classes)


def _as_float(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.view(-1, 1, SIDE, SIDE).to(torch.float32).div_(255)


def _paths(name: str, root: Path) -> list[Path]:
    raw = root / TORCHVISION_CLASSES[name] / "raw"
    parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return [raw / f"{part}-ubyte" for part in parts]


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
    expected = header.size + count * (PIXELS if item_shape else 1)
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


def _no_rows() -> torch.Tensor:
    return torch.empty(0, dtype=torch.int64)


def _digits() -> tuple[Images, Images]:
    """The 8x8 digits of scikit-learn, enlarged to 28x28.

    Each pixel becomes a square of 3x3, a black border of 2 pixels surrounds the 24x24, and the grey
    values 0..16 become 0..255. The file is read without importing scikit-learn, which takes longer
    than training on it.
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
    pixels = torch.nn.functional.pad(enlarged, (2, 2, 2, 2)).to(torch.uint8).view(-1, PIXELS)
    labels = table[:, 64].contiguous()
    n = len(table) - DIGITS_TEST_SIZE
    return Images(pixels[:n], labels[:n]), Images(pixels[n:], labels[n:])


def _download(name: DatasetName, root: Path) -> None:
    """Download through torchvision into a folder of its own, then move what is whole.

    A download that is cut off leaves nothing where a data set would be looked for. Processes that
    need the same data wait for the first one.
    """
    folder = TORCHVISION_CLASSES[name]
    staging = root / f".{folder}-download"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{folder}.lock"):
            if on_disk(name, root):
                return
            shutil.rmtree(staging, ignore_errors=True)
            try:
                _fetch(folder, staging)
                for path, target in zip(_paths(name, staging), _paths(name, root), strict=True):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(target)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except (OSError, RuntimeError, EOFError, ValueError, http.client.HTTPException) as error:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        reason = "the disk is full" if full else " ".join(mask(str(error)).split())
        raise DataUnavailable(
            f"{name} is not in {root} and cannot be downloaded: {reason}\n"
            f"Ways out: a --data-root (or HARNESS_DATA_ROOT) that holds {folder}/raw, a mirror "
            "(HARNESS_DATA_MIRROR=URL), --dataset digits, or harness.run's --fallback digits."
        ) from None


def _fetch(class_name: str, root: Path) -> None:
    from torchvision import datasets

    dataset_class = getattr(datasets, class_name)
    if mirror := os.environ.get("HARNESS_DATA_MIRROR"):
        if "@" in mirror:  # urllib would take it for a part of the host's name, and show it
            raise ValueError(
                "HARNESS_DATA_MIRROR holds a user name or password, which a download cannot send "
                "(an @ in a path is written %40)."
            )
        mirrors = [mirror.rstrip("/") + "/"]
        dataset_class = type(class_name, (dataset_class,), {"mirrors": mirrors})
    with _silence_limit(SILENCE_SECONDS):
        dataset_class(root, download=True)


@contextlib.contextmanager
def _silence_limit(seconds: float) -> Iterator[None]:
    """Make every socket that is opened meanwhile give up after `seconds` of silence."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
