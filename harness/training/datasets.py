"""Image data sets: found on disk or downloaded, checked, memory-mapped, split.

torchvision downloads, checks and extracts. The extracted files are mapped as they are, so all
processes of a machine share one copy; files that are there as gzip only are extracted once, into
the project's store. Opening a data set that is on disk imports no torchvision.
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
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock

from harness.base import project
from harness.base.errors import BadRequest, RunFailed
from harness.base.privacy import mask

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

PIXELS = SIDE * SIDE

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

SILENCE_SECONDS = 10.0
"""How long a download server may stay silent, including while connecting."""


class DataUnavailable(RunFailed):
    """A data set is neither on disk nor downloadable, or its files are damaged."""


@dataclass(frozen=True)
class Images:
    """Images with their labels, on one device.

    Attributes:
        pixels: (n, 784), uint8.
        labels: (n,), int64, in 0..9.
        rows: (m,), int64: which of the n images belong to this set; None means all.
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
        """Images and labels as `batch` returns them, `size` at a time; the last batch is smaller.

        Args:
            order: positions, (m,) int64; by default all positions in their order.
        """
        rows = self.rows
        if order is not None:
            rows = order if rows is None else rows.index_select(0, order)
        # Labels and rows are small, so they are looked up for all batches at once. Both labels and
        # converted pixels are copies: a training may write into them.
        labels = self.labels.clone() if rows is None else self.labels.index_select(0, rows)
        for start in range(0, len(labels), size):
            part = slice(start, start + size)
            pixels = self.pixels[part] if rows is None else self.pixels.index_select(0, rows[part])
            yield _as_float(pixels), labels[part]

    def to(self, device: torch.device) -> Images:
        """The same images on another device."""
        rows = None if self.rows is None else self.rows.to(device)
        return Images(self.pixels.to(device), self.labels.to(device), rows)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the shape, the pixels and the labels of this set, in order."""
        chosen = slice(None) if self.rows is None else self.rows
        pixels, labels = self.pixels[chosen].cpu(), self.labels[chosen].to("cpu", torch.uint8)
        sha256 = hashlib.sha256(f"{tuple(pixels.shape)}".encode())
        sha256.update(pixels.numpy().data)
        sha256.update(labels.numpy().data)
        return sha256.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """A data set as found: its training and test images.

    `test` is empty if the data set was opened without its test images.
    """

    name: str
    train: Images
    test: Images

    def split(self, validation_size: int, split_seed: int) -> tuple[Images, Images]:
        """The training images without `validation_size` randomly drawn ones, and those drawn.

        `split_seed` seeds the draw. Both sets keep the order of the data set.

        Raises:
            BadRequest: no training image would be left.
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


def open_dataset(name: DatasetName, root: Path, *, with_test: bool = True) -> Dataset:
    """Open a data set below `root`; the first use downloads it there.

    Without `with_test` the test images are not read: a selection must not see them.

    Raises:
        DataUnavailable: the data set cannot be downloaded, or a file is truncated, malformed or
            unreadable. The message names the file and the ways out.
    """
    if name == "digits":
        train, test = _digits()
    else:
        if not on_disk(name, root):
            _download(name, root)
        files = _extracted_files(name, root) or _extracted(_gzip_files(name, root))
        train_images, train_labels, test_images, test_labels = files
        train = read_images(train_images, train_labels)
        test = read_images(test_images, test_labels) if with_test else train
    return Dataset(name, train, test if with_test else dataclasses.replace(train, rows=_no_rows()))


def read_images(images: Path, labels: Path) -> Images:
    """Map an images file and read its labels file, both in the IDX format.

    The format is big-endian: a magic number (2051 for images, 2049 for labels), the count, for
    images the height and the width, then one byte for each pixel or label.

    Raises:
        DataUnavailable: a file is malformed, or the two do not belong together.
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
    known = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(repr(known).encode()).hexdigest()[:16]
    folder = project.mlruns() / "datasets" / key
    if folder.is_dir():
        return _files(folder)
    staging = folder.with_name(f".{key}")
    try:
        staging.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(staging.with_suffix(".lock")):
            if not folder.is_dir():
                shutil.rmtree(staging, ignore_errors=True)
                staging.mkdir()
                for file, target in zip(files, _files(staging), strict=True):
                    _extract(file, target)
                staging.replace(folder)
    except OSError as error:
        full = error.errno == errno.ENOSPC
        reason = "the disk is full" if full else error.strerror or str(error)
        raise DataUnavailable(f"{staging.parent}: cannot be written ({reason}).") from None
    return _files(folder)


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
    pixels = torch.nn.functional.pad(enlarged, (2, 2, 2, 2)).to(torch.uint8).view(-1, PIXELS)
    labels = table[:, 64].contiguous()
    n = len(table) - DIGITS_TEST_SIZE
    return Images(pixels[:n], labels[:n]), Images(pixels[n:], labels[n:])


def _download(name: DatasetName, root: Path) -> None:
    """Download through torchvision into a staging folder, then move the complete files.

    An interrupted download leaves nothing behind that looks like a data set. Processes that need
    the same data wait for the first one.
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
                pairs = zip(_files(_raw(name, staging)), _files(_raw(name, root)), strict=True)
                for path, target in pairs:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(target)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except (OSError, RuntimeError, EOFError, ValueError, http.client.HTTPException) as error:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        reason = "the disk is full" if full else " ".join(mask(str(error)).split())
        raise DataUnavailable(
            f"{name} is not in {root} and cannot be downloaded: {reason}\n"
            f"Ways out: a --data-root (or HARNESS_DATA_ROOT) that holds {folder}/raw or the four "
            f"files themselves, {_package(name)}a mirror (HARNESS_DATA_MIRROR=URL), "
            "--dataset digits, or harness.run's --fallback digits."
        ) from None


def _package(name: str) -> str:
    return "Debian's package dataset-fashion-mnist, " if name == "fashion-mnist" else ""


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
    """Have every socket that is opened in the block give up after `seconds` of silence."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
