"""Other libraries beside ours: the same accuracy within noise, and their passes counted."""

from dataclasses import replace

import pytest
import torch

from quintain.bench.tools.speed import peers
from quintain.bench.tools.speed.contenders import Quintain
from quintain.bench.tools.speed.measurements import Counted, robust_accuracy

NAMES = ["foolbox", "torchattacks", "art", "adv-lib"]
LAST_LOOKS = {"foolbox": 1, "torchattacks": 0, "art": 2, "adv-lib": 0}  # forward, for success tests


def test_without_any_peer_each_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    found, missing = peers.installed()
    assert found == []
    assert [line.partition(" ")[0] for line in missing] == NAMES
    alone = {name: f"pip install --no-deps {name}" for name in ("torchattacks", "adv-lib")}
    for name, line in zip(NAMES, missing, strict=True):
        assert "is not installed: pip install " in line
        assert line.endswith(alone.get(name, 'pip install "quintain[peers]"'))


def test_a_peer_that_lacks_something_itself_is_named_with_what_it_lacks(monkeypatch):
    def load(module):
        if module.startswith("adv_lib"):
            raise ModuleNotFoundError("No module named 'visdom'")

    monkeypatch.setattr(peers, "find_spec", lambda name: object())
    monkeypatch.setattr(peers, "_load", load)
    found, missing = peers.installed()
    assert [one.name for one in found] == NAMES[:3]
    assert missing == [
        "adv-lib cannot be imported (No module named 'visdom'): "
        "pip install --no-build-isolation visdom && pip install --no-deps adv-lib"
    ]


@pytest.fixture(params=NAMES)
def peer(request):
    return next(one for one, _ in peers.PEERS if one.name == request.param)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_robust_accuracy_is_ours_within_noise(peer, job):
    job = replace(job, steps=20, step_size=0.125)
    epsilons = (0.04, 0.08, 0.12)
    ours = Quintain(whole=True).attack(job, epsilons)
    torch.manual_seed(0)
    theirs = peer.attack(job, epsilons)
    for number, epsilon in enumerate(epsilons):
        mine = robust_accuracy(job, ours.x_adv(number), epsilon)
        # Two of 32: the random starts differ.
        assert mine == pytest.approx(
            robust_accuracy(job, theirs.x_adv(number), epsilon), abs=2 / 32
        )


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_passes_are_counted_to_the_last_one(peer, job):
    module = Counted(job.module).eval()
    peer.attack(replace(job, module=module), (0.02, 0.05))
    assert module.tally.backward == len(job.x) * 4 * 2
    assert module.tally.forward == len(job.x) * (4 + LAST_LOOKS[peer.name]) * 2
