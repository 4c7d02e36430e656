"""Losses of features of convolutions, tokens and vectors: golden values, masks, adapters, a teacher as a module."""

import numpy as np
import pytest
import torch
from torch import nn
from toy_classifiers import CLASSES, Source, TextsNet, look_at, pictures_net, tokens

from models.batches import Batch
from models.errors import UserError
from models.feature_distillation import FEATURE_LOSSES, FeatureDistillation, Link, Variational
from models.features import module_features, probe

LOSSES = [*FEATURE_LOSSES, "vid"]


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Golden: plain re-computations of the papers' formulas.


def plain_similarities(ours: np.ndarray, theirs: np.ndarray) -> float:
    found = []
    for one in (ours, theirs):
        flat = one.reshape(len(one), -1)
        products = np.array([[a @ b for b in flat] for a in flat])
        found.append(np.array([row / np.linalg.norm(row) for row in products]))
    return float(np.sum((found[0] - found[1]) ** 2) / len(ours) ** 2)


def plain_cosine(ours: np.ndarray, theirs: np.ndarray, mask: np.ndarray) -> float:
    pairs = [
        (a, b)
        for i, row in enumerate(mask)
        for j, kept in enumerate(row)
        if kept
        for a, b in [(ours[i, j], theirs[i, j])]
    ]
    return float(np.mean([1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]))


def test_golden_similarities_whatever_the_sizes() -> None:
    ours, theirs = some(4, 5, 6, 6), some(4, 9, 3, 3, seed=1)
    expected = plain_similarities(ours.double().numpy(), theirs.double().numpy())
    assert FEATURE_LOSSES["sp"](ours, theirs).item() == pytest.approx(expected, rel=1e-4)


def test_golden_hidden_cosine_over_tokens_that_count() -> None:
    ours, theirs, (_, mask) = some(5, 6, 8), some(5, 6, 8, seed=1), tokens()
    expected = plain_cosine(ours.double().numpy(), theirs.double().numpy(), mask.numpy())
    assert FEATURE_LOSSES["hidden-cosine"](ours, theirs, mask).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shapes", [((3, 4, 2, 2), (3, 5, 2, 2)), ((3, 6, 4), (3, 6, 5)), ((3, 4), (3, 5))])
def test_golden_variational(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    """Equation 5 of the paper for a Gaussian, by loops over channels; the variance begins at 5."""
    ours, theirs = some(*shapes[0]), some(*shapes[1], seed=1)
    term = Variational(ours, theirs)
    torch.testing.assert_close(term.variance(), torch.full((5,), 5.0))
    with torch.no_grad():
        term.scale += some(5, seed=2)
    mean = term.adapter(ours).detach()
    axis = -1 if ours.ndim == 3 else 1
    columns = [one.movedim(axis, 0).double().numpy() for one in (mean, theirs)]
    variance = np.log1p(np.exp(term.scale.detach().double().numpy())) + 1e-5
    found = [((m - t) ** 2 / (2 * v) + np.log(v) / 2).mean() for m, t, v in zip(*columns, variance, strict=True)]
    value = term(ours, theirs, None)
    assert value.item() == pytest.approx(np.mean(found), rel=1e-4)
    gradients = torch.autograd.grad(value, list(term.parameters()))
    assert len(gradients) == 4 and all(bool(one.any()) for one in gradients)


@pytest.mark.parametrize("loss", LOSSES)
def test_tokens_that_do_not_count_do_not_matter(loss: str) -> None:
    ours, theirs, (_, mask) = some(5, 6, 8), some(5, 6, 8, seed=1), tokens()
    torch.manual_seed(0)
    compare = Variational(ours, theirs) if loss == "vid" else FEATURE_LOSSES[loss]
    value = compare(ours, theirs, mask)
    others = [one + 9 * (mask == 0)[..., None] for one in (ours, theirs)]
    torch.testing.assert_close(compare(*others, mask), value)
    assert not torch.allclose(compare(*others, torch.ones_like(mask)), value)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("paths", [("block", "stem"), ("flat", "flat"), ("flat", "block"), ("head", "head")])
def test_pictures_at_every_form_under_autocast_and_for_one_sample(loss: str, paths: tuple[str, str]) -> None:
    student, teacher, source = pictures_net(6, 0), pictures_net(12, 1), Source()
    link = Link(loss=loss, student=paths[0], teacher=paths[1], weight=2.0)
    example = source.one().inputs
    if loss == "attention" and {"flat", "head"} & set(paths):
        with pytest.raises(UserError, match="attention compares places"):
            FeatureDistillation([link], module_features(teacher, [paths[1]]), student, example)
        return
    term = FeatureDistillation([link], module_features(teacher, [paths[1]]), student, example)
    for batch in (source.one(), Source(1).one()):
        student.train(len(batch.inputs) > 1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            look = look_at(student, batch, paths[0])
        part = term(look)[f"{loss} {paths[0]}"]
        assert part.weight == 2.0 and bool(part.value.isfinite())
        found = torch.autograd.grad(part.value, list(student.parameters()), allow_unused=True)
        assert all(one is None or bool(one.isfinite().all()) for one in found)
        if len(batch.inputs) > 1:
            assert any(one is not None and bool(one.any()) for one in found)


@pytest.mark.parametrize("loss", LOSSES)
def test_texts_learn_from_a_wider_teacher(loss: str) -> None:
    student, teacher = TextsNet(6, 0), TextsNet(8, 1)
    ids, mask = tokens()
    link = Link(loss=loss, student="layer", teacher="layer", weight=1.0)
    term = FeatureDistillation([link], module_features(teacher, ["layer"]), student, ids, mask)
    batch = Batch(inputs=ids, targets=torch.zeros(5, CLASSES), controls=(mask,))
    learning = torch.optim.Adam([*student.parameters(), *term.beside()], lr=0.1)
    values = []
    for _ in range(25):
        value = term(look_at(student, batch, "layer"))[f"{loss} layer"].value
        learning.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        learning.step()
        values.append(value.item())
    assert values[-1] < values[0] - 0.2 * abs(values[0])
    assert all(weight.grad is None for weight in teacher.parameters())


def test_adapters_are_made_where_channels_must_be_alike() -> None:
    ids, mask = tokens()
    links = [
        Link(loss=loss, student="layer", teacher="layer", weight=1.0) for loss in ("fitnets", "sp", "hidden-cosine")
    ]
    kinds = {
        width: [
            type(one.adapter).__name__
            for one in FeatureDistillation(
                links, module_features(TextsNet(width, 1), ["layer"] * 3), TextsNet(6, 0), ids, mask
            ).comparisons
        ]
        for width in (6, 8)
    }
    assert kinds == {6: ["Linear", "Identity", "Identity"], 8: ["Linear", "Identity", "Linear"]}


def test_a_teacher_answers_once_a_batch_and_stays_as_it_is() -> None:
    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside, self.asked = pictures_net(6, 0), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.asked += 1
            return self.inside(x)  # type: ignore[no-any-return]

    teacher = Counted().train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    features = module_features(teacher, ["inside.block", "inside.flat"])
    x, again = some(3, 3, 8, 8), some(3, 3, 8, 8)
    block, flat = features(x)
    assert features(x)[0] is block and teacher.asked == 1
    torch.testing.assert_close(flat, block.mean(dim=(2, 3)))
    assert not block.requires_grad
    features(again)
    assert teacher.asked == 2
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_paths_that_lead_nowhere_are_refused() -> None:
    teacher, x = pictures_net(6, 0), some(2, 3, 8, 8)
    with pytest.raises(UserError, match="no module 'blok' in the network; near: block"):
        module_features(teacher, ["blok"])
    teacher.add_module("idle", nn.Identity())
    teacher.forward = lambda x: x.mean()  # type: ignore[method-assign]
    with pytest.raises(UserError, match="'idle' of the teacher is not run when it answers"):
        module_features(teacher, ["idle"])(x)
    network = nn.Sequential(nn.Flatten(0), nn.Linear(384, 2))
    with pytest.raises(UserError, match="'0' of the student gives no features"):
        probe(network, ["0"], x, who="student")


def test_probing_leaves_modes_as_they_are() -> None:
    network = pictures_net(6, 0).train()
    network.stem[1].eval()  # type: ignore[index]
    probe(network, ["block"], some(2, 3, 8, 8), who="student")
    assert network.training and not network.stem[1].training  # type: ignore[index]
