import numpy as np
import pytest
import torch
from PIL import Image

from quintain.bench.api.errors import BadData, BadParameter
from quintain.bench.datasets import image_files
from quintain.bench.datasets.image_files import FileImages
from quintain.bench.datasets.image_folder import ImageFolder
from quintain.bench.datasets.in_memory import TensorImages


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def picture(seed, height=6, width=6):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path):
    """Two classes, five test and three training images, all 6x6."""
    for seed, name in enumerate(["test/cat/0", "test/cat/1", "test/dog/0", "test/dog/10"]):
        save(tmp_path / f"{name}.png", picture(seed))
    save(tmp_path / "test/dog/2.png", picture(9))
    for name in ["train/cat/0", "train/cat/1", "train/dog/0"]:
        save(tmp_path / f"{name}.png", picture(20))
    (tmp_path / "test/cat/notes.txt").write_text("not an image")
    return tmp_path


def everything(data):
    return data.images.read(torch.arange(len(data)))


@pytest.fixture(params=["memory", "files"])
def kept(request, monkeypatch):
    """Both ways of holding the images."""
    if request.param == "files":
        monkeypatch.setattr(image_files, "IN_MEMORY_BYTES", 0)
    return {"memory": TensorImages, "files": FileImages}[request.param]


def test_pixels_labels_and_names(root, kept):
    data = ImageFolder(root=str(root)).load("test")
    assert isinstance(data.images, kept)
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 1, 1, 1]
    assert data.shape == (3, 6, 6)
    expected = np.stack([picture(seed) for seed in (0, 1, 2, 3, 9)]).transpose(0, 3, 1, 2)
    found = everything(data)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), expected.astype(np.float32) / np.float32(255))
    assert torch.equal(data.images.read(torch.tensor([4, 1])), found[[4, 1]])


def test_several_threads_read_the_same(root, monkeypatch):
    one = everything(ImageFolder(root=str(root)).load("test"))
    monkeypatch.setattr(image_files, "_LARGE_FILE_BYTES", 0)
    monkeypatch.setattr(image_files, "_CHUNK", 1)
    monkeypatch.setattr(image_files.os, "cpu_count", lambda: 4)
    assert torch.equal(everything(ImageFolder(root=str(root)).load("test")), one)
    (root / "test/dog/10.png").write_bytes(b"no")
    with pytest.raises(BadData, match=r"test/dog/10\.png cannot be read"):
        ImageFolder(root=str(root)).load("test")


def test_grayscale(root, kept):
    data = ImageFolder(root=str(root), grayscale=True).load("test")
    assert data.shape == (1, 6, 6)
    red, green, blue = picture(0).astype(np.float64).transpose(2, 0, 1)
    luma = (0.299 * red + 0.587 * green + 0.114 * blue) / 255  # ITU-R BT.601
    np.testing.assert_allclose(everything(data)[0, 0].numpy(), luma, atol=1.01 / 255)


def test_other_folder_names(root, kept):
    (root / "test").rename(root / "holdout")
    assert len(ImageFolder(root=str(root), test="holdout").load("test")) == 5
    assert len(ImageFolder(root=str(root), test="holdout").load("train")) == 3


def test_a_split_that_is_not_loaded_need_not_exist(root):
    (root / "train").rename(root / "elsewhere")
    assert len(ImageFolder(root=str(root)).load("test")) == 5


def test_size_crops_the_centre(tmp_path, kept):
    wide = picture(1, height=8, width=12)
    save(tmp_path / "test/a/wide.png", wide)
    save(tmp_path / "test/a/tall.png", picture(2, height=20, width=8))
    data = ImageFolder(root=str(tmp_path), size=8).load("test")
    assert data.shape == (3, 8, 8)
    tall, cropped = everything(data)
    np.testing.assert_array_equal(
        (cropped * 255).round().byte().numpy(), wide[:, 2:10].transpose(2, 0, 1)
    )
    expected = picture(2, height=20, width=8)[6:14].transpose(2, 0, 1)
    np.testing.assert_array_equal((tall * 255).round().byte().numpy(), expected)


def test_size_scales_the_shorter_side(tmp_path):
    flat = np.full((10, 30, 3), 77, dtype=np.uint8)
    save(tmp_path / "test/a/flat.png", flat)
    data = ImageFolder(root=str(tmp_path), size=4).load("test")
    assert torch.equal(everything(data), torch.full((1, 3, 4, 4), 77 / 255))


def test_fingerprint_follows_the_pixels_of_a_small_set(root):
    before = ImageFolder(root=str(root)).load("test").images.fingerprint()
    assert ImageFolder(root=str(root)).load("test").images.fingerprint() == before
    changed = picture(2)
    changed[3, 4, 1] ^= 1
    save(root / "test/dog/0.png", changed)
    assert ImageFolder(root=str(root)).load("test").images.fingerprint() != before


def test_fingerprint_of_a_large_set_follows_names_sizes_and_settings(root, monkeypatch):
    monkeypatch.setattr(image_files, "IN_MEMORY_BYTES", 0)

    def fingerprint(**settings):
        return ImageFolder(root=str(root), **settings).load("test").images.fingerprint()

    seen = [fingerprint(), fingerprint(size=6), fingerprint(grayscale=True)]
    assert fingerprint() == seen[0]
    save(root / "test/dog/0.png", np.zeros((6, 6, 3), dtype=np.uint8))  # fewer bytes
    seen.append(fingerprint())
    (root / "test/dog/0.png").rename(root / "test/dog/00.png")
    seen.append(fingerprint())
    assert len(set(seen)) == len(seen)


def refused(root, message, split="test", **settings):
    with pytest.raises(BadData, match=message) as caught:
        ImageFolder(root=str(root), **settings).load(split)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(root):
    refused(root / "nowhere", r"image folder .*/nowhere does not exist")
    refused(root / "test/cat/0.png", r"0\.png is not a folder")


def test_a_split_that_is_not_there(root):
    refused(root, "no folder 'tests'.*did you mean 'test'.*holds test, train", test="tests")
    refused(root / "test/cat", "no folder 'test' for the test split; it holds no folders")


def test_no_class_folders(root):
    refused(root / "test", "cat holds no class folders", test="cat")


def test_a_class_without_images(root):
    (root / "train/dog/0.png").unlink()
    refused(root, r"class folder .*/train/dog holds no images; .*\.png", split="train")


def test_a_folder_that_cannot_be_listed(root, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", denied)
    refused(root, r"image folder .*/test cannot be read: .*Permission denied")


def test_splits_with_different_classes(root):
    save(root / "train/zebra/0.png", picture(0))
    refused(root, r"class folder 'zebra' is in .*/train but not in .*/test")
    refused(root, r"class folder 'zebra' is in .*/train but not in .*/test", split="train")


def test_images_of_several_sizes(root, kept):
    save(root / "test/dog/10.png", picture(3, height=6, width=7))
    save(root / "test/dog/2.png", picture(3, height=5, width=6))
    refused(root, r"dog/10\.png is 7x6 pixels, but .*cat/0\.png is 6x6; set size")


def test_a_file_that_is_no_image(root):
    (root / "test/dog/0.png").write_text("hello")
    refused(root, r"image .*/test/dog/0\.png cannot be read: cannot identify image file")


def test_a_damaged_first_image(root, kept):
    (root / "test/cat/0.png").write_text("")
    refused(root, r"image .*/test/cat/0\.png cannot be read")


def test_a_truncated_image(root, kept):
    path = root / "test/dog/0.png"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(BadData, match=r"image .*/test/dog/0\.png cannot be read") as caught:
        everything(ImageFolder(root=str(root)).load("test"))
    assert "\n" not in str(caught.value)


def test_a_file_that_vanishes(root, monkeypatch):
    monkeypatch.setattr(image_files, "IN_MEMORY_BYTES", 0)
    images = ImageFolder(root=str(root)).load("test").images
    (root / "test/dog/0.png").unlink()
    with pytest.raises(BadData, match=r"dog/0\.png cannot be read"):
        images.read(torch.tensor([2]))
    with pytest.raises(BadData, match=r"dog/0\.png cannot be read"):
        images.fingerprint()


def test_sixteen_bit_images_are_not_clipped_silently(root):
    deep = np.full((6, 6), 40_000, dtype=np.uint16)
    save(root / "test/dog/0.png", deep)
    refused(root, r"dog/0\.png has mode I;16: 8 bits a channel are needed")


def test_bad_values_are_refused():
    with pytest.raises(BadParameter, match="size = 0"):
        ImageFolder(root="x", size=0)
    with pytest.raises(BadParameter, match="root = ''"):
        ImageFolder(root="")
    with pytest.raises(BadData, match="no split 'val'"):
        ImageFolder(root="x").load("val")
