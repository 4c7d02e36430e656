"""Losses of logits against plain re-computations; labels of -1; one sample; mutual learning, stopped and gone on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from toy_classifiers import Source, assert_same, look_at, pictures_net, recipe, train

from models.errors import UserError
from models.label_losses import Dist, Dkd, Kd, Labels, correlated, decoupled, hard, soft
from models.mutual import Mutual
from models.terms import Term, total
from models.training import make_optimizer

LABELS = [1, 0, 4, 2, 2]


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    ours, theirs = (3 * torch.randn(5, 5, generator=random) for _ in range(2))
    return ours.requires_grad_(), theirs


# Golden: plain re-computations of the papers' formulas.


def softmax(one: np.ndarray, temperature: float) -> np.ndarray:
    raised = np.exp(one / temperature)
    return raised / raised.sum(axis=1, keepdims=True)


def kl(theirs: np.ndarray, ours: np.ndarray) -> float:
    return float(np.sum(theirs * np.log(theirs / ours)))


def plain_kd(ours: np.ndarray, theirs: np.ndarray, temperature: float) -> float:
    pairs = zip(softmax(theirs, temperature), softmax(ours, temperature), strict=True)
    return temperature**2 * float(np.mean([kl(*pair) for pair in pairs]))


def plain_dkd(ours: np.ndarray, theirs: np.ndarray, labels: list[int], settings: dict[str, float]) -> float:
    found = []
    for label, p, q in zip(labels, softmax(ours, settings["temperature"]), softmax(theirs, settings["temperature"])):  # noqa: B905
        binary = [np.array([one[label], 1 - one[label]]) for one in (q, p)]
        among = [np.delete(one, label) / (1 - one[label]) for one in (q, p)]
        found.append(settings["alpha"] * kl(*binary) + settings["beta"] * kl(*among))
    return settings["temperature"] ** 2 * float(np.mean(found))


def plain_dist(ours: np.ndarray, theirs: np.ndarray, settings: dict[str, float]) -> float:
    p, q = (softmax(one, settings["temperature"]) for one in (ours, theirs))
    inter = np.mean([1 - np.corrcoef(p[i], q[i])[0, 1] for i in range(len(p))])
    intra = np.mean([1 - np.corrcoef(p[:, j], q[:, j])[0, 1] for j in range(p.shape[1])])
    return settings["temperature"] ** 2 * float(settings["beta"] * inter + settings["gamma"] * intra)


def as_numpy(*tensors: torch.Tensor) -> list[np.ndarray]:
    return [one.detach().double().numpy() for one in tensors]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_golden_kd(logits: tuple[torch.Tensor, torch.Tensor], temperature: float) -> None:
    assert soft(*logits, temperature).item() == pytest.approx(plain_kd(*as_numpy(*logits), temperature), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_golden_dkd(logits: tuple[torch.Tensor, torch.Tensor], temperature: float) -> None:
    settings = {"alpha": 1.0, "beta": 8.0, "temperature": temperature}
    found = decoupled(*logits, torch.tensor(LABELS), **settings)
    assert found.item() == pytest.approx(plain_dkd(*as_numpy(*logits), LABELS, settings), rel=1e-4)


def test_dkd_and_kd_are_one_where_the_others_weigh_what_the_teacher_leaves_them() -> None:
    """Equation 7 of the paper: KD is TCKD + (1 - p of the target) NCKD."""
    random = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(1, 6, generator=random) for _ in range(2))
    left = 1 - theirs.softmax(dim=1)[0, 2].item()
    found = decoupled(ours, theirs, torch.tensor([2]), alpha=1.0, beta=left, temperature=1.0)
    torch.testing.assert_close(found, soft(ours, theirs, 1.0))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_golden_dist(logits: tuple[torch.Tensor, torch.Tensor], temperature: float) -> None:
    settings = {"beta": 2.0, "gamma": 3.0, "temperature": temperature}
    found = correlated(*logits, **settings)
    assert found.item() == pytest.approx(plain_dist(*as_numpy(*logits), settings), rel=1e-4)


def test_golden_cross_entropy_without_those_that_have_no_label(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    [ours] = as_numpy(logits[0])
    labels = [1, -1, 4, -1, 2]
    expected = np.mean([-np.log(softmax(ours, 1.0)[row, label]) for row, label in enumerate(labels) if label >= 0])
    assert hard(logits[0], torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-5)
    none = hard(logits[0], torch.full((5,), -1))
    none.backward()  # type: ignore[no-untyped-call]
    assert none.item() == 0 and logits[0].grad is not None and not logits[0].grad.any()


def test_what_the_teacher_says_itself_costs_nothing(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    _, theirs = logits
    labels = torch.tensor(LABELS)
    for found in (
        soft(theirs, theirs, 4.0),
        decoupled(theirs, theirs, labels, alpha=1.0, beta=8.0, temperature=4.0),
        correlated(theirs, theirs, beta=1.0, gamma=1.0, temperature=1.0),
    ):
        assert found.item() == pytest.approx(0, abs=1e-5)


def test_without_a_label_the_target_is_the_teacher_s_likeliest_class(
    logits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    settings = {"alpha": 1.0, "beta": 8.0, "temperature": 4.0}
    without = decoupled(*logits, torch.full((5,), -1), **settings)
    torch.testing.assert_close(without, decoupled(*logits, logits[1].argmax(dim=1), **settings))


TERMS = {
    "labels": lambda: Labels(1.0),
    "kd": lambda: Kd(temperature=4.0, share=0.9),
    "dkd": lambda: Dkd(alpha=1.0, beta=8.0, temperature=4.0, warmup=0.0),
    "dist": lambda: Dist(beta=2.0, gamma=2.0, temperature=4.0),
}


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("size", [1, 6])
def test_terms_have_finite_gradients_under_autocast_and_for_extreme_logits(name: str, size: int) -> None:
    student, batch = pictures_net(6, 0), Source(size).one()
    if size == 1:
        student.eval()  # BatchNorm wants more
    for scale in (1.0, 1e4):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            look = look_at(student, batch)
        look.targets = scale * look.targets
        look.output = scale * look.output
        found = torch.autograd.grad(total(TERMS[name]()(look)), list(student.parameters()), allow_unused=True)
        assert all(one is None or bool(one.isfinite().all()) for one in found)
        assert any(one is not None and bool(one.any()) for one in found) or scale > 1


def test_kd_balances_teacher_and_labels() -> None:
    look = look_at(pictures_net(6, 0), Source().one())
    parts = Kd(temperature=4.0, share=0.9)(look)
    assert {name: part.weight for name, part in parts.items()} == pytest.approx({"kd soft": 0.9, "kd hard": 0.1})
    assert set(Kd(temperature=4.0, share=0.0)(look)) == {"kd hard"}
    look.about = {}
    assert set(Kd(temperature=4.0, share=1.0)(look)) == {"kd soft"}
    with pytest.raises(UserError, match="kd with soft below 1 needs labels, and these pairs carry none"):
        Kd(temperature=4.0, share=0.9)(look)


def test_dkd_warms_up() -> None:
    batch = Source().one()
    term = Dkd(alpha=1.0, beta=8.0, temperature=4.0, warmup=0.2)
    shares = (0.0, 0.1, 0.2, 0.9)
    weights = [term(look_at(pictures_net(6, 0), batch, share=share))["dkd"].weight for share in shares]
    assert weights == pytest.approx([0, 0.5, 1, 1])


def make_mutual() -> list[Term]:
    peer = pictures_net(6, 5)
    return [
        Labels(1.0),
        Mutual(peer, make_optimizer(list(peer.parameters()), recipe()), weight=1.0, temperature=1.0),
    ]


def test_a_peer_learns_from_labels_and_the_student(tmp_path: Path) -> None:
    """Its first step is that of the formula; after some both know the labels better."""
    student, batch = pictures_net(6, 0), Source().one()
    _, mutual = make_mutual()
    assert isinstance(mutual, Mutual)
    before = [weight.detach().clone() for weight in mutual.peer.parameters()]
    said = mutual.peer(batch.inputs)
    look = look_at(student, batch)
    part = mutual(look)["mutual"]
    assert part.value.item() == pytest.approx(plain_kd(*as_numpy(look.output, said), 1.0), rel=1e-4)
    theirs = torch.autograd.grad(
        hard(said, batch.about["labels"]) + soft(said, look.output.detach(), 1.0), list(mutual.peer.parameters())
    )
    assert torch.autograd.grad(part.value, list(student.parameters()), retain_graph=True)
    for _ in mutual.learn(look, 0.5):
        pass
    for one, old, gradient in zip(mutual.peer.parameters(), before, theirs, strict=True):
        torch.testing.assert_close(one, old - 0.025 * (gradient + 5e-4 * old))
    training = train(tmp_path, student, make_mutual(), steps=30)
    assert training.curve[-2]["losses"]["labels"] < 0.8 * training.curve[0]["losses"]["labels"]


def test_a_peer_s_state_is_kept(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", pictures_net(6, 0), make_mutual())
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", pictures_net(6, 0), make_mutual(), stop_after=4)
    parts = train(tmp_path / "parts", pictures_net(6, 0), make_mutual())
    assert_same(whole, parts)
