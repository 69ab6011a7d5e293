"""Models that mislead attacks, each around a network that does not: to be flagged, all of them.

Most keep the network's decisions, and are as robust as it is.
"""

import torch
from torch import nn
from torch.nn import functional


class Masked(nn.Module):
    """Around a network (N, C, H, W) -> (N, K)."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner


class _Backwards(torch.autograd.Function):
    """Give one tensor forwards, and send the gradient to the other, changed."""

    @staticmethod
    def forward(context, shown, followed, change):
        context.change = change
        return shown.clone()

    @staticmethod
    def backward(context, gradient):
        return None, context.change(gradient), None


def shown(answer, followed, change=lambda gradient: gradient):
    """`answer`, with the gradient that `followed` would have."""
    return _Backwards.apply(answer.detach(), followed, change)


def one_hot(logits):
    return functional.one_hot(logits.argmax(1), logits.shape[1]).to(logits)


class QuantisedInput(Masked):
    """Rounds pixels, and has no gradient."""

    def forward(self, x):
        return self.inner((8.0 * x).round() / 8.0 + 0.0 * x)


class OneHotNaN(Masked):
    def forward(self, x):
        logits = self.inner(x)
        return shown(one_hot(logits), logits, lambda gradient: gradient * torch.nan)


class OneHotRandom(Masked):
    def forward(self, x):
        logits = self.inner(x)
        return shown(one_hot(logits), logits, torch.randn_like)


class OneHotNegated(Masked):
    def forward(self, x):
        logits = self.inner(x)
        return shown(one_hot(logits), logits, torch.neg)


class OneHotFlat(Masked):
    """Labels alone, without any gradient."""

    def forward(self, x):
        return one_hot(self.inner(x)) + 0.0 * x.flatten(1).sum(1, keepdim=True)


class Negated(Masked):
    def forward(self, x):
        logits = self.inner(x)
        return shown(logits, logits, torch.neg)


class OtherClass(Masked):
    """The right logits, the gradients of the classes beside."""

    def forward(self, x):
        logits = self.inner(x)
        return shown(logits, logits, lambda gradient: gradient.roll(1, dims=1))


class RandomGradient(Masked):
    def forward(self, x):
        return self.inner(shown(x, x, torch.randn_like))


class OtherNetwork(Masked):
    """Shows the gradient of a network that was never trained."""

    def __init__(self, inner):
        super().__init__(inner)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            self.decoy = nn.Sequential(
                nn.Flatten(), nn.LazyLinear(32), nn.ReLU(), nn.Linear(32, 10)
            )
            self.decoy(torch.zeros(1, 1, 8, 8))

    def forward(self, x):
        return shown(self.inner(x), self.decoy(x))


class _Turned(nn.Module):
    """Turns images by half, and says that it cannot be differentiated."""

    differentiable = False

    def forward(self, x):
        return x.flip((2, 3)).detach()


class WrongSurrogate(Masked):
    """Turns images twice, of which attacks, told to go straight through, see one half alone."""

    def __init__(self, inner):
        super().__init__(inner)
        self.turned = _Turned()

    def forward(self, x):
        return self.inner(self.turned(x).flip((2, 3)))


class Saturated(Masked):
    """Logits so large that the cross-entropy is zero."""

    def forward(self, x):
        return 1e4 * self.inner(x)


class GradModeSwitch(Masked):
    """While gradients are recorded it is a blurred image that it looks at."""

    def forward(self, x):
        if torch.is_grad_enabled():
            return self.inner(x.mean((2, 3), keepdim=True).expand_as(x))
        return self.inner(x)


class BatchStatistics(Masked):
    """Normalises by the batch, as a batch norm that was left in training mode."""

    def forward(self, x):
        return self.inner(0.3 + 0.4 * (x - x.mean((0, 2, 3), keepdim=True)) / x.std())


class InputHashNoise(Masked):
    """Noise that is the same whenever the same image is shown."""

    def forward(self, x):
        weights = torch.arange(1.0, 1.0 + x[0].numel(), device=x.device)
        phase = (x.detach().flatten(1) * weights).sum(1)[:, None] * 1e4
        rows = torch.sin(phase * weights[:10] + weights[:10])
        return self.inner(x) + 2.0 * rows


class HiddenNoise(Masked):
    """Random, and does not say so."""

    def forward(self, x):
        return self.inner(x + 0.1 * torch.randn_like(x))


class DetachedBranch(Masked):
    """What counts goes a way that has no gradient; a weak branch has one."""

    def forward(self, x):
        flat = x.flatten(1)
        weak = 1e-3 * torch.cos(7.0 * flat[:, :10])
        return self.inner(x.detach()) + weak


class RoundedLogits(Masked):
    """To one decimal; the gradient is passed on."""

    def forward(self, x):
        logits = self.inner(x)
        return shown((logits * 10.0).round() / 10.0, logits)


class ClippedLogits(Masked):
    """No logit beyond a twentieth."""

    def forward(self, x):
        logits = self.inner(x)
        top = one_hot(logits)
        return logits.clamp(-0.05, 0.05) + 0.01 * top


class Softmaxed(Masked):
    def forward(self, x):
        return (4.0 * self.inner(x)).softmax(dim=1)


class SaturatingPixels(Masked):
    """A sigmoid so steep that it leaves pixels black or white, and hardly any a slope."""

    def forward(self, x):
        return self.inner(torch.sigmoid(3000.0 * (x - 0.53)))


class Rippled(Masked):
    """Ripples too low to matter, and so steep that a gradient sees nothing else."""

    def forward(self, x):
        waves = torch.linspace(-1.0, 1.0, 10, device=x.device).roll(3)
        ripples = torch.sin(3e3 * x).flatten(1).sum(1, keepdim=True)
        return self.inner(x) + 0.02 * ripples * waves


MASKED = (
    QuantisedInput,
    OneHotNaN,
    OneHotRandom,
    OneHotNegated,
    OneHotFlat,
    Negated,
    OtherClass,
    RandomGradient,
    OtherNetwork,
    WrongSurrogate,
    Saturated,
    GradModeSwitch,
    BatchStatistics,
    InputHashNoise,
    HiddenNoise,
    DetachedBranch,
    RoundedLogits,
    ClippedLogits,
    Softmaxed,
    SaturatingPixels,
    Rippled,
)
