"""Before a training: parts that teach nothing are refused, each in one line that names it; nothing is left changed."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from test_contrastive import make
from torch import nn
from toy_classifiers import CLASSES, Source, look_at, pictures_net, recipe

from models.adversarial import Adversarial
from models.batches import Batch
from models.consistency import Consistency
from models.errors import UserError
from models.feature_distillation import FeatureDistillation, Link
from models.features import module_features
from models.label_losses import Dist, Dkd, Kd, Labels
from models.mutual import Mutual
from models.term_check import check_terms
from models.terms import Look, Part, Pictures, Term
from models.training import make_optimizer


class Made(Term):
    """A part by any function of a look."""

    def __init__(self, value: Callable[[Look], torch.Tensor], *paths: str, weight: float = 1.0) -> None:
        super().__init__()
        self.value, self.paths, self.weight = value, paths, weight

    def forward(self, look: Look) -> dict[str, Part]:
        return {"made": Part(self.weight, self.value(look))}


def features(student: nn.Module, *losses: str, path: str = "block", weight: float = 1.0) -> FeatureDistillation:
    links = [Link(loss=loss, student=path, teacher="block", weight=weight) for loss in losses]
    teacher = module_features(pictures_net(12, 1), ["block"] * len(links))
    return FeatureDistillation(links, teacher, student, Source().one().inputs)


def every_term(student: nn.Module) -> list[Term]:
    peer = pictures_net(6, 5)
    return [
        Labels(1.0),
        Kd(temperature=4.0, share=0.9),
        Dkd(alpha=1.0, beta=8.0, temperature=4.0, warmup=0.1),
        Dist(beta=1.0, gamma=1.0, temperature=1.0),
        features(student, "fitnets", "attention", "relations", "sp", "vid", "hidden-cosine"),
        make(Source()),
        Mutual(peer, make_optimizer(list(peer.parameters()), recipe()), weight=1.0, temperature=1.0),
    ]


def test_every_loss_passes_and_nothing_is_changed() -> None:
    """Weights, statistics, banks, optimisers, gradients, modes and random states are what they were."""
    student = pictures_net(6, 0)
    student.stem[1].eval()  # type: ignore[index]
    student.head.weight.grad = torch.ones_like(student.head.weight)  # type: ignore[union-attr]
    terms = every_term(student)
    batch = Source().one()
    kept = [{name: value.clone() for name, value in one.state_dict().items()} for one in (student, *terms)]
    modes = [module.training for one in (student, *terms) for module in one.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    check_terms(student, terms, batch)
    check_terms(student, terms, batch)
    for one, before in zip((student, *terms), kept, strict=True):
        assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())
    assert modes == [module.training for one in (student, *terms) for module in one.modules()]
    assert torch.equal(states[0], torch.get_rng_state()) and states[2] == random.getstate()
    assert states[1] == np.random.get_state()[1].tolist()  # type: ignore[index]
    grads = [name for name, weight in student.named_parameters() if weight.grad is not None]
    assert grads == ["head.weight"] and bool((student.head.weight.grad == 1).all())  # type: ignore[union-attr]
    assert all(weight.grad is None for term in terms for weight in term.parameters())
    assert not any(one.state for term in terms for one in term.optimisers().values())


def test_pictures_and_what_comes_late_pass() -> None:
    student = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Sigmoid())
    inputs = torch.rand(2, 3, 32, 32)
    adversary = Adversarial(weight=0.1, begin=0.5, scales=1, channels=4, learning_rate=1e-3)
    before = {name: value.clone() for name, value in adversary.state_dict().items()}  # its spectral norms move
    terms = [Pictures({"pixel": 1.0, "chroma": 0.0}), Consistency(weight=1.0, begin=0.5, seed=0), adversary]
    check_terms(student, terms, Batch(inputs=inputs, targets=1 - inputs))
    assert all(torch.equal(value, before[name]) for name, value in adversary.state_dict().items())


def test_a_student_that_begins_as_its_teacher_passes() -> None:
    """At first its loss is 0 and has no gradient; moved a little it has."""
    student, batch = pictures_net(6, 0), Source().one()
    targets = look_at(student, batch).output.detach()
    same = Batch(inputs=batch.inputs, targets=targets, about=batch.about)
    check_terms(student, [Kd(temperature=4.0, share=1.0)], same)


def test_layers_that_begin_at_0_pass() -> None:
    student = pictures_net(6, 0)
    nn.init.zeros_(student.head.weight)  # type: ignore[union-attr]
    check_terms(student, [Kd(temperature=4.0, share=0.9)], Source().one())
    assert not student.head.weight.any()  # type: ignore[union-attr,operator]


CASES: dict[str, tuple[Callable[[], Term], str]] = {
    "weight": (lambda: Made(lambda look: look.output.square().mean(), weight=0.0), "made has weight 0: it teaches"),
    "nan": (lambda: Made(lambda look: look.output.mean() * float("nan")), "made is nan on the first batch: look for"),
    "zero": (lambda: Made(lambda look: look.output.sum() * 0), "made is always 0: there is nothing to learn by it"),
    "clamped": (lambda: Made(lambda look: (look.output - 1e6).relu().sum()), "made is always 0"),
    "detached": (
        lambda: Made(lambda look: look.inner["block"].detach().square().mean(), "block"),
        "made carries no grad",
    ),
    "constant": (
        lambda: Made(lambda look: look.targets.square().mean()),
        "made carries no gradient: it hangs on nothing",
    ),
    "flat": (
        lambda: Made(lambda look: look.output.sign().mean() + look.output.sum() * 0),
        "made carries no gradient to",
    ),
    "nothing": (lambda: Pictures({"pixel": 0.0}), "Pictures gives no part of the loss: give it a weight"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_teaches_nothing_is_refused(name: str) -> None:
    make_term, message = CASES[name]
    student = pictures_net(6, 0)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    with pytest.raises(UserError, match=f"^train.losses: {message}") as refused:
        check_terms(student, [Labels(1.0), make_term()], Source().one())
    assert "\n" not in str(refused.value)
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())


def test_a_loss_that_moves_only_its_adapter_is_refused() -> None:
    student = pictures_net(6, 0)
    student.stem.requires_grad_(False)
    student.block.requires_grad_(False)
    with pytest.raises(UserError, match="fitnets block carries no gradient to the student: it moves no weight of it"):
        check_terms(student, [Labels(1.0), features(student, "fitnets")], Source().one())


class Branched(nn.Module):
    """`aside` is computed and thrown away; `idle` is not even that."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.aside, self.idle = pictures_net(6, 0), nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.aside(x)
        said: torch.Tensor = self.inside(x)
        return said


def test_a_module_that_is_not_on_the_way_to_the_output_is_refused() -> None:
    student = Branched()
    term = features(student, "fitnets", path="aside")
    with pytest.raises(UserError, match="fitnets aside moves only weights that the student's output does not hang on"):
        check_terms(student, [Labels(1.0), term], Source().one())
    check_terms(student, [Labels(1.0), features(student, "fitnets", path="inside.block")], Source().one())
    with pytest.raises(UserError, match="module 'idle' of the student is not run when it answers"):
        check_terms(student, [Made(lambda look: look.inner["idle"].mean(), "idle")], Source().one())


def test_attention_of_one_place_and_labels_of_none_are_refused() -> None:
    batch = Source().one()
    student = pictures_net(6, 0)
    link = Link(loss="attention", student="pool", teacher="pool", weight=1.0)
    term = FeatureDistillation([link], module_features(pictures_net(12, 1), ["pool"]), student, batch.inputs)
    with pytest.raises(UserError, match="attention pool is always 0"):
        check_terms(student, [term], batch)
    unlabelled = Batch(inputs=batch.inputs, targets=batch.targets, about={"labels": torch.full((6,), -1)})
    with pytest.raises(UserError, match="kd hard is always 0.*no labels"):
        check_terms(student, [Kd(temperature=4.0, share=0.9)], unlabelled)


def test_a_teacher_of_nan_is_refused() -> None:
    batch = Source().one()
    broken = Batch(inputs=batch.inputs, targets=torch.full((6, CLASSES), float("nan")), about=batch.about)
    with pytest.raises(UserError, match="kd soft is nan on the first batch"):
        check_terms(pictures_net(6, 0), [Kd(temperature=4.0, share=0.9)], broken)
