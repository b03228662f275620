"""Own data: what becomes of arrays and image files, how they are split, what is refused."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from harness import Dataset
from harness.base import project
from harness.base.errors import BadRequest
from harness.training.downloads import DataUnavailable

NOISE = np.random.default_rng(0)
SHAPES = st.lists(st.integers(1, 5), max_size=4).map(tuple)


@pytest.fixture(autouse=True)
def mlruns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(project, "mlruns", lambda: tmp_path / "mlruns")
    return tmp_path / "mlruns"


def pair(
    n: int = 12, shape: tuple[int, ...] = (4,), classes: int = 3
) -> tuple[NDArray[Any], NDArray[Any]]:
    return NOISE.random((n, *shape), np.float32), np.arange(n) % classes


# Arrays


@given(shape=SHAPES)
def test_bytes_are_scaled_and_floats_stay_as_they_are(shape: tuple[int, ...]) -> None:
    pixels = NOISE.integers(0, 256, (6, *shape), np.uint8)
    floats = NOISE.normal(0, 100, (6, *shape)).astype(np.float32)
    labels = np.array([0, 1, 2, 0, 1, 2])
    order = torch.tensor([5, 0, 3])
    for given_inputs, expected in ((pixels, pixels / np.float32(255)), (floats, floats)):
        dataset = Dataset.from_arrays(
            "noise", train=(given_inputs, labels), test=(given_inputs[:2], labels[:2])
        )
        inputs, some = dataset.train.batch(order)
        assert inputs.dtype == torch.float32
        assert np.array_equal(inputs.numpy(), expected[order.numpy()])
        assert some.tolist() == [2, 0, 0]
        batches = list(dataset.train.batches(4))
        assert [len(batch) for batch, _ in batches] == [4, 2]
        assert np.array_equal(torch.cat([batch for batch, _ in batches]).numpy(), expected)


@pytest.mark.parametrize(
    ("inputs", "dtype"),
    [
        (np.zeros((3, 2)), torch.float32),
        (np.zeros((3, 2), np.float16), torch.float32),
        (np.zeros((3, 2), np.int32), torch.int64),
        (np.zeros((3, 2), bool), torch.float32),
        (torch.zeros(3, 2, dtype=torch.bfloat16).float(), torch.float32),
        ([[0, 1], [2, 3], [4, 5]], torch.int64),
    ],
)
def test_inputs_become_what_networks_take(inputs: Any, dtype: torch.dtype) -> None:
    dataset = Dataset.from_arrays("some", train=(inputs, [0, 1, 0]), test=(inputs, [0, 1, 0]))
    assert dataset.train.batch(torch.tensor([0]))[0].dtype == dtype


def test_float_labels_are_numbers_to_predict() -> None:
    x, _ = pair(5)
    for y in (np.linspace(0, 1, 5), torch.rand(5, 2)):
        dataset = Dataset.from_arrays("numbers", train=(x, y), test=(x, y))
        assert dataset.classes is None
        _, labels = dataset.train.batch(torch.tensor([1, 2]))
        assert labels.dtype == torch.float32
        assert labels.shape == (2, *np.shape(y)[1:])
        with pytest.raises(BadRequest, match=r"^stratify: numbers has no classes\.$"):
            dataset.split(2, 0, stratify=True)


def test_writing_into_a_batch_leaves_the_data_as_they_are() -> None:
    x, y = pair()
    dataset = Dataset.from_arrays("noise", train=(x, y), test=(x, y))
    digest = dataset.train.digest
    for inputs, labels in dataset.train.batches(5):
        inputs.zero_()
        labels.zero_()
    again = Dataset.from_arrays("noise", train=(x, y), test=(x, y))
    assert again.train.digest == digest


def test_test_examples_are_read_when_they_are_asked_for() -> None:
    asked: list[int] = []

    def test() -> Any:
        asked.append(1)
        return pair(4)

    dataset = Dataset.from_arrays("lazy", train=pair(), test=test)
    dataset.split(3, 0)
    assert not asked
    assert len(dataset.test) == len(dataset.test) == 4
    assert len(asked) == 1


def test_a_large_array_is_one_mapped_file(mlruns: Path) -> None:
    x, y = NOISE.integers(0, 256, (1000, 1100), np.uint8), np.arange(1000) % 10
    first, second = (
        Dataset.from_arrays(name, train=(x, y), test=(x[:10], y[:10])) for name in ("a", "b")
    )
    (file,) = (mlruns / "datasets").glob("*/array")
    assert file.read_bytes() == x.tobytes()
    assert first.train.digest == second.train.digest
    first.train.inputs.fill_(0)
    assert np.array_equal(second.train.inputs.numpy(), x)
    assert file.read_bytes() == x.tobytes()


def test_a_digest_tells_types_and_shapes_apart() -> None:
    zeros = np.zeros((4, 6), np.uint8)
    labels = np.array([0, 0, 1, 1])
    digests = [
        Dataset.from_arrays("zeros", train=(x, y), test=(x, y)).train.digest
        for x, y in (
            (zeros, labels),
            (zeros.reshape(4, 2, 3), labels),
            (zeros.astype(np.float32), labels),
            (zeros, labels.astype(np.float32)),
        )
    ]
    assert len(set(digests)) == len(digests)


X, Y = pair()
NAN = np.where(np.arange(48).reshape(12, 4) == 21, np.nan, X)
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"train": (X, Y[:-1])}, "own, train: 12 inputs do not match 11 labels"),
    ({"train": (X[:0], Y[:0])}, "own, train: there are no examples"),
    ({"train": X}, "own, train: expected (inputs, labels), got a ndarray"),
    ({"train": (NAN, Y)}, "own, train inputs: example 5 holds nan: it must be a finite number"),
    ({"train": (X, np.where(Y == 2, np.inf, 1.0))}, "own, train labels: example 2 holds inf"),
    ({"train": (X, Y), "classes": ["a", "b"]}, "own, train labels: 2 (example 2) is not in 0..1"),
    ({"train": (X, Y - 1)}, "own, train labels: -1 (example 0) is not in 0..1"),
    ({"train": (X, Y * 2)}, "own, train: class 1 has no examples"),
    ({"classes": ["a", "b", "c", "d"]}, "own, train: class 3 ('d') has no examples"),
    ({"classes": ["a", "b", "a"]}, "own: two classes are called 'a'"),
    ({"classes": "abc"}, "own: classes: expected a list of names, got 'abc'"),
    ({"classes": 3}, "own: classes: expected a list of names, got 3"),
    ({"train": (X, Y, Y)}, "own, train: expected (inputs, labels), got a tuple of 3"),
    ({"train": (X.astype(float) * 1e300, Y)}, "own, train inputs: example 0 holds"),
    ({"train": (X, np.eye(3, dtype=int)[Y])}, "one-hot labels: give labels.argmax(1)"),
    ({"train": (X, Y / 2), "classes": ["a"]}, "own: it has classes, but its labels are float32"),
    ({"train": (X.astype(str), Y)}, "own, train inputs: numbers are expected, got <U"),
    ({"train": (X, list("abc" * 4))}, "got words such as 'a'. number them"),
    ({"train": (X, Y[:, None])}, "got 1 values. a column: give labels[:, 0]"),
    ({"train": (X, np.zeros_like(Y))}, "own: there is one class alone"),
    ({"train": (np.broadcast_to(np.float64(0), (12, 10**12)), Y)}, "take 44,703.5 gib, and"),
    ({"train": (np.broadcast_to(np.uint8(0), (12, 10**13)), Y)}, "gib of memory are free"),
    ({"train": ([[1], [1, 2]], [0, 1])}, "own, train inputs: the examples are of different shapes"),
    ({"test": (X[:, :3], Y)}, "the inputs of train are 4 values, those of test 3 values"),
    ({"test": (X.astype(np.uint8), Y)}, "the inputs of train are float32, those of test uint8"),
    ({"test": (X, Y / 2)}, "the labels of train are int64, those of test float32"),
    ({"test": (X, Y + 1)}, "own, test labels: 3 (example 2) is not in 0..2"),
    ({"test": (NAN, Y)}, "own, test inputs: example 5 holds nan"),
    ({"name": " "}, "Dataset: expected a name, got ' '"),
    ({"name": "a\nb"}, "Dataset: 'a\\nb' contains the control character"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[text for _, text in REFUSED])
def test_bad_arrays_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as raised:
        Dataset.from_arrays(**{"name": "own", "train": (X, Y), "test": (X, Y), **change})
    assert message.lower() in str(raised.value).lower()


# The split


@given(
    counts=st.lists(st.integers(1, 40), min_size=2, max_size=6),
    share=st.floats(0, 1, exclude_max=True),
    seed=st.integers(0, 2**63 - 1),
)
def test_a_stratified_split_has_each_class_in_proportion(
    counts: list[int], share: float, seed: int
) -> None:
    n = sum(counts)
    size = math.floor(share * n)
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    inputs = np.arange(n, dtype=np.float32)
    dataset = Dataset.from_arrays("own", train=(inputs, labels), test=(inputs, labels))
    kept, drawn = dataset.split(size, seed, stratify=True)
    assert (len(kept), len(drawn)) == (n - size, size)
    numbers = [
        part.batch(torch.arange(len(part)))[0].to(torch.int64).tolist() for part in (kept, drawn)
    ]
    assert sorted(numbers[0] + numbers[1]) == list(range(n))
    assert all(part == sorted(part) for part in numbers)
    taken = np.bincount(labels[numbers[1]], minlength=len(counts))
    for count, found in zip(counts, taken, strict=True):
        assert abs(found - size * count / n) < 1
    again = dataset.split(size, seed, stratify=True)[1]
    assert again.digest == drawn.digest


def test_a_stratified_split_depends_on_its_seed() -> None:
    dataset = Dataset.from_arrays("own", train=pair(60), test=pair(60))
    digests = {dataset.split(12, seed, stratify=True)[1].digest for seed in range(5)}
    assert len(digests) == 5


# Image files


def save(path: Path, value: Any = 0, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (size[1], size[0]), value).save(path)


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """Ten red and five blue images of 6x5, each with its number in the green channel."""
    for name, n, colour in (("rose", 10, (255, 0)), ("iris", 5, (0, 255))):
        for i in range(n):
            save(tmp_path / "flowers" / name / f"{i:02}.png", (colour[0], i, colour[1]))
    return tmp_path / "flowers"


def test_folders_are_classes_and_a_share_of_each_is_for_testing(flowers: Path) -> None:
    dataset = Dataset.from_image_folder(flowers)
    assert (dataset.name, dataset.classes) == ("flowers", ("iris", "rose"))
    assert dataset.train.item_shape == dataset.test.item_shape == (3, 6, 5)
    assert torch.bincount(dataset.train.labels).tolist() == [4, 8]
    assert torch.bincount(dataset.test.labels).tolist() == [1, 2]
    inputs, labels = dataset.train.batch(torch.arange(12))
    for image, label in zip(inputs, labels.tolist(), strict=True):
        assert image[0].unique().tolist() == [label]
        assert image[2].unique().tolist() == [1 - label]
    seen = {
        (int(label), round(float(image[1, 0, 0]) * 255))
        for part in (dataset.train, dataset.test)
        for batch, numbers in part.batches(4)
        for image, label in zip(batch, numbers, strict=True)
    }
    assert seen == {(1, i) for i in range(10)} | {(0, i) for i in range(5)}


def test_images_are_decoded_once(flowers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Dataset.from_image_folder(flowers)
    digests = [first.train.digest, first.test.digest]
    opened: list[Any] = []
    monkeypatch.setattr(Image.Image, "convert", lambda *_: opened.append(1))
    again = Dataset.from_image_folder(flowers)
    assert [again.train.digest, again.test.digest] == digests
    assert not opened


def test_folders_named_train_and_test_are_the_parts(tmp_path: Path) -> None:
    for part, n in (("train", 3), ("test", 2)):
        for i in range(n):
            for name in ("a", "b"):
                save(tmp_path / "own" / part / name / f"{i}.jpg")
    dataset = Dataset.from_image_folder(tmp_path / "own")
    assert (len(dataset.train), len(dataset.test)) == (6, 4)
    save(tmp_path / "own" / "test" / "c" / "0.jpg")
    with pytest.raises(BadRequest, match="train and test have different classes: c"):
        Dataset.from_image_folder(tmp_path / "own")


def test_images_are_scaled_and_made_grey_on_request(flowers: Path) -> None:
    save(flowers / "iris" / "large.png", (0, 0, 255), (60, 50))
    with pytest.raises(BadRequest, match=r"large.png is 60x50 pixels, the first image 6x5"):
        Dataset.from_image_folder(flowers, test_fraction=0.05)
    scaled = Dataset.from_image_folder(flowers, size=(8, 4), grey=True)
    assert scaled.train.item_shape == (1, 8, 4)


def test_bad_folders_are_named(flowers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path = flowers, **options: Any) -> str:
        with pytest.raises((BadRequest, DataUnavailable)) as raised:
            Dataset.from_image_folder(path, **options)
        return str(raised.value)

    assert "flower is no folder. Did you mean flowers?" in refused(flowers.with_name("flower"))
    assert f"{flowers / 'rose'} holds no folders" in refused(flowers / "rose")
    assert "test_fraction: 0.01 of 15 images" in refused(test_fraction=0.01)
    only = flowers.with_name("only")
    save(only / "rose" / "0.png")
    assert f"{only} holds the folder rose alone" in refused(only)
    (flowers.with_name("halved") / "train").mkdir(parents=True)
    shutil.copytree(flowers, flowers.with_name("halved") / "train", dirs_exist_ok=True)
    assert "holds train, with folders in it, but no test" in refused(flowers.with_name("halved"))
    (flowers / "empty").mkdir()
    assert f"{flowers / 'empty'} holds no images" in refused()
    (flowers / "empty").rmdir()
    save(flowers / "lily" / "0.png")
    assert "lily has so few images that none is left for training" in refused(test_fraction=0.6)
    (flowers / "lily" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    assert f"{flowers / 'lily' / '0.png'}: cannot be decoded" in refused(test_fraction=0.3)
    save(flowers / "lily" / "0.png", 7000, mode="I;16")
    assert "0.png has more than 8 bits for each value" in refused(test_fraction=0.3)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 100})())
    assert "13 images of 3x6x5 take 0.0 GiB, and 0.0 GiB of memory are free" in refused()


# torchvision


def test_torchvision_sets_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    for name, message in {
        "CIFAR": "torchvision has no data set 'CIFAR'. Did you mean CIFAR10 or CIFAR100?",
        "CocoDetection": "CocoDetection has no training and test part",
    }.items():
        with pytest.raises(BadRequest) as raised:
            Dataset.from_torchvision(name, tmp_path)
        assert message in str(raised.value)
