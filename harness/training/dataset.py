"""A data set: its training and test examples, and how they become a user's from three sources."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.base.errors import BadRequest
from harness.base.fields import Name, check_text
from harness.training import data_checks
from harness.training.data_checks import Array
from harness.training.downloads import download, torchvision_class
from harness.training.image_files import ImageFolder, decoded_images, find_images
from harness.training.mapped_arrays import shared

Pair = tuple[Any, Any]
"""Inputs (n, ...) and labels (n, ...), as NumPy arrays or tensors."""

HASHED_AT_ONCE = 4096
"""Examples that are copied at a time to be hashed."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs with their labels, on one device.

    Attributes:
        inputs: (n, ...): uint8, float32 or int64.
        labels: (n,), int64, numbers of classes; or (n, ...), float32.
        rows: (m,), int64: which of the n examples belong to this set; None means all.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels if self.rows is None else self.rows)

    @property
    def item_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self.inputs.shape[1:])

    @property
    def are_images(self) -> bool:
        """Whether the inputs are grey or colour images of one byte for each value."""
        shape = self.item_shape
        return self.inputs.dtype == torch.uint8 and len(shape) == 3 and shape[0] in (1, 3)

    def batch(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs (b, ...) and labels (b, ...) at `positions`, (b,) int64.

        Inputs of uint8 become float32 in [0, 1] like by torchvision's `ToTensor`: converted, then
        divided by 255. Others stay as they are.
        """
        if self.rows is not None:
            positions = self.rows.index_select(0, positions)
        return (
            _scaled(self.inputs.index_select(0, positions)),
            self.labels.index_select(0, positions),
        )

    def batches(
        self, size: int, order: torch.Tensor | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Inputs and labels as `batch` returns them, `size` at a time; the last batch is smaller.

        Args:
            order: positions, (m,) int64; by default all positions in their order.
        """
        rows = self.rows
        if order is not None:
            rows = order if rows is None else rows.index_select(0, order)
        # Labels and rows are small, so they are looked up for all batches at once. Both labels and
        # inputs are copies: a training may write into them.
        labels = self.labels.clone() if rows is None else self.labels.index_select(0, rows)
        for start in range(0, len(labels), size):
            part = slice(start, start + size)
            if rows is not None:
                inputs = self.inputs.index_select(0, rows[part])
            elif self.inputs.dtype == torch.uint8:
                inputs = self.inputs[part]
            else:
                inputs = self.inputs[part].clone()
            yield _scaled(inputs), labels[part]

    def to(self, device: torch.device) -> Examples:
        """The same examples on a device."""
        if self.inputs.device == device:
            return self
        rows = None if self.rows is None else self.rows.to(device)
        return Examples(self.inputs.to(device), self.labels.to(device), rows)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the types, the shape, the inputs and the labels of this set, in order."""
        inputs, labels = self.inputs.cpu(), self.labels.cpu()
        rows = None if self.rows is None else self.rows.cpu()
        head = f"{len(self)} {self.item_shape} {inputs.dtype} {labels.shape[1:]} {labels.dtype}"
        sha256 = hashlib.sha256(head.encode())
        for values in (inputs, labels):
            for start in range(0, len(self), HASHED_AT_ONCE):
                part = slice(start, start + HASHED_AT_ONCE)
                chosen = values[part] if rows is None else values[rows[part]]
                sha256.update(chosen.contiguous().numpy().data)
        return sha256.hexdigest()


def _scaled(inputs: torch.Tensor) -> torch.Tensor:
    return inputs.to(torch.float32).div_(255) if inputs.dtype == torch.uint8 else inputs


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test examples under a name, from one of three sources.

        Dataset.from_arrays("spirals", train=(x, y), test=(x_test, y_test))
        Dataset.from_torchvision("CIFAR10", root)
        Dataset.from_image_folder(root / "flowers", size=(64, 64))

    Attributes:
        train: the training examples.
        classes: the names of the classes, by label; None if the labels are numbers to predict.
    """

    name: str
    train: Examples
    load_test: Callable[[], Examples] = field(repr=False)
    classes: tuple[str, ...] | None

    @functools.cached_property
    def test(self) -> Examples:
        """The test examples, read on first use: the trials of a study never ask for them."""
        return self.load_test()

    @classmethod
    def from_arrays(
        cls,
        name: str,
        *,
        train: Pair,
        test: Pair | Callable[[], Pair],
        classes: Sequence[str] | None = None,
    ) -> Dataset:
        """A data set of arrays: NumPy's, torch's, or what `numpy.asarray` accepts.

        Inputs may have any shape. Those of uint8 become float32 in [0, 1], batch by batch; other
        integers become int64, and floats float32. Integer labels (n,) are classes, counted from 0.
        Labels that are floats, (n,) or (n, k), become float32 numbers to predict. Large arrays
        are mapped from a file in the project's store, so that worker processes share them.

        Args:
            name: recorded with every run.
            train: inputs and labels.
            test: the same, or a function that returns them; no trial of a study calls it.
            classes: their names, by label; by default their numbers.

        Raises:
            BadRequest: something is wrong with the data. The message names it.
        """
        _check_name(name)
        inputs, labels = trained = data_checks.checked_pair(name, "train", train)
        names = None
        if labels.dtype == np.int64:
            names = data_checks.checked_classes(name, labels, classes)
        elif classes is not None:
            raise BadRequest(f"{name}: it has classes, but its labels are {labels.dtype}.")
        # What is checked later must not keep the arrays alive.
        like = (inputs[:0], labels[:0])

        def load_test() -> Examples:
            pair = data_checks.checked_pair(name, "test", test() if callable(test) else test)
            data_checks.check_same_kind(name, like, pair)
            if names:
                data_checks.check_labels(f"{name}, test", pair[1], names)
            return _examples(*pair)

        made = cls(name, _examples(*trained), load_test, names)
        if not callable(test):
            made.test  # noqa: B018  what is wrong with arrays that are there is told at once
        return made

    @classmethod
    def from_torchvision(cls, class_name: str, root: Path, **options: Any) -> Dataset:
        """A data set of `torchvision.datasets` that fits into memory, as CIFAR10 or SVHN.

        torchvision downloads and checks it. Images are (channels, height, width), uint8.

        Args:
            root: the folder of the data sets.
            options: further arguments of the class, as `split="letters"` of EMNIST.

        Raises:
            BadRequest: there is no such class, or it keeps its images in files.
            DataUnavailable: the data are not there and cannot be downloaded.
        """
        dataset_class = torchvision_class(class_name)
        arguments = inspect.signature(dataset_class).parameters
        if "train" in arguments:
            parts: list[dict[str, Any]] = [{"train": True}, {"train": False}]
        elif "split" in arguments and "split" not in options:
            parts = [{"split": "train"}, {"split": "test"}]
        else:
            raise BadRequest(
                f"from_torchvision: {class_name} has no training and test part; "
                "use Dataset.from_arrays."
            )

        def opened(part: dict[str, Any]) -> Any:
            return dataset_class(str(root), **part, **options)

        def is_there() -> bool:
            try:
                opened(parts[0])
                opened(parts[1])
            except RuntimeError:  # of all its data sets: not found or corrupted
                return False
            return True

        def fetch(folder: Path) -> None:
            for part in parts:
                dataset_class(str(folder), **part, **options, download=True)

        try:
            trained = opened(parts[0])
        except RuntimeError:
            files = getattr(dataset_class, "base_folder", class_name)
            ways_out = f"a --data-root (or HARNESS_DATA_ROOT) that holds {files}"
            if (root / files).exists():
                ways_out += ", complete and as published: what is there is not."
            else:
                ways_out += "."
            download(class_name, root, is_there, fetch, ways_out)
            trained = opened(parts[0])
        return cls.from_arrays(
            " ".join([class_name, *map(str, options.values())]),
            train=_torchvision_arrays(class_name, trained),
            test=lambda: _torchvision_arrays(class_name, opened(parts[1])),
            classes=getattr(trained, "classes", None),
        )

    @classmethod
    def from_image_folder(
        cls,
        path: Path,
        *,
        size: tuple[int, int] | None = None,
        grey: bool = False,
        test_fraction: float = 0.2,
    ) -> Dataset:
        """A data set of image files: one folder for each class, named after it.

        If `path` holds the folders `train` and `test`, each of them has the folders of the classes.
        Otherwise the test images are a share of each class, the same ones at every call. Images are
        decoded once, into the project's store, and are (3, height, width), uint8, or (1, height,
        width) if grey.

        Args:
            size: height and width that each image is scaled to; by default all are of one size.
            grey: whether colours are turned into shades of grey.
            test_fraction: share of the test images, if they have no folder of their own.

        Raises:
            BadRequest: there are no images, an empty class, different sizes, or more images than
                fit into memory.
            DataUnavailable: a file cannot be decoded.
        """
        path = Path(path)
        _check_name(path.name)
        if any(entry.is_dir() for entry in (path / "train").glob("*")):
            if not (path / "test").is_dir():
                raise BadRequest(
                    f"from_image_folder: {path} holds train, with folders in it, but no test. "
                    "Expected: both, or the folders of the classes."
                )
            train, test = find_images(path / "train"), find_images(path / "test")
            if train.classes != test.classes:
                differing = ", ".join(sorted({*train.classes} ^ {*test.classes}))
                raise BadRequest(
                    f"from_image_folder: {path}: train and test have different classes: {differing}"
                )
        else:
            train, test = _with_test_part(find_images(path), test_fraction)

        def arrays(part: ImageFolder) -> Pair:
            return decoded_images(part, size, grey=grey), np.asarray(part.labels)

        inputs, labels = arrays(train)

        def load_test() -> Examples:
            pair = arrays(test)
            data_checks.check_same_kind(path.name, (inputs.numpy(), labels), _as_arrays(pair))
            return Examples(pair[0], torch.from_numpy(pair[1]))

        return cls(path.name, Examples(inputs, torch.from_numpy(labels)), load_test, train.classes)

    def split(
        self, validation_size: int, split_seed: int, *, stratify: bool = False
    ) -> tuple[Examples, Examples]:
        """The training examples without `validation_size` randomly drawn ones, and those drawn.

        Both sets keep the order of the data set.

        Args:
            split_seed: seeds the draw.
            stratify: draw from each class in proportion to its size, rounded so that the largest
                remainders are rounded up.

        Raises:
            BadRequest: no training example would be left, or there are no classes to stratify by.
        """
        n = len(self.train)
        if validation_size >= n:
            raise BadRequest(
                f"validation_size: {validation_size} is not allowed, {self.name} has {n} training "
                f"examples here: it must be at most {n - 1}."
            )
        if stratify and self.classes is None:
            raise BadRequest(f"stratify: {self.name} has no classes.")
        generator = torch.Generator().manual_seed(split_seed)
        order = torch.randperm(n, generator=generator)
        if stratify:
            assert self.classes
            order = _stratified(order, self.train.labels, len(self.classes), validation_size)
        drawn = torch.zeros(n, dtype=torch.bool)
        drawn[order[:validation_size]] = True
        kept = (~drawn).nonzero()[:, 0] if validation_size else None
        return (
            dataclasses.replace(self.train, rows=kept),
            dataclasses.replace(self.train, rows=drawn.nonzero()[:, 0]),
        )


def _stratified(order: torch.Tensor, labels: torch.Tensor, classes: int, size: int) -> torch.Tensor:
    """The first examples of each class in a random order of all, `size` of them together."""
    counts = torch.bincount(labels, minlength=classes)
    exact = counts * size
    taken = exact // len(labels)
    # Of equal remainders the first classes come first.
    most = torch.argsort(exact % len(labels), descending=True, stable=True)
    taken[most[: size - int(taken.sum())]] += 1
    by_class = [order[labels[order] == number][: taken[number]] for number in range(classes)]
    return torch.cat(by_class)


def _examples(inputs: Array, labels: Array) -> Examples:
    return Examples(shared(inputs), torch.from_numpy(labels.copy()))


def _as_arrays(pair: Pair) -> tuple[Array, Array]:
    return pair[0].numpy(), pair[1]


def _torchvision_arrays(class_name: str, opened: Any) -> Pair:
    """The arrays that a torchvision data set holds: images first by channel, and labels."""
    images = getattr(opened, "data", None)
    labels = getattr(opened, "targets", getattr(opened, "labels", None))
    if images is None or labels is None:
        raise BadRequest(
            f"from_torchvision: {class_name} keeps its images in files; once it is downloaded, use "
            "Dataset.from_image_folder."
        )
    pixels = np.asarray(images)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.shape[1] not in (1, 3):
        pixels = pixels.transpose(0, 3, 1, 2)
    return pixels, np.asarray(labels)


def _with_test_part(images: ImageFolder, fraction: float) -> tuple[ImageFolder, ImageFolder]:
    """A share of each class for testing, always the same files; the others for training."""
    n = len(images.files)
    labels = torch.tensor(images.labels)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    size = round(n * fraction)
    if not 0 < size < n:
        raise BadRequest(
            f"from_image_folder: test_fraction: {fraction} of {n} images leaves a part without any."
        )
    test = sorted(_stratified(order, labels, len(images.classes), size).tolist())
    train = images.chosen(sorted(set(range(n)) - set(test)))
    for label, name in enumerate(images.classes):
        if label not in train.labels:
            raise BadRequest(
                f"from_image_folder: {images.path / name} has so few images that none is left for "
                f"training with test_fraction {fraction}."
            )
    return train, images.chosen(test)


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not name.strip():
        raise BadRequest(f"Dataset: expected a name, got {name!r}.")
    check_text("Dataset", name)
    if broken := Name.broken(name):
        raise BadRequest(f"Dataset: the name {name!r} must be {broken}.")
