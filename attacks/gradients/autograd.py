"""The gradient by backpropagation through the victim."""

from dataclasses import dataclass

from torch import Tensor

from ...bench.api.attack import Access, Loss, Problem


@dataclass(frozen=True)
class Autograd:
    """Exact gradient by backpropagation: one forward and one backward pass. White-box.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "pgd", "steps": 10, "gradient": "autograd"}
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.005], search="exhaustive")
    >>> int(result.records["backward"].max())
    10
    """

    @property
    def access(self) -> Access:
        """White-box."""
        return "white-box"

    def __call__(self, problem: Problem, x: Tensor, loss: Loss) -> Tensor:
        """(B, C, H, W): the gradient of the loss at x."""
        return self.valued(problem, x, loss)[0]

    def valued(self, problem: Problem, x: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) and (B,): the gradient of the loss at x, and the loss there."""
        answer = problem.victim.gradient(
            x, lambda logits: loss(logits, problem.y, targeted=problem.targeted)
        )
        return answer.gradient, answer.loss
