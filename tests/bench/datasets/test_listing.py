"""Image folders as they are found on real disks: hidden files, links, names in other encodings."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from quintain.bench.api.errors import BadData
from quintain.bench.api.shared.path_names import relative_to
from quintain.bench.datasets.image_files import FileImages
from quintain.bench.datasets.image_folder import ImageFolder


def save(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (value, value, value)).save(path)


@pytest.fixture
def root(tmp_path):
    """Two classes in each split; every image of a class has one grey value."""
    for split in ("train", "test"):
        for value, name in enumerate(("cat", "dog")):
            for number in range(3):
                save(tmp_path / split / name / f"{number}.png", 100 * value)
    return tmp_path


def load(root, split="test"):
    return ImageFolder(root=str(root)).load(split)


def values(data):
    """Class name and grey value of each image."""
    pixels = (data.images.read(torch.arange(len(data)))[:, 0, 0, 0] * 255).round().int().tolist()
    return [(data.class_names[one], value) for one, value in zip(data.labels, pixels, strict=True)]


def untouched(root):
    data = load(root)
    assert data.class_names == ("cat", "dog")
    assert values(data) == [("cat", 0)] * 3 + [("dog", 100)] * 3


@pytest.mark.parametrize(
    "name",
    [
        "test/.ipynb_checkpoints/0-checkpoint.png",
        "test/.git/x.png",
        "test/@eaDir/0.png",
        "test/__MACOSX/0.png",
        "test/$RECYCLE.BIN/0.png",
        "test/cat/.ipynb_checkpoints/0-checkpoint.png",
        "test/cat/.thumbnails/0.png",
        "test/dog/._0.png",
        "test/dog/@eaDir/0.png",
        "train/.ipynb_checkpoints/0-checkpoint.png",
    ],
)
def test_hidden_and_system_files_are_left_out(root, name):
    save(root / name, 200)
    untouched(root)


def test_an_apple_double_file_is_no_image_although_it_ends_like_one(root):
    (root / "test/cat/._0.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    (root / "test/Thumbs.db").write_bytes(b"x")
    untouched(root)


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("test/cat/again", "test/cat"),
        ("test/cat/up", "test"),
        ("test/cat/top", ""),
        ("test/dog/deep/again", "test/dog"),
    ],
)
def test_links_back_do_not_multiply_images(root, link, target):
    (root / link).parent.mkdir(exist_ok=True)
    os.symlink(root / target, root / link, target_is_directory=True)
    untouched(root)


def test_a_folder_with_two_names_is_read_once_and_links_elsewhere_are_followed(root):
    save(root / "more/a.png", 7)
    os.symlink(root / "more", root / "test/dog/first")
    os.symlink(root / "more", root / "test/dog/second")
    os.symlink(root / "more/a.png", root / "test/cat/linked.png")
    assert values(load(root)) == [("cat", 0)] * 3 + [("cat", 7)] + [("dog", 100)] * 3 + [("dog", 7)]


def test_a_class_that_is_a_link_to_the_whole_is_refused(root):
    for split in ("train", "test"):
        os.symlink(root / split, root / split / "loop", target_is_directory=True)
    with pytest.raises(BadData, match=r"class folder .*/test/loop holds no images"):
        load(root)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_pipes_and_devices_are_refused_and_never_opened(root, make):
    make(root / "test/cat/x.png")
    with pytest.raises(BadData, match=r"image .*/cat/x\.png is not a file"):
        load(root)


def test_a_link_to_nothing_is_refused(root):
    os.symlink(root / "gone.png", root / "test/cat/x.png")
    with pytest.raises(BadData, match=r"image .*/cat/x\.png is not a file.* link to nothing"):
        load(root)


def test_names_that_are_not_utf8(root, monkeypatch):
    """A disk written under Latin-1: the class's name shows its bytes."""
    for split in ("train", "test"):
        os.rename(root / split / "dog", os.fsencode(root / split) + b"/dog\xe9")
    os.rename(root / "test/cat/0.png", os.fsencode(root / "test/cat") + b"/0\xff.png")
    data = load(root)
    assert data.class_names == ("cat", "dog\\xe9")
    assert values(data) == [("cat", 0)] * 3 + [("dog\\xe9", 100)] * 3
    from quintain.bench.datasets import image_files, in_memory

    assert len(in_memory.fingerprint(data)) == 64
    monkeypatch.setattr(image_files, "IN_MEMORY_BYTES", 0)
    on_demand = load(root)
    assert isinstance(on_demand.images, FileImages)
    assert len(in_memory.fingerprint(on_demand)) == 64


def test_an_error_about_such_a_name_can_be_printed(root):
    name = os.fsencode(root / "test/cat") + b"/0\xff.png"
    with open(name, "wb") as file:
        file.write(b"no image")
    with pytest.raises(BadData, match=r"0\\xff\.png cannot be read") as caught:
        load(root)
    str(caught.value).encode("utf-8")


def test_splits_packed_on_different_systems_agree(root):
    """macOS takes accents apart: e + U+0301 and U+00E9 are one class."""
    (root / "train/cat").rename(root / "train/cafe\u0301")
    (root / "test/cat").rename(root / "test/caf\u00e9")
    assert load(root).class_names == load(root, "train").class_names == ("caf\u00e9", "dog")
    (root / "test/cafe\u0301").mkdir()
    with pytest.raises(BadData, match="two class folders 'caf\u00e9'"):
        load(root)


def test_the_order_is_torchvisions(root):
    """Labels, classes and the order of files in nested folders, by an independent reading."""
    for name in ("Zebra/1", "cat/b/0", "cat/a/9", "cat/a/10", "cat/B/1", "dog/0/x", "a b/0"):
        for split in ("train", "test"):
            save(root / split / f"{name}.png", len(name))
    (root / "test/cat/8.JPEG").write_bytes((root / "test/cat/0.png").read_bytes())
    expected = datasets.ImageFolder(str(root / "test"))
    data = load(root)
    assert list(data.class_names) == expected.classes
    assert data.labels.tolist() == expected.targets
    theirs = torch.stack([torch.from_numpy(np.array(image)) for image, _ in expected])
    assert torch.equal(
        (data.images.read(torch.arange(len(data))) * 255).round().byte(), theirs.permute(0, 3, 1, 2)
    )


def test_root_is_relative_to_the_suites_folder(root, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    with relative_to(root.parent):
        assert len(load(root.name)) == 6
    with pytest.raises(BadData, match="does not exist"):
        load(root.name)


def test_a_suite_finds_its_images_from_any_folder(
    root, write_suite, quintain, monkeypatch, tmp_path
):
    (tmp_path / "suites").mkdir()
    suite = write_suite(
        folder=tmp_path / "suites",
        dataset='{ name = "imagefolder", root = "..\\\\photos" }',
        n_examples="2",
        models='\n[[models]]\nname = "small-cnn"\nwidth = 4\n',
        attacks='\n[[attacks]]\nname = "grey"\n',
    )
    (root / "photos").mkdir()
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            for number in range(20):
                save(root / "photos" / split / name / f"{number}.png", number)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    answer = quintain("run", suite, "--out", tmp_path / "run", "--device", "cpu")
    assert answer.code == 0, answer.err
    repeat = json.loads((tmp_path / "run" / "manifest.json").read_text("utf-8"))["repeat"]
    assert "quintain run suite.toml " not in repeat  # from the copy, root would lead elsewhere
