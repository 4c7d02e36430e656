"""Deep mutual learning (Zhang et al. 2018): a peer learns beside the student, each from the labels and the other.

The student's part is the KL divergence from what the peer says; the peer's loss is its cross-entropy with the labels
and the same divergence from what the student says, by an optimiser of its own. The paper asks the student again once it
has moved; here the peer learns from what the student said before, which saves a pass. The student learns from labels by
another term. The peer is kept in checkpoints, not in the finished student.
"""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.optim import Optimizer

from models.label_losses import hard, labels_of, soft
from models.terms import Look, Part, Term


class Mutual(Term):
    """Part "mutual"; `optimizer` is of the peer's weights, its rate the full one. The peer takes the same inputs."""

    def __init__(self, peer: nn.Module, optimizer: Optimizer, *, weight: float, temperature: float) -> None:
        super().__init__()
        self.peer, self.optimizer = peer, optimizer
        self.weight, self.temperature = weight, temperature
        self.learning_rates = [group["lr"] for group in optimizer.param_groups]
        self.said: Tensor | None = None  # the peer's logits of the step, (B,C)

    def optimisers(self) -> dict[str, Optimizer]:
        """The peer's."""
        return {"peer": self.optimizer}

    def forward(self, look: Look) -> dict[str, Part]:
        """How far the student is from what the peer says."""
        self.said = self.peer(look.inputs, *look.controls).float()
        return {"mutual": Part(self.weight, soft(look.output, self.said.detach(), self.temperature))}

    def learn(self, look: Look, rate: float) -> Iterator[list[nn.Parameter]]:
        """The peer's step, on the batch the student just learnt from."""
        said, self.said = self.said, None
        assert said is not None, "forward comes before learn"
        self.optimizer.zero_grad(set_to_none=True)
        theirs = soft(said, look.output.detach(), self.temperature)
        (hard(said, labels_of(look, "mutual")) + self.weight * theirs).backward()  # type: ignore[no-untyped-call]
        yield [weight for weight in self.peer.parameters() if weight.grad is not None]
        for group, full in zip(self.optimizer.param_groups, self.learning_rates, strict=True):
            group["lr"] = full * rate
        self.optimizer.step()
