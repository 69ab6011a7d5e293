"""Tiny files in each published format, fetched and read by torchvision's own code."""

import functools
import gzip
import hashlib
import http.server
import io
import pickle
import struct
import tarfile
import threading

import numpy as np
import pytest
import scipy.io
import torch
import torchvision

from quintain.bench.api.errors import BadData
from quintain.bench.datasets.torchvision_sets import CIFAR10, CIFAR100, MNIST, SVHN, FashionMNIST

RNG = np.random.default_rng(0)
NOWHERE = "http://127.0.0.1:9/"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder, and a local web server that shows it: (folder, address)."""
    folder = tmp_path_factory.mktemp("published")
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def md5(content):
    return hashlib.md5(content).hexdigest()


def raw(data):
    return (data.images.read(torch.arange(len(data))) * 255).round().byte().numpy()


def idx(array):
    """The format of MNIST's files: http://yann.lecun.com/exdb/mnist, unsigned bytes."""
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.tobytes())


@pytest.fixture
def mnist(published, monkeypatch):
    folder, address = published
    arrays, resources = {}, []
    for part, count in (("train", 7), ("t10k", 4)):
        arrays[part] = (
            RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8),
            RNG.integers(0, 10, count, dtype=np.uint8),
        )
        for array, kind in zip(arrays[part], ("images-idx3", "labels-idx1"), strict=True):
            name, content = f"{part}-{kind}-ubyte.gz", idx(array)
            (folder / name).write_bytes(content)
            resources.append((name, md5(content)))
    for kind in (torchvision.datasets.MNIST, torchvision.datasets.FashionMNIST):
        monkeypatch.setattr(kind, "mirrors", [address])
        monkeypatch.setattr(kind, "resources", resources)
    return arrays


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_mnist_is_downloaded_and_read_exactly(kind, mnist, tmp_path, monkeypatch):
    for split, part in (("train", "train"), ("test", "t10k")):
        data = kind(root=str(tmp_path)).load(split)
        images, labels = mnist[part]
        np.testing.assert_array_equal(raw(data), images[:, None])
        assert data.labels.tolist() == labels.tolist()
        assert data.labels.dtype == torch.int64
        assert data.shape == (1, 28, 28)
        assert data.images.data.dtype == torch.uint8
    assert data.n_classes == 10
    assert data.class_names[9] == {"MNIST": "9 - nine", "FashionMNIST": "Ankle boot"}[kind.__name__]
    monkeypatch.setattr(getattr(torchvision.datasets, kind.__name__), "mirrors", [NOWHERE])
    assert len(kind(root=str(tmp_path), download=False).load("test")) == 4
    assert len(kind(root=str(tmp_path)).load("test")) == 4


def test_the_default_folder_is_in_the_cache(mnist, tmp_path, monkeypatch):
    monkeypatch.setenv("QUINTAIN_CACHE", str(tmp_path / "cache"))
    MNIST().load("test")
    assert (tmp_path / "cache/datasets/MNIST/raw/t10k-images-idx3-ubyte").is_file()


def python2_pickle(content):
    """As Krizhevsky's files were written: numpy's type flags as integers."""
    written = pickle.dumps(content, protocol=2)
    flags, old_flags = b"\x89\x88\x87", b"K\x00K\x01\x87"  # (..., False, True) and (..., 0, 1)
    assert flags in written or "data" not in content
    return written.replace(flags, old_flags, 1)


def batch(count, key, n_classes):
    return {
        "data": RNG.integers(0, 256, (count, 3072), dtype=np.uint8),
        key: RNG.integers(0, n_classes, count).tolist(),
    }


def publish_cifar(kind, published, monkeypatch, sizes, key, n_classes):
    """Write the archive and return its batches by file name."""
    folder, address = published
    batches = {name: batch(count, key, n_classes) for name, count in sizes.items()}
    meta = {kind.meta["key"]: [f"class {one}" for one in range(n_classes)]}
    contents = {name: python2_pickle(one) for name, one in batches.items()}
    contents[kind.meta["filename"]] = python2_pickle(meta)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"{kind.base_folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    (folder / kind.filename).write_bytes(archive.getvalue())
    sums = {name: md5(content) for name, content in contents.items()}
    for one in ("train_list", "test_list"):
        monkeypatch.setattr(kind, one, [[name, sums[name]] for name, _ in getattr(kind, one)])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums[kind.meta["filename"]]})
    monkeypatch.setattr(kind, "url", address + kind.filename)
    monkeypatch.setattr(kind, "tgz_md5", md5(archive.getvalue()))
    return batches


def planes(*batches):
    """CIFAR's rows: 1,024 red values row by row, then green, then blue."""
    return np.concatenate([one["data"] for one in batches]).reshape(-1, 3, 32, 32)


@pytest.fixture
def cifar10(published, monkeypatch):
    sizes = {f"data_batch_{number}": number for number in range(1, 6)} | {"test_batch": 3}
    kind = torchvision.datasets.CIFAR10
    return publish_cifar(kind, published, monkeypatch, sizes, "labels", 10)


def test_cifar10_is_downloaded_and_read_exactly(cifar10, tmp_path):
    test = CIFAR10(root=str(tmp_path)).load("test")
    np.testing.assert_array_equal(raw(test), planes(cifar10["test_batch"]))
    assert test.labels.tolist() == cifar10["test_batch"]["labels"]
    assert test.class_names == tuple(f"class {one}" for one in range(10))
    assert test.shape == (3, 32, 32)
    assert test.images.data.is_contiguous()
    train = CIFAR10(root=str(tmp_path), download=False).load("train")
    batches = [cifar10[f"data_batch_{number}"] for number in range(1, 6)]
    np.testing.assert_array_equal(raw(train), planes(*batches))
    assert train.labels.tolist() == [label for one in batches for label in one["labels"]]


def test_one_byte_changes_the_fingerprint(published, cifar10, tmp_path):
    images = CIFAR10(root=str(tmp_path)).load("test").images
    before = images.fingerprint()
    assert CIFAR10(root=str(tmp_path)).load("test").images.fingerprint() == before
    images.data[1, 2, 3, 4] ^= 1
    assert images.fingerprint() != before


def test_cifar100_has_fine_labels(published, monkeypatch, tmp_path):
    kind = torchvision.datasets.CIFAR100
    sizes = {"train": 6, "test": 5}
    batches = publish_cifar(kind, published, monkeypatch, sizes, "fine_labels", 100)
    for split in ("train", "test"):
        data = CIFAR100(root=str(tmp_path)).load(split)
        np.testing.assert_array_equal(raw(data), planes(batches[split]))
        assert data.labels.tolist() == batches[split]["fine_labels"]
        assert data.n_classes == 100


def test_svhn_is_downloaded_and_read_exactly(published, monkeypatch, tmp_path):
    folder, address = published
    listed, written = {}, {}
    for split, labels in (("train", [10, 1, 9]), ("test", [2, 10])):
        pixels = RNG.integers(0, 256, (32, 32, 3, len(labels)), dtype=np.uint8)
        name = f"{split}_32x32.mat"
        scipy.io.savemat(folder / name, {"X": pixels, "y": np.uint8(labels)[:, None]})
        listed[split] = [address + name, name, md5((folder / name).read_bytes())]
        written[split] = (pixels, [label % 10 for label in labels])
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", listed)
    for split, (pixels, labels) in written.items():
        data = SVHN(root=str(tmp_path)).load(split)
        np.testing.assert_array_equal(raw(data), pixels.transpose(3, 2, 0, 1))
        assert data.labels.tolist() == labels
        assert data.class_names == tuple("0123456789")


def refused(dataset, *patterns, split="test"):
    with pytest.raises(BadData) as caught:
        dataset.load(split)
    message = str(caught.value)
    assert "\n" not in message
    for pattern in patterns:
        assert pattern in message


def test_no_network(published, cifar10, mnist, tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", NOWHERE + "cifar")
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [NOWHERE])
    for kind in (CIFAR10, MNIST):
        refused(
            kind(root=str(tmp_path)),
            f"{kind.__name__} is not in {tmp_path} and cannot be downloaded",
            "Connection refused",
            "check the network",
            "set root",
        )


def test_nothing_there_and_no_download(tmp_path):
    for kind in (MNIST, FashionMNIST, CIFAR10, CIFAR100, SVHN):
        refused(
            kind(root=str(tmp_path / "nowhere"), download=False),
            f"{kind.__name__} cannot be read from {tmp_path}",
            "set download = true",
        )
    assert not (tmp_path / "nowhere").exists()


def test_a_damaged_file(cifar10, tmp_path):
    CIFAR10(root=str(tmp_path)).load("test")
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(b"damaged")
    refused(CIFAR10(root=str(tmp_path), download=False), "CIFAR10 cannot be read", "corrupted")
    repaired = CIFAR10(root=str(tmp_path)).load("test")
    np.testing.assert_array_equal(raw(repaired), planes(cifar10["test_batch"]))


def test_damage_that_has_no_checksum(mnist, tmp_path):
    MNIST(root=str(tmp_path)).load("test")
    path = tmp_path / "MNIST/raw/t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    refused(MNIST(root=str(tmp_path)), f"MNIST is not in {tmp_path}", "delete MNIST there")


def test_a_folder_that_cannot_be_made(mnist, tmp_path):
    (tmp_path / "file").write_text("")
    refused(MNIST(root=str(tmp_path / "file")), str(tmp_path / "file"), "cannot be downloaded")


def test_unknown_split(tmp_path):
    refused(MNIST(root=str(tmp_path)), "no split 'val'", split="val")
