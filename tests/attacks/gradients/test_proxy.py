import pytest
import torch
from builders import problem_at, random_images
from torch import nn
from torch.nn import functional

from quintain.attacks.gradients.proxy import Proxy
from quintain.attacks.parts.losses import CrossEntropy
from quintain.attacks.presets import transfer
from quintain.bench import evaluate
from quintain.bench.api import registry
from quintain.bench.api.attack import Preparation
from quintain.bench.api.errors import BadParameter
from quintain.bench.datasets.in_memory import in_memory, select
from quintain.bench.victim.model import Network
from quintain.defenses.none import Undefended


def linear(seed, n_classes=4):
    generator = torch.Generator().manual_seed(seed)
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, n_classes))
    with torch.no_grad():
        module[1].weight.copy_(torch.randn(n_classes, 16, generator=generator))
        module[1].bias.copy_(-module[1].weight.sum(1) / 2)
    return module.requires_grad_(False)


def pictures(count, seed=0):
    return random_images(count, 1, 4, 4, seed=seed)


class Setting:
    """A victim and an attacker, and all that passes between them."""

    def __init__(self, owned=pictures(60)):
        self.victim, self.apprentice = linear(0), linear(1)
        self.owned = owned
        self.asked, self.orders = [], []

    def ask(self, x, access):
        self.asked.append((x, access))
        logits = self.victim(x)
        return logits.argmax(1) if access == "decision" else logits

    def train(self, model, data, parameters):
        self.orders.append((model, data, parameters))
        return self.apprentice

    def preparation(self, seed=0):
        images = None
        if self.owned is not None:
            labels = torch.zeros(len(self.owned), dtype=torch.int64)
            images = in_memory(self.owned, labels, ("unlabelled",))
        return Preparation(
            self.ask,
            images,
            4,
            seed,
            self.train,
            lambda module: Network(module, torch.device("cpu"), 64),
            select,
            in_memory,
            None,
        )

    def seen(self):
        return torch.cat([x for x, _ in self.asked])


def parts(images, of):
    """Where each image stands among others, -1 where it is not one of them."""
    same = (images[:, None] == of[None]).flatten(2).all(2)
    return torch.where(same.any(1), same.long().argmax(1), -1)


@pytest.mark.parametrize(("budget", "queries"), [(2, 2), (37, 37), (60, 60), (1000, 60)])
def test_the_victim_is_asked_exactly_the_budget_each_image_once(budget, queries):
    setting = Setting()
    Proxy(query_budget=budget).prepare(setting.preparation())
    where = parts(setting.seen(), setting.owned)
    assert len(where) == queries
    assert len(where.unique()) == queries
    assert (where >= 0).all()


@pytest.mark.parametrize("answers", ["probabilities", "labels"])
def test_fidelity_is_the_agreement_on_images_that_were_not_trained_on(answers):
    setting = Setting()
    prepared = Proxy(query_budget=50, held_out=0.3, answers=answers).prepare(setting.preparation())
    ((_, trained, _),) = setting.orders
    learnt = parts(trained.images.read(torch.arange(len(trained))), setting.owned)
    shown = parts(setting.seen(), setting.owned)
    held_out = setting.owned[[one for one in shown.tolist() if one not in learnt.tolist()]]
    assert len(held_out) == 15
    assert len(learnt) == 35
    agree = setting.victim(held_out).argmax(1) == setting.apprentice(held_out).argmax(1)
    assert prepared.report["fidelity"] == pytest.approx(agree.double().mean().item())
    assert prepared.report["fidelity_images"] == 15


def test_a_perfect_copy_has_fidelity_one():
    setting = Setting()
    setting.apprentice = setting.victim
    assert Proxy().prepare(setting.preparation()).report["fidelity"] == 1.0


def test_with_score_access_it_learns_probabilities():
    setting = Setting()
    Proxy().prepare(setting.preparation())
    ((_, trained, _),) = setting.orders
    images = trained.images.read(torch.arange(len(trained)))
    assert torch.allclose(trained.labels, functional.softmax(setting.victim(images), 1), atol=1e-6)
    assert {access for _, access in setting.asked} == {"score"}
    assert trained.n_classes == 4


def test_with_decision_access_it_learns_labels():
    setting = Setting()
    proxy = Proxy(answers="labels")
    assert proxy.access == proxy.prepare(setting.preparation()).access == "decision"
    ((_, trained, _),) = setting.orders
    images = trained.images.read(torch.arange(len(trained)))
    assert torch.equal(trained.labels, setting.victim(images).argmax(1))
    assert {access for _, access in setting.asked} == {"decision"}


def test_what_is_trained_is_what_was_ordered():
    setting = Setting()
    spec = {"name": "resnet", "depth": 8}
    Proxy(architecture=spec, training={"epochs": 3}).prepare(setting.preparation())
    ((model, _, parameters),) = setting.orders
    assert (model, parameters) == (spec, {"epochs": 3})
    setting = Setting()
    Proxy().prepare(setting.preparation())
    assert setting.orders[0][0] == {"name": "resnet"}


def test_the_seed_chooses_the_images():
    chosen = []
    for seed in (0, 0, 1):
        setting = Setting()
        Proxy(query_budget=20).prepare(setting.preparation(seed))
        chosen.append(set(parts(setting.seen(), setting.owned).tolist()))
    assert chosen[0] == chosen[1] != chosen[2]


def test_its_gradient_is_the_proxys_and_the_victim_is_not_asked():
    setting = Setting()
    prepared = Proxy().prepare(setting.preparation())
    x, y = pictures(5, seed=9), torch.arange(5) % 4
    at = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(functional.cross_entropy(setting.apprentice(at), y) * 5, at)
    assert torch.allclose(prepared(problem_at(x, y=y), x, CrossEntropy()), expected, atol=1e-6)


def test_an_attacker_without_images_is_told_so():
    setting = Setting(owned=None)
    with pytest.raises(BadParameter, match="attacker_images"):
        Proxy().prepare(setting.preparation())
    with pytest.raises(BadParameter, match="1 images are too few"):
        Proxy().prepare(Setting(owned=pictures(1)).preparation())
    with pytest.raises(BadParameter, match="must be prepared"):
        Proxy()(None, pictures(1), CrossEntropy())


@pytest.mark.parametrize(
    "given", [{"query_budget": 1}, {"held_out": 0.0}, {"held_out": 1.0}, {"held_out": -1.0}]
)
def test_parameters_that_make_no_proxy_are_refused(given):
    (name,) = given
    with pytest.raises(BadParameter, match=name):
        Proxy(**given)


# ------------------------------------------------------------ more images, other images, more nets


@pytest.mark.parametrize(("rounds", "budget"), [(1, 40), (2, 40), (3, 37), (2, 1000)])
def test_images_are_doubled_along_the_jacobian_within_the_budget(rounds, budget):
    setting = Setting()
    proxy = Proxy(rounds=rounds, query_budget=budget, reach=0.07)
    prepared = proxy.prepare(setting.preparation())
    sizes = [len(data) for _, data, _ in setting.orders]
    assert sizes == [sizes[0] * 2**number for number in range(rounds + 1)]
    assert len(setting.seen()) == prepared.report["fidelity_images"] + sizes[-1] <= budget
    _, last, _ = setting.orders[-1]
    _, before, _ = setting.orders[-2]
    images = last.images.read(torch.arange(len(last)))
    old, made = images.chunk(2)
    assert torch.equal(old, before.images.read(torch.arange(len(before))))
    # Of a linear network the Jacobian is plain: the probability of a class grows with its logit,
    # less the others', as they are likely.
    weight = setting.apprentice[1].weight
    probabilities = setting.apprentice(old).softmax(1)
    classes = setting.victim(old).argmax(1)
    slope = weight[classes] - probabilities @ weight
    wanted = (old + 0.07 * slope.sign().reshape(old.shape)).clamp(0, 1)
    assert torch.allclose(made, wanted, atol=1e-6)
    assert torch.allclose(last.labels, setting.victim(images).softmax(1), atol=1e-6)


def test_made_images_are_asked_about_as_the_access_allows():
    setting = Setting()
    Proxy(rounds=1, answers="labels", query_budget=30).prepare(setting.preparation())
    assert {access for _, access in setting.asked} == {"decision"}
    _, last, _ = setting.orders[-1]
    images = last.images.read(torch.arange(len(last)))
    assert torch.equal(last.labels, setting.victim(images).argmax(1))


class Shapes:
    """A dataset of the attacker's own."""

    def __init__(self, side=4):
        self.images = torch.rand(50, 1, side, side)

    def load(self, split):
        assert split == "train"
        return in_memory(self.images, torch.zeros(50, dtype=torch.int64), ("thing",))


def test_the_attacker_may_begin_with_images_from_elsewhere():
    with registry.temporary():
        made = []

        @registry.dataset("others")
        def shapes(side: int = 4):
            made.append(Shapes(side))
            return made[-1]

        setting = Setting()
        Proxy(seeds={"name": "others"}, query_budget=20).prepare(setting.preparation())
        assert (parts(setting.seen(), made[0].images) >= 0).all()
        with pytest.raises(BadParameter, match=r"seeds are images of shape \(1, 5, 5\)"):
            Proxy(seeds={"name": "others", "side": 5}).prepare(setting.preparation())


def test_several_architectures_are_trained_on_the_same_answers_and_averaged():
    setting = Setting()
    nets = iter([linear(1), linear(2)])
    setting.train = lambda *order: setting.orders.append(order) or next(nets)
    proxy = Proxy(architecture=["resnet", {"name": "alexnet", "width": 0.5}], query_budget=30)
    prepared = proxy.prepare(setting.preparation())
    assert [model for model, _, _ in setting.orders] == [
        {"name": "resnet"}, {"name": "alexnet", "width": 0.5}
    ]  # fmt: skip
    assert len(setting.seen()) == 30
    x = pictures(7, seed=3)
    mean = (linear(1)(x) + linear(2)(x)) / 2
    assert torch.allclose(prepared.network.logits(x), mean, atol=1e-6)


@pytest.mark.parametrize("given", [[], ["resnet", "resnet"], ["resnet", {"name": "resnet"}]])
def test_architectures_must_differ(given):
    with pytest.raises(BadParameter, match="architecture must name at least one model, and each"):
        Proxy(architecture=given)


# ------------------------------------------------------------------------------- in an evaluation


class Watched(nn.Module):
    """The victim, and every image that it was shown."""

    def __init__(self):
        super().__init__()
        self.inner = linear(0)
        self.seen = []

    def forward(self, x):
        self.seen.append(x.clone())
        return self.inner(x)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A cache of its own, and a proxy architecture that trains in no time."""
    monkeypatch.setenv("QUINTAIN_CACHE", str(tmp_path / "cache"))
    with registry.temporary():

        @registry.model("plane")
        def plane(inputs):
            return nn.Sequential(nn.Flatten(), nn.Linear(16, inputs.n_classes))

        yield {
            "name": "transfer",
            "steps": 10,
            "gradient": {
                "name": "proxy",
                "architecture": "plane",
                "query_budget": 300,
                "training": {
                    "epochs": 20,
                    "augmentation": "none",
                    "batch_size": 32,
                    "learning_rate": 0.5,
                },
            },
        }


def attacked(attack, model=None, **named):
    model = model or Watched()
    x = pictures(40, seed=5)
    y = model.inner(x).argmax(1)
    named = {"attacker_images": pictures(400), "epsilons": [0.02, 0.1, 0.3]} | named
    return evaluate(model, x, y, attack, **named)


def test_a_transfer_attack_on_a_model_that_is_easy_to_copy(small):
    result = attacked(small)
    assert result.report["setup_queries"] == 300
    assert result.report["fidelity"] > 0.85
    assert result.curve["robust_accuracy"].iloc[-1] < 0.2
    assert (result.records["backward"] == 0).all()
    # what the victim is asked under attack is the judgement of each attempt
    tries = result.records["attacked"].map(sum)
    assert result.records["queries"].tolist() == tries.tolist()


def test_images_under_evaluation_are_not_what_the_proxy_learns_from(small, monkeypatch):
    learnt = []
    fit = Undefended.fit

    def watch(self, model, training):
        learnt.append(training.data.images.read(torch.arange(len(training.data))))
        return fit(self, model, training)

    monkeypatch.setattr(Undefended, "fit", watch)
    attacked(small)
    (images,) = learnt
    assert (parts(images, pictures(40, seed=5)) == -1).all()
    assert (parts(images, pictures(400)) >= 0).all()


def test_the_second_time_the_proxy_comes_from_the_cache(small, monkeypatch):
    first = attacked(small)
    monkeypatch.setattr(Undefended, "fit", None)  # training again would fail
    second = attacked(small)
    assert second.records.equals(first.records)
    assert second.report == first.report
    assert torch.equal(second.adversarials(0.1), first.adversarials(0.1))


def test_all_networks_of_all_rounds_come_from_the_cache_too(small, monkeypatch):
    @registry.model("other-plane")
    def other_plane(inputs):
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))

    small["gradient"] |= {"architecture": ["plane", "other-plane"], "rounds": 2}
    fits = []
    fit = Undefended.fit
    monkeypatch.setattr(
        Undefended, "fit", lambda self, *rest: fits.append(rest) or fit(self, *rest)
    )
    first = attacked(small)
    assert len(fits) == 2 * 3
    assert first.report["setup_queries"] <= 300
    small["steps"] = 5  # another attack on the same victim
    second = attacked(small)
    assert len(fits) == 2 * 3
    assert second.report == first.report
    small["gradient"]["architecture"] = "plane"  # the seeds are the same, what is made is not
    attacked(small)
    assert len(fits) == 2 * 3 + 2


def test_another_victim_is_not_attacked_with_the_proxy_of_the_first(small):
    first = attacked(small)
    other = Watched()
    other.inner = linear(7)
    second = attacked(small, model=other)
    assert second.report["fidelity"] > 0.85
    assert not torch.equal(second.adversarials(0.1), first.adversarials(0.1))


def test_labels_alone_will_do(small):
    small["gradient"]["answers"] = "labels"
    result = attacked(small)
    assert result.report["fidelity"] > 0.8
    assert result.curve["robust_accuracy"].iloc[-1] < 0.3


def test_a_query_budget_holds_for_what_is_asked_under_attack(small):
    result = attacked(small, query_budget=1)
    under = result.records["under_attack"]
    assert (result.records["queries"][under] == 1).all()
    assert result.report["setup_queries"] == 300


def test_the_preset_is_pgd_on_a_proxy():
    attack = transfer()
    assert attack.access == "score"
    assert not attack.monotone
    assert isinstance(attack.gradient, Proxy)
