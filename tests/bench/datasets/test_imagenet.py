import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from quintain.bench.api.errors import BadData, BadParameter
from quintain.bench.datasets import image_files
from quintain.bench.datasets.torchvision_sets import ImageNet


@pytest.fixture
def imagenet(tmp_path):
    """Two classes of photographs in the folders that torchvision unpacks ImageNet into."""
    synonyms = {"n01": ("tench", "Tinca tinca"), "n02": ("crane",)}
    torch.save((synonyms, []), tmp_path / "meta.bin")
    for part in ("train", "val"):
        for wnid in synonyms:
            path = tmp_path / part / wnid / f"{part}_{wnid}.JPEG"
            path.parent.mkdir(parents=True)
            shade = 50 if wnid == "n01" else 200
            pixels = np.full((40, 60, 3), shade, dtype=np.uint8)
            Image.fromarray(pixels).save(path, format="PNG")
    return tmp_path


def test_imagenet_is_cropped_and_named(imagenet):
    data = ImageNet(root=str(imagenet)).load("test")
    assert data.shape == (3, 224, 224)
    assert data.class_names == ("tench, Tinca tinca", "crane")
    assert data.labels.tolist() == [0, 1]
    for index, shade in enumerate([50, 200]):
        image = data.images.read(torch.tensor([index]))
        assert torch.equal(image, torch.full((1, 3, 224, 224), shade / 255))
    assert len(ImageNet(root=str(imagenet)).load("train")) == 2


def test_imagenet_agrees_with_the_usual_preprocessing(imagenet):
    path = imagenet / "val/n02/val_n02.JPEG"
    pixels = np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")
    data = ImageNet(root=str(imagenet), size=24, resize=32).load("test")
    usual = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize(32),
            torchvision.transforms.CenterCrop(24),
            torchvision.transforms.ToTensor(),
        ]
    )
    with Image.open(path) as image:
        assert torch.equal(data.images.read(torch.tensor([1]))[0], usual(image.convert("RGB")))


def test_imagenet_is_read_on_demand(imagenet, monkeypatch):
    monkeypatch.setattr(image_files, "IN_MEMORY_BYTES", 0)
    data = ImageNet(root=str(imagenet)).load("test")
    (imagenet / "val/n02/val_n02.JPEG").write_bytes(b"damaged")
    assert data.images.read(torch.tensor([0])).shape == (1, 3, 224, 224)
    with pytest.raises(BadData, match=r"val_n02\.JPEG cannot be read"):
        data.images.read(torch.tensor([1]))


def test_imagenet_that_is_absent(tmp_path, monkeypatch):
    monkeypatch.setenv("QUINTAIN_CACHE", str(tmp_path))
    with pytest.raises(BadData) as caught:
        ImageNet().load("test")
    message = str(caught.value)
    assert f"ImageNet cannot be read from {tmp_path / 'datasets' / 'imagenet'}" in message
    assert "put ILSVRC2012_devkit_t12.tar.gz and ILSVRC2012_img_val.tar there" in message
    assert "\n" not in message


def test_bad_values_are_refused():
    with pytest.raises(BadData, match="no split 'val'"):
        ImageNet().load("val")
    with pytest.raises(BadParameter, match="size = 300"):
        ImageNet(size=300)
