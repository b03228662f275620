"""Data sets: what is opened is what was published, and every way of failing says what to do."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from conftest import ROOT, bound_by_file_modes
from hypothesis import given
from hypothesis import strategies as st
from torchvision import datasets as torchvision_datasets
from torchvision import transforms

from harness.base import project
from harness.base.errors import BadRequest
from harness.training import builtin_datasets, downloads
from harness.training.builtin_datasets import DatasetName
from harness.training.dataset import Dataset, Examples
from harness.training.downloads import DataUnavailable

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"

SIZES = st.integers(min_value=1, max_value=50)
SEEDS = st.integers(min_value=0, max_value=2**63 - 1)


def idx(values: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    header = np.array([0x800 + values.ndim, *values.shape], dtype=">u4")
    return header.tobytes() + values.tobytes()


def published(train: int, test: int) -> dict[str, bytes]:
    """The four files of a data set of noise, which does not compress."""
    noise = np.random.default_rng(0)
    return {
        TRAIN_IMAGES: idx(noise.integers(0, 256, (train, 28, 28), dtype=np.uint8)),
        TRAIN_LABELS: idx(noise.integers(0, 10, train, dtype=np.uint8)),
        TEST_IMAGES: idx(noise.integers(0, 256, (test, 28, 28), dtype=np.uint8)),
        TEST_LABELS: idx(noise.integers(0, 10, test, dtype=np.uint8)),
    }


FILES = published(train=120, test=30)
ARCHIVES = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in FILES.items()}
RESOURCES = [(name, hashlib.md5(archive).hexdigest()) for name, archive in ARCHIVES.items()]


def raw(root: Path) -> Path:
    return root / "FashionMNIST" / "raw"


def write(root: Path, files: dict[str, bytes] = FILES) -> None:
    raw(root).mkdir(parents=True)
    for name, content in files.items():
        (raw(root) / name).write_bytes(content)


def failure(root: Path) -> str:
    with pytest.raises(DataUnavailable) as raised:
        builtin_datasets.open_dataset("fashion-mnist", root).test  # noqa: B018
    return str(raised.value)


def is_published(dataset: Dataset) -> bool:
    parts = (dataset.train.inputs, dataset.train.labels, dataset.test.inputs, dataset.test.labels)
    return all(
        part.to(torch.uint8).numpy().tobytes() == content[16 if "images" in name else 8 :]
        for part, (name, content) in zip(parts, FILES.items(), strict=True)
    )


def noise_images(n: int, rows: torch.Tensor | None = None) -> Examples:
    generator = torch.Generator().manual_seed(n)
    pixels = torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8, generator=generator)
    return Examples(pixels, torch.randint(0, 10, (n,), generator=generator), rows)


@pytest.fixture(autouse=True)
def nothing_outside_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA_MIRROR", "http://127.0.0.1:1")
    monkeypatch.delenv("HARNESS_DATA_ROOT", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


# What is opened


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return builtin_datasets.open_dataset("digits", Path("unused"))


def test_digits_are_those_of_scikit_learn_in_their_order(digits: Dataset) -> None:
    from sklearn.datasets import load_digits

    published_digits = load_digits()
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    pixels = torch.cat([digits.train.inputs, digits.test.inputs]).view(-1, 28, 28)
    assert torch.cat([digits.train.labels, digits.test.labels]).tolist() == (
        published_digits.target.tolist()
    )
    squares = pixels[:, 2:26, 2:26].view(-1, 8, 3, 8, 3).permute(0, 1, 3, 2, 4).flatten(3)
    assert torch.equal(squares.amin(dim=3), squares.amax(dim=3))
    grey = np.floor(published_digits.images * 255 / 16 + 0.5).astype(np.uint8)
    assert np.array_equal(squares[..., 0].numpy(), grey)
    assert (int(pixels.min()), int(pixels.max())) == (0, 255)


def test_digits_have_a_black_border_of_two_pixels(digits: Dataset) -> None:
    pixels = digits.train.inputs.view(-1, 28, 28).clone()
    pixels[:, 2:26, 2:26] = 0
    assert not pixels.any()


def test_digits_have_the_types_of_every_data_set(digits: Dataset) -> None:
    assert digits.train.inputs.dtype == torch.uint8
    assert digits.train.labels.dtype == torch.int64
    assert builtin_datasets.CLASS_NAMES["digits"] == tuple("0123456789")


@pytest.mark.parametrize("name", ["fashion-mnist", "mnist", "kmnist"])
def test_class_names_are_those_of_torchvision(name: DatasetName) -> None:
    published_names = getattr(
        torchvision_datasets, builtin_datasets.TORCHVISION_CLASSES[name]
    ).classes
    names = [theirs.partition(" - ")[0] for theirs in published_names]
    assert names == list(builtin_datasets.CLASS_NAMES[name])


def test_batches_are_those_of_torchvision_bit_for_bit(tmp_path: Path) -> None:
    write(tmp_path)
    ours = builtin_datasets.open_dataset("fashion-mnist", tmp_path)
    for images, is_train in ((ours.train, True), (ours.test, False)):
        theirs = torchvision_datasets.FashionMNIST(
            tmp_path, is_train, transform=transforms.ToTensor()
        )
        assert len(images) == len(theirs)
        positions = torch.randperm(len(images))
        pixels, labels = images.batch(positions)
        assert pixels.dtype == torch.float32
        assert torch.equal(pixels, torch.stack([theirs[i][0] for i in positions.tolist()]))
        assert labels.tolist() == [theirs[i][1] for i in positions.tolist()]


def test_every_grey_value_becomes_what_to_tensor_makes_of_it() -> None:
    pixels = (torch.arange(784) % 256).to(torch.uint8)
    converted, _ = Examples(pixels.view(1, 1, 28, 28), torch.zeros(1, dtype=torch.int64)).batch(
        torch.tensor([0])
    )
    assert torch.equal(converted[0], transforms.ToTensor()(pixels.view(28, 28, 1).numpy()))


@given(
    n=SIZES,
    size=st.integers(min_value=1, max_value=60),
    seed=SEEDS,
    chosen=st.booleans(),
    shuffled=st.booleans(),
)
def test_batches_are_all_images_in_their_order_or_the_one_given(
    n: int, size: int, seed: int, chosen: bool, shuffled: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = noise_images(n, torch.randperm(n, generator=generator)[: n // 2] if chosen else None)
    order = torch.randperm(len(images), generator=generator) if shuffled else None
    batches = list(images.batches(size, order))
    assert all(len(labels) == size for _, labels in batches[:-1])
    assert sum(len(labels) for _, labels in batches) == len(images)
    if len(images):
        pixels, labels = images.batch(torch.arange(len(images)) if order is None else order)
        assert torch.equal(torch.cat([part for part, _ in batches]), pixels)
        assert torch.equal(torch.cat([part for _, part in batches]), labels)


def test_images_stay_where_they_are_on_their_own_device(digits: Dataset) -> None:
    there = digits.train.to(torch.device("cpu"))
    assert there.inputs is digits.train.inputs
    assert there.labels is digits.train.labels


# Splitting


@given(n=SIZES, split_seed=SEEDS, share=st.floats(min_value=0, max_value=1, exclude_max=True))
def test_a_split_parts_the_training_images_in_order(n: int, split_seed: int, share: float) -> None:
    validation_size = int(share * n)
    train = noise_images(n)
    dataset = Dataset("digits", train, lambda: noise_images(1), None)
    kept, drawn = dataset.split(validation_size, split_seed)
    assert len(drawn) == validation_size
    assert len(kept) == n - validation_size
    kept_rows = list(range(n)) if kept.rows is None else kept.rows.tolist()
    assert drawn.rows is not None
    drawn_rows = drawn.rows.tolist()
    assert kept_rows == sorted(kept_rows)
    assert drawn_rows == sorted(drawn_rows)
    assert sorted(kept_rows + drawn_rows) == list(range(n))
    pixels, labels = drawn.batch(torch.arange(validation_size))
    assert torch.equal(pixels, train.batch(torch.tensor(drawn_rows, dtype=torch.int64))[0])
    assert labels.tolist() == [train.labels[row] for row in drawn_rows]


def test_only_the_split_seed_moves_a_split(digits: Dataset) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = digits.split(100, split_seed=5)[1].rows
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = digits.split(100, split_seed=5)[1].rows, digits.split(100, split_seed=6)[1].rows
    assert first is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@given(n=SIZES, beyond=st.integers(min_value=0, max_value=10**9))
def test_a_split_leaves_an_image_to_train_on(n: int, beyond: int) -> None:
    dataset = Dataset("digits", noise_images(n), lambda: noise_images(1), None)
    with pytest.raises(BadRequest, match=f"^validation_size: .* it must be at most {n - 1}"):
        dataset.split(n + beyond, 0)


# The digest


def test_a_digest_moves_with_a_pixel_a_label_the_order_and_the_shape() -> None:
    images = noise_images(4)
    pixels, labels = images.inputs.clone(), images.labels.clone()
    pixels[3, 0, 27, 27] ^= 1
    labels[3] = (labels[3] + 1) % 10
    digests = [
        images.digest,
        Examples(pixels, images.labels).digest,
        Examples(images.inputs, labels).digest,
        Examples(images.inputs.view(4, -1), images.labels).digest,
        Examples(images.inputs, images.labels, torch.tensor([3, 2, 1, 0])).digest,
        Examples(images.inputs, images.labels, torch.tensor([], dtype=torch.int64)).digest,
    ]
    assert len(set(digests)) == len(digests)


def test_a_digest_is_of_the_content_alone(digits: Dataset) -> None:
    kept, drawn = digits.split(100, split_seed=0)
    for part in (kept, drawn):
        assert part.rows is not None
        copy = Examples(part.inputs[part.rows], part.labels[part.rows])
        assert copy.digest == part.digest


# The mapping


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_images_are_the_mapped_file_itself(tmp_path: Path) -> None:
    write(tmp_path)
    images = builtin_datasets.open_dataset("fashion-mnist", tmp_path).train
    address = images.inputs.data_ptr()
    mapped_there = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        bounds, _, rest = line.partition(" ")
        start, end = (int(bound, 16) for bound in bounds.split("-"))
        if start <= address < end:
            mapped_there.append(rest)
    assert len(mapped_there) == 1
    assert mapped_there[0].endswith(str((raw(tmp_path) / TRAIN_IMAGES).resolve()))


def test_writing_to_images_never_changes_the_file(tmp_path: Path) -> None:
    write(tmp_path)
    images = builtin_datasets.open_dataset("fashion-mnist", tmp_path).train
    images.inputs.fill_(7)
    images.labels.fill_(7)
    assert is_published(builtin_datasets.open_dataset("fashion-mnist", tmp_path))
    assert (raw(tmp_path) / TRAIN_IMAGES).read_bytes() == FILES[TRAIN_IMAGES]


@pytest.mark.processes
def test_opening_from_disk_imports_neither_torchvision_nor_scikit_learn(tmp_path: Path) -> None:
    write(tmp_path)
    program = """
import sys
from pathlib import Path
from harness.training.builtin_datasets import open_dataset
open_dataset("fashion-mnist", Path(sys.argv[1]))
open_dataset("digits", Path(sys.argv[1]))
print("imported:", *{"torchvision", "sklearn"} & sys.modules.keys())
"""
    assert output([sys.executable, "-c", program, str(tmp_path)]).split() == ["imported:"]


@pytest.mark.parametrize("name", ["fashion-mnist", "digits"])
def test_without_test_images_none_are_read(tmp_path: Path, name: DatasetName) -> None:
    write(tmp_path, FILES | {TEST_IMAGES: b"not to be opened", TEST_LABELS: b""})
    dataset = builtin_datasets.open_dataset(name, tmp_path)
    assert len(dataset.train) == {"fashion-mnist": 120, "digits": 1437}[name]
    if name == "fashion-mnist":
        with pytest.raises(DataUnavailable, match=TEST_IMAGES):
            dataset.test  # noqa: B018


def test_opening_from_disk_writes_nothing(tmp_path: Path) -> None:
    write(tmp_path)
    builtin_datasets.open_dataset("fashion-mnist", tmp_path)
    assert left(tmp_path) == WHOLE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["FashionMNIST"]


# The data root


def test_a_relative_data_root_starts_at_the_current_folder_if_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert builtin_datasets.data_root() == ROOT / "data"
    assert builtin_datasets.data_root(Path("sets")) == tmp_path / "sets"
    monkeypatch.setenv("HARNESS_DATA_ROOT", "sets")
    assert builtin_datasets.data_root() == ROOT / "sets"
    assert builtin_datasets.data_root(tmp_path) == tmp_path


def test_the_data_root_of_the_environment_yields_to_the_one_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA_ROOT", "elsewhere")
    assert builtin_datasets.data_root() == ROOT / "elsewhere"
    assert builtin_datasets.data_root(tmp_path) == tmp_path
    monkeypatch.setenv("HARNESS_DATA_ROOT", str(tmp_path))
    assert builtin_datasets.data_root() == tmp_path
    monkeypatch.setenv("HARNESS_DATA_ROOT", "")
    assert builtin_datasets.data_root() == ROOT / "data"


def test_on_disk_means_all_four_files(tmp_path: Path) -> None:
    assert builtin_datasets.on_disk("digits", tmp_path)
    assert not builtin_datasets.on_disk("fashion-mnist", tmp_path)
    write(tmp_path)
    assert builtin_datasets.on_disk("fashion-mnist", tmp_path)
    assert not builtin_datasets.on_disk("mnist", tmp_path)
    (raw(tmp_path) / TEST_LABELS).unlink()
    assert not builtin_datasets.on_disk("fashion-mnist", tmp_path)


# Files as people have them


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mlruns"
    monkeypatch.setattr(project, "mlruns", lambda: folder)
    return folder


def pack(folder: Path, files: dict[str, bytes] = FILES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))


@pytest.mark.parametrize("place", ["FashionMNIST/raw", "."])
def test_gzip_files_are_extracted_once_into_the_store(
    tmp_path: Path, store: Path, place: str
) -> None:
    root = tmp_path / "data"
    pack(root / place)
    before = sorted(root.rglob("*"))
    assert builtin_datasets.on_disk("fashion-mnist", root)
    assert is_published(builtin_datasets.open_dataset("fashion-mnist", root))
    assert sorted(root.rglob("*")) == before, "the data root may be read-only"
    (folder,) = (path for path in (store / "datasets").iterdir() if path.is_dir())
    extracted = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert is_published(builtin_datasets.open_dataset("fashion-mnist", root))
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == extracted


def test_other_gzip_files_are_extracted_anew(tmp_path: Path, store: Path) -> None:
    root = tmp_path / "data"
    pack(root)
    first = builtin_datasets.open_dataset("fashion-mnist", root).train.digest
    pack(root, published(7, 3))
    second = builtin_datasets.open_dataset("fashion-mnist", root).train
    assert (len(second), second.digest != first) == (7, True)


def test_extracted_files_may_lie_in_the_folder_itself(tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    assert is_published(builtin_datasets.open_dataset("fashion-mnist", tmp_path))


def test_debians_package_is_found_and_checked_by_its_content(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    pack(package)
    monkeypatch.setattr(builtin_datasets, "DEBIAN_FOLDER", package)
    with pytest.raises(DataUnavailable, match="its content is not that of Fashion-MNIST"):
        builtin_datasets.open_dataset("fashion-mnist", tmp_path / "data")
    known = tuple(hashlib.sha256(content).hexdigest() for content in FILES.values())
    monkeypatch.setattr(builtin_datasets, "FASHION_MNIST_SHA256", known)
    assert is_published(builtin_datasets.open_dataset("fashion-mnist", tmp_path / "data"))
    assert not builtin_datasets.on_disk("mnist", tmp_path / "data")


@pytest.mark.parametrize("damage", [lambda b: b[:-20], lambda b: b"no gzip", lambda b: b""])
def test_a_damaged_gzip_file_is_named(tmp_path: Path, store: Path, damage: Any) -> None:
    pack(tmp_path)
    path = tmp_path / f"{TEST_LABELS}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataUnavailable, match=r"t10k-labels-idx1-ubyte.gz: cannot be extracted"):
        builtin_datasets.open_dataset("fashion-mnist", tmp_path)
    pack(tmp_path)
    assert is_published(builtin_datasets.open_dataset("fashion-mnist", tmp_path))


# Damaged files


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (TRAIN_IMAGES, b"", "truncated, 0 bytes are less than its header"),
        (TRAIN_IMAGES, FILES[TRAIN_IMAGES][:15], "truncated, 15 bytes are less than its header"),
        (TEST_LABELS, FILES[TEST_LABELS][:7], "truncated, 7 bytes are less than its header"),
        (TEST_IMAGES, FILES[TEST_IMAGES][:-1], "truncated, 23535 bytes instead of the 23536"),
        (TRAIN_LABELS, FILES[TRAIN_LABELS][:-1], "truncated, 127 bytes instead of the 128"),
        (TEST_IMAGES, FILES[TEST_IMAGES] + b"\0", "too long, 23537 bytes instead of the 23536"),
        (TRAIN_LABELS, FILES[TRAIN_LABELS] + b"\0", "too long, 129 bytes instead of the 128"),
        (TRAIN_IMAGES, FILES[TRAIN_LABELS], "magic number 2049 instead of 2051"),
        (TRAIN_LABELS, FILES[TRAIN_IMAGES], "magic number 2051 instead of 2049"),
        (TRAIN_IMAGES, ARCHIVES[f"{TRAIN_IMAGES}.gz"], "magic number"),
        (TRAIN_LABELS, FILES[TRAIN_LABELS][:-1] + b"\x0a", "label 10 is not in 0..9"),
        (TEST_LABELS, FILES[TRAIN_LABELS], f"120 labels for the 30 images of {TEST_IMAGES}"),
        (TRAIN_IMAGES, idx(np.zeros((0, 28, 28), dtype=np.uint8)), "it is empty"),
        (TEST_LABELS, idx(np.zeros(0, dtype=np.uint8)), "it is empty"),
        (TEST_IMAGES, idx(np.zeros((30, 27, 28), np.uint8)), "images of 27x28 instead of 28x28"),
        (TEST_IMAGES, idx(np.zeros((30, 28, 32), np.uint8)), "images of 28x32 instead of 28x28"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_a_damaged_file_is_named_with_what_is_wrong(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    write(tmp_path, FILES | {name: content})
    message = failure(tmp_path)
    assert message.startswith(f"{raw(tmp_path) / name}: {reason}")
    assert "Delete the file to download it again" in message
    assert "--data-root" in message
    assert "--dataset digits" in message


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (raw(tmp_path) / TEST_LABELS).unlink()
    (raw(tmp_path) / TEST_LABELS).mkdir()
    assert failure(tmp_path).startswith(
        f"{raw(tmp_path) / TEST_LABELS}: cannot be read (Is a directory)"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux allows any bytes in a file's name")
def test_a_file_that_cannot_be_mapped_is_named(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"not-utf-8-\xff")
    write(folder)
    message = failure(folder)
    assert message.startswith(f"{raw(folder) / TRAIN_IMAGES}: cannot be mapped")


VALID_PAIR = (idx(np.ones((2, 28, 28), dtype=np.uint8)), idx(np.array([0, 9], dtype=np.uint8)))


@st.composite
def mutated(draw: st.DrawFn, valid: bytes) -> bytes:
    """The valid bytes after some changes, most of them in the header: the rest is only pixels."""
    content = bytearray(valid)
    for _ in range(draw(st.integers(min_value=0, max_value=3))):
        near_header = st.integers(min_value=0, max_value=20)
        place = draw(near_header | st.integers(min_value=0, max_value=len(valid)))
        match draw(st.sampled_from(["change", "cut", "insert"])):
            case "change":
                content[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case "cut":
                del content[place : place + draw(st.integers(min_value=1, max_value=2000))]
            case "insert":
                content[place:place] = draw(st.binary(max_size=8))
    return bytes(content)


@given(images=mutated(VALID_PAIR[0]) | st.binary(max_size=64), labels=mutated(VALID_PAIR[1]))
def test_any_bytes_are_images_or_data_unavailable(images: bytes, labels: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        images_file, labels_file = Path(folder, "images"), Path(folder, "labels")
        images_file.write_bytes(images)
        labels_file.write_bytes(labels)
        try:
            found = builtin_datasets.read_images(images_file, labels_file)
        except DataUnavailable as error:
            assert str(error).startswith((f"{images_file}: ", f"{labels_file}: "))  # noqa: PT017
            assert "--dataset digits" in str(error)  # noqa: PT017
        else:
            assert found.inputs.shape == (len(labels) - 8, 1, 28, 28)
            assert found.inputs.numpy().tobytes() == images[16:]
            assert bytes(found.labels.tolist()) == labels[8:]
            assert max(labels[8:]) <= 9


# Downloading


class Mirror(ThreadingHTTPServer):
    """A download server on the loopback; `answers` replaces what it sends for one file."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/files"
        self.answers: dict[str, Callable[[Handler, bytes], None]] = {}
        self.requested: list[str] = []
        self.closing = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of many tests, and no news."""


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        folder, _, name = self.path.rpartition("/")
        self.server.requested.append(name)
        if folder != "/files" or name not in ARCHIVES:
            self.send_error(404)
            return
        self.server.answers.get(name, send)(self, ARCHIVES[name])

    def log_message(self, *_: Any) -> None:
        pass


def send(handler: Handler, body: bytes, promised: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(promised or len(body)))
    handler.end_headers()
    handler.wfile.write(body)
    handler.wfile.flush()


def send_half(handler: Handler, body: bytes) -> None:
    send(handler, body[: len(body) // 2], promised=len(body))


def stay_silent(handler: Handler, body: bytes) -> None:
    handler.server.closing.wait(20)


def fall_silent(handler: Handler, body: bytes) -> None:
    send_half(handler, body)
    handler.server.closing.wait(20)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    with Mirror() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("HARNESS_DATA_MIRROR", server.url)
        monkeypatch.setattr(torchvision_datasets.FashionMNIST, "resources", RESOURCES)
        yield server
        server.closing.set()
        server.shutdown()


WHOLE = {"FashionMNIST", "FashionMNIST/raw"} | {f"FashionMNIST/raw/{name}" for name in FILES}


def left(root: Path) -> set[str]:
    """The folders and the files with content below `root`; an empty lock file is neither."""
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_dir() or path.stat().st_size
    }


def assert_names_the_ways_out(message: str, root: Path) -> None:
    assert message.startswith(f"fashion-mnist is not in {root} and cannot be downloaded: ")
    for way in ("--data-root", "FashionMNIST/raw", "HARNESS_DATA_MIRROR", "--dataset digits"):
        assert way in message


CHILD = """
import json, os, sys
from pathlib import Path
from torchvision import datasets
from harness.training.builtin_datasets import open_dataset
from harness.training.downloads import DataUnavailable

root, datasets.FashionMNIST.resources = Path(sys.argv[1]), json.loads(sys.argv[2])
"""


def child(program: str, root: Path, *prefix: str) -> list[str]:
    return [*prefix, sys.executable, "-c", CHILD + program, str(root), json.dumps(RESOURCES)]


def output(arguments: list[str]) -> str:
    done = subprocess.run(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=120)
    return done.stdout


def test_a_download_is_whole_and_the_only_one(mirror: Mirror, tmp_path: Path) -> None:
    root = tmp_path / "new" / "folder"
    dataset = builtin_datasets.open_dataset("fashion-mnist", root)
    assert is_published(dataset)
    assert left(root) == WHOLE
    mirror.requested.clear()
    assert is_published(builtin_datasets.open_dataset("fashion-mnist", root))
    assert mirror.requested == []


def test_a_download_that_fails_leaves_no_trace(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA_MIRROR", f"{mirror.url}/nothing")
    assert_names_the_ways_out(failure(tmp_path / "mistyped"), tmp_path / "mistyped")
    assert list(tmp_path.iterdir()) == []


def test_a_download_leaves_the_time_limit_of_sockets_as_it_was(
    mirror: Mirror, tmp_path: Path
) -> None:
    builtin_datasets.open_dataset("fashion-mnist", tmp_path)
    assert socket.getdefaulttimeout() is None


def test_a_set_with_a_missing_file_is_downloaded_again(mirror: Mirror, tmp_path: Path) -> None:
    write(tmp_path, {TRAIN_IMAGES: b"of another set", TEST_LABELS: FILES[TEST_LABELS]})
    assert is_published(builtin_datasets.open_dataset("fashion-mnist", tmp_path))


def test_a_refused_connection_names_the_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HARNESS_DATA_MIRROR", f"http://127.0.0.1:{bound.getsockname()[1]}")
        message = failure(tmp_path)
    assert_names_the_ways_out(message, tmp_path)
    assert "Connection refused" in message
    assert left(tmp_path) == set()


def test_a_file_the_mirror_does_not_have_is_named(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA_MIRROR", mirror.url + "/nowhere/")
    message = failure(tmp_path)
    assert_names_the_ways_out(message, tmp_path)
    assert f"{TRAIN_IMAGES}.gz" in message
    assert "404" in message
    assert left(tmp_path) == set()


@pytest.mark.parametrize("name", [f"{TRAIN_IMAGES}.gz", f"{TEST_LABELS}.gz"])
@pytest.mark.parametrize("answer", [send_half, lambda handler, body: send(handler, body[::-1])])
def test_a_body_that_is_cut_off_or_another_is_not_kept(
    mirror: Mirror, tmp_path: Path, name: str, answer: Callable[[Handler, bytes], None]
) -> None:
    mirror.answers[name] = answer
    message = failure(tmp_path)
    assert_names_the_ways_out(message, tmp_path)
    # Only later versions of torchvision name the file.
    assert name in message or torchvision.__version__ < "0.27"
    assert left(tmp_path) == set()
    mirror.answers.clear()
    assert is_published(builtin_datasets.open_dataset("fashion-mnist", tmp_path))


@pytest.mark.parametrize("answer", [stay_silent, fall_silent])
def test_a_silent_server_is_given_up(
    mirror: Mirror,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[Handler, bytes], None],
) -> None:
    monkeypatch.setattr(downloads, "SILENCE_SECONDS", 0.5)
    mirror.answers[f"{TRAIN_LABELS}.gz"] = answer
    start = time.monotonic()
    message = failure(tmp_path)
    assert 0.5 <= time.monotonic() - start < 5
    assert_names_the_ways_out(message, tmp_path)
    assert "timed out" in message
    assert left(tmp_path) == set()


def trickle(handler: Handler, body: bytes) -> None:
    send(handler, body[:5], promised=len(body))
    for byte in body[5:100]:
        if handler.server.closing.wait(0.1):
            return
        handler.wfile.write(bytes([byte]))


def trickle_headers(handler: Handler, body: bytes) -> None:
    handler.send_response(200)
    for number in range(90):
        handler.send_header(f"X-{number}", "a")
        handler.flush_headers()
        if handler.server.closing.wait(0.1):
            return


@pytest.mark.parametrize("answer", [trickle, trickle_headers])
def test_a_server_that_is_too_slow_is_given_up(
    mirror: Mirror,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[Handler, bytes], None],
) -> None:
    monkeypatch.setattr(downloads, "WINDOW_SECONDS", 0.5)
    mirror.answers[f"{TRAIN_LABELS}.gz"] = answer
    start = time.monotonic()
    message = failure(tmp_path)
    assert 0.5 <= time.monotonic() - start < 8, "the whole answer takes longer"
    assert_names_the_ways_out(message, tmp_path)
    assert re.search(rf"Tried {mirror.url}/, got: the server sent \d+ bytes in \d+ s", message)
    assert left(tmp_path) == set()
    mirror.answers.clear()
    assert is_published(builtin_datasets.open_dataset("fashion-mnist", tmp_path))


def test_the_next_mirror_is_tried_if_one_is_too_slow_or_silent(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "WINDOW_SECONDS", 0.5)
    monkeypatch.setattr(downloads, "SILENCE_SECONDS", 1)
    monkeypatch.delenv("HARNESS_DATA_MIRROR")
    with Mirror() as bad:
        threading.Thread(target=bad.serve_forever, args=(0.01,), daemon=True).start()
        bad.answers[f"{TRAIN_LABELS}.gz"] = trickle
        bad.answers[f"{TEST_IMAGES}.gz"] = fall_silent
        mirrors = [f"{bad.url}/", f"{mirror.url}/"]
        monkeypatch.setattr(torchvision_datasets.FashionMNIST, "mirrors", mirrors)
        assert is_published(builtin_datasets.open_dataset("fashion-mnist", tmp_path))
        assert {f"{TRAIN_LABELS}.gz", f"{TEST_IMAGES}.gz"} == set(mirror.requested)
        bad.closing.set()
        bad.shutdown()


def test_a_slow_but_useful_server_is_not_given_up(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "WINDOW_SECONDS", 0.1)
    monkeypatch.setattr(downloads, "FEWEST_BYTES", 1)

    def pieces(handler: Handler, body: bytes) -> None:
        send(handler, b"", promised=len(body))
        for start in range(0, len(body), len(body) // 5 + 1):
            handler.server.closing.wait(0.15)
            handler.wfile.write(body[start : start + len(body) // 5 + 1])

    mirror.answers[f"{TRAIN_LABELS}.gz"] = pieces
    assert is_published(builtin_datasets.open_dataset("fashion-mnist", tmp_path))


@pytest.mark.processes
def test_a_killed_download_leaves_nothing_that_looks_whole(mirror: Mirror, tmp_path: Path) -> None:
    mirror.answers[f"{TEST_IMAGES}.gz"] = fall_silent
    arguments = child("open_dataset('fashion-mnist', root)", tmp_path)
    with subprocess.Popen(arguments, cwd=ROOT) as downloading:
        deadline = time.monotonic() + 60
        while not list(tmp_path.rglob(f"{TEST_IMAGES}.gz")):
            assert downloading.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        downloading.kill()
    (partial,) = tmp_path.rglob(f"{TEST_IMAGES}.gz")
    for name in FILES:  # as if killed a little later, while the last file was extracted
        (partial.parent / name).touch()
    assert not builtin_datasets.on_disk("fashion-mnist", tmp_path)
    assert not raw(tmp_path).exists()
    mirror.answers.clear()
    assert is_published(builtin_datasets.open_dataset("fashion-mnist", tmp_path))
    assert left(tmp_path) == WHOLE


@pytest.mark.processes
def test_four_processes_download_once(mirror: Mirror, tmp_path: Path) -> None:
    builtin_datasets.open_dataset("fashion-mnist", tmp_path / "alone")
    requested_by_one = sorted(mirror.requested)
    mirror.requested.clear()

    def send_late(handler: Handler, body: bytes) -> None:
        time.sleep(0.2)  # all four must have come before the first is done
        send(handler, body)

    mirror.answers[f"{TRAIN_IMAGES}.gz"] = send_late
    # Forked, so that the four start at the same moment and torch is imported once.
    program = """
children = []
for _ in range(4):
    if not (child := os.fork()):
        try:
            os.write(1, b"%d\\n" % len(open_dataset("fashion-mnist", root).train))
        finally:
            os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
"""
    assert output(child(program, tmp_path / "together")).split() == ["120"] * 4
    assert sorted(mirror.requested) == requested_by_one
    assert left(tmp_path / "together") == WHOLE


@pytest.mark.processes
def test_what_may_not_be_read_or_written_is_named(mirror: Mirror, tmp_path: Path) -> None:
    may_no_more_than_its_files = bound_by_file_modes()
    unreadable, unsearchable, unwritable = (
        tmp_path / name for name in ("unreadable", "unsearchable", "unwritable")
    )
    write(unreadable)
    (raw(unreadable) / TRAIN_LABELS).chmod(0)
    write(unsearchable)
    raw(unsearchable).chmod(0)
    unwritable.mkdir(mode=0o500)
    program = """
messages = []
for folder in ("unreadable", "unsearchable", "unwritable"):
    try:
        open_dataset("fashion-mnist", root / folder)
    except DataUnavailable as error:
        messages.append(str(error))
print(json.dumps(messages))
"""
    messages = json.loads(output(child(program, tmp_path, *may_no_more_than_its_files)))
    raw(unsearchable).chmod(0o700)
    file = raw(unreadable) / TRAIN_LABELS
    assert messages[0].startswith(f"{file}: cannot be read (Permission denied).")
    for message, folder in zip(messages[1:], (unsearchable, unwritable), strict=True):
        assert_names_the_ways_out(message, folder)
        assert "Permission denied" in message
    assert left(unsearchable) == WHOLE
    assert left(unwritable) == set()


@pytest.mark.parametrize("place", ["data", "data/FashionMNIST"])
def test_a_file_in_the_place_of_a_folder_names_the_ways_out(
    mirror: Mirror, tmp_path: Path, place: str
) -> None:
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    message = failure(tmp_path / "data")
    assert_names_the_ways_out(message, tmp_path / "data")
    assert str(file) in message
    assert file.read_text() == "mine"


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_cannot_be_written_whole_is_not_kept(mirror: Mirror, tmp_path: Path) -> None:
    with files_of_at_most(2**15):
        message = failure(tmp_path)
    assert_names_the_ways_out(message, tmp_path)
    assert "File too large" in message
    assert left(tmp_path) == set()


@pytest.mark.processes
def test_a_full_disk_says_so_and_is_left_as_it_was(mirror: Mirror, tmp_path: Path) -> None:
    in_namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if not shutil.which("unshare") or subprocess.call([*in_namespace, *mount]):
        pytest.skip("a small disk of one's own needs Linux and user namespaces")
    program = """
try:
    open_dataset("fashion-mnist", root)
except DataUnavailable as error:
    print(json.dumps([str(error), sorted(map(str, root.rglob("*")))]))
"""
    script = " ".join(mount[:-1]) + ' "$1" && shift && exec "$@"'
    prefix = [*in_namespace, "sh", "-c", script, "sh", str(tmp_path)]
    message, paths = json.loads(output(child(program, tmp_path, *prefix)))
    assert_names_the_ways_out(message, tmp_path)
    assert "the disk is full" in message
    assert [path for path in paths if not path.endswith(".lock")] == []


@pytest.mark.parametrize(
    "mirror_url",
    [
        "http://ann:sekret@127.0.0.1:1",
        "http://ann:sekret@127.0.0.1",
        "https://ann:sekret@127.0.0.1/files",
        "http://sekret@127.0.0.1:1",
        "http://ann:se@sekret@127.0.0.1:1",
        "http://ann:12/sekret@127.0.0.1:1",
        "ann:sekret@127.0.0.1",
        "http://127.0.0.1:1/?token=sekret",
    ],
)
def test_a_credential_of_the_mirror_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror_url: str
) -> None:
    monkeypatch.setenv("HARNESS_DATA_MIRROR", mirror_url)
    message = failure(tmp_path)
    assert_names_the_ways_out(message, tmp_path)
    assert "sekret" not in message


@pytest.mark.parametrize("mirror_url", ["nonsense", "http://[::1", "http://a b/", "file:///none"])
def test_a_mirror_that_is_no_address_names_the_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror_url: str
) -> None:
    monkeypatch.setenv("HARNESS_DATA_MIRROR", mirror_url)
    assert_names_the_ways_out(failure(tmp_path), tmp_path)


# Real data


@pytest.mark.parametrize(
    ("variable", "name"),
    [("HARNESS_TEST_FASHION_MNIST", "fashion-mnist"), ("HARNESS_TEST_MNIST", "mnist")],
)
def test_real_data_is_what_torchvision_reads(variable: str, name: DatasetName) -> None:
    folder = builtin_datasets.TORCHVISION_CLASSES[name]
    if not (root := os.environ.get(variable)):
        pytest.skip(f"{variable} does not name a data root that holds {folder}/raw")
    ours = builtin_datasets.open_dataset(name, Path(root))
    for images, is_train in ((ours.train, True), (ours.test, False)):
        theirs = getattr(torchvision_datasets, folder)(root, is_train)
        assert torch.equal(images.inputs.view(-1, 28, 28), theirs.data)
        assert torch.equal(images.labels, theirs.targets)
        assert set(images.labels.tolist()) == set(range(10))
