import pytest
import torch
from safetensors.torch import load_file

from quintain.bench.engine.adversarials import DiskStore, InMemoryStore


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_disk_store_is_saved_as_safetensors(tmp_path, count):
    images = torch.rand(count, 3, 2, 5, generator=torch.Generator().manual_seed(0))
    with DiskStore.opened(tmp_path / "records", (3, 2, 5)) as store:
        for number, image in enumerate(images):
            store.keep(7 * number, number % 2, image, 0.1)
        store.save(tmp_path / "records" / "cell.safetensors")
    saved = load_file(tmp_path / "records" / "cell.safetensors")
    assert torch.equal(saved["x_adv"], images)
    assert saved["row"].tolist() == [7 * number for number in range(count)]
    assert saved["point"].tolist() == [number % 2 for number in range(count)]
    assert [one.name for one in (tmp_path / "records").iterdir()] == ["cell.safetensors"]


def test_a_disk_store_takes_images_in_any_memory_order(tmp_path):
    image = torch.rand(1, 3, 4, 4).to(memory_format=torch.channels_last)[0]
    assert not image.is_contiguous()
    with DiskStore.opened(tmp_path, (3, 4, 4)) as store:
        store.keep(0, 0, image, 0.1)
        store.save(tmp_path / "cell.safetensors")
    assert torch.equal(load_file(tmp_path / "cell.safetensors")["x_adv"][0], image)


def test_an_in_memory_store_keeps_one_image_a_point():
    store = InMemoryStore()
    for value in (0.1, 0.2):
        store.keep(3, 1, torch.tensor(value), 0.1)
    store.keep(3, 0, torch.tensor(0.5), 0.1)
    assert {point: float(one) for point, one in store.images[3].items()} == pytest.approx(
        {1: 0.2, 0: 0.5}
    )
