"""Networks of others' layout, built here by hand as that layout says, against our own."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from quintain.bench.api.errors import BadCheckpoint
from quintain.models.third_party.cifar_resnets import MEAN, STD, from_cifar_resnet


def synthetic_state(depth, *, n_classes=10):
    """Random weights under their keys, batch statistics that are not trivial among them."""
    generator = torch.Generator().manual_seed(depth)

    def conv(outputs, inputs):
        return torch.randn(outputs, inputs, 3, 3, generator=generator) / (3 * inputs**0.5)

    state = {"conv1.weight": conv(16, 3)}
    norms = [("bn1", 16)]
    channels = 16
    for stage, outputs in enumerate((16, 32, 64), start=1):
        for block in range((depth - 2) // 6):
            name = f"layer{stage}.{block}"
            state[f"{name}.conv1.weight"] = conv(outputs, channels)
            state[f"{name}.conv2.weight"] = conv(outputs, outputs)
            norms += [(f"{name}.bn1", outputs), (f"{name}.bn2", outputs)]
            channels = outputs
    for name, size in norms:
        state[f"{name}.weight"] = 0.5 + torch.rand(size, generator=generator)
        state[f"{name}.bias"] = torch.randn(size, generator=generator)
        state[f"{name}.running_mean"] = torch.randn(size, generator=generator)
        state[f"{name}.running_var"] = 0.5 + torch.rand(size, generator=generator)
    state["linear.weight"] = torch.randn(n_classes, 64, generator=generator)
    state["linear.bias"] = torch.randn(n_classes, generator=generator)
    return state


def their_logits(state, x, depth):
    """The forward pass that their layout means, shortcuts padded on both sides."""

    def normalised(name, z):
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(z, *(state[f"{name}.{key}"] for key in keys))

    x = (x - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(STD).reshape(3, 1, 1)
    x = F.relu(normalised("bn1", F.conv2d(x, state["conv1.weight"], padding=1)))
    for stage in (1, 2, 3):
        for block in range((depth - 2) // 6):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            z = F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            z = F.relu(normalised(f"{name}.bn1", z))
            z = normalised(f"{name}.bn2", F.conv2d(z, state[f"{name}.conv2.weight"], padding=1))
            if stride == 2:
                quarter = z.shape[1] // 4
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))
            x = F.relu(z + x)
    return F.linear(x.mean(dim=(2, 3)), state["linear.weight"], state["linear.bias"])


@pytest.mark.parametrize("depth", [20, 32])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_logits_are_theirs_to_rounding(depth, prefix):
    state = synthetic_state(depth)
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = from_cifar_resnet({prefix + key: value for key, value in state.items()})
    expected = their_logits(state, x, depth)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 1.0


def test_the_number_of_classes_and_the_counts_of_batches_are_taken_over():
    state = synthetic_state(20, n_classes=7)
    state["bn1.num_batches_tracked"] = torch.tensor(5)
    model = from_cifar_resnet(state)
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 7)
    assert model.stem[1].num_batches_tracked == 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("linear.weight"), "expected keys"),
        (lambda state: state.pop("layer3.0.conv1.weight"), "expected keys|do not fit"),
        (lambda state: state.pop("bn1.bias"), "stem.1.bias"),
        (lambda state: state.update({"fc.weight": torch.zeros(1)}), "'fc.weight' is no tensor"),
        (lambda state: state.update({"linear.bias": torch.zeros(3)}), "size mismatch"),
    ],
)
def test_other_state_dicts_are_refused(change, said):
    state = synthetic_state(20)
    change(state)
    with pytest.raises(BadCheckpoint, match=said):
        from_cifar_resnet(state)
