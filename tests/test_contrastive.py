"""CRD: golden loss, bank and negatives; what the teacher side is taken from; killed and gone on with the same bits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toy_classifiers import EXAMPLES, Source, assert_same, look_at, pictures_net, train

from models.contrastive import Contrastive
from models.errors import UserError
from models.features import module_features
from models.label_losses import Labels

SETTINGS = {"weight": 0.8, "dimensions": 8, "negatives": 5, "temperature": 0.07, "momentum": 0.5, "seed": 3}


def make(source: Source, **change: object) -> Contrastive:
    torch.manual_seed(1)
    settings = SETTINGS | {"labels": source.labels, "teacher": None} | change
    return Contrastive("flat", student_width=6, teacher_width=12, **settings)  # type: ignore[arg-type]


def unit(one: np.ndarray) -> np.ndarray:
    return one / np.linalg.norm(one)


def plain(term: Contrastive, ours: np.ndarray, theirs: np.ndarray, compared: np.ndarray, z: list[float]) -> float:
    """Equation 18 by loops, for unit vectors; `z` are the normalisers, of the student's scores and the teacher's."""
    examples = len(term.bank_student)
    noise = (compared.shape[1] - 1) / examples
    sides = ((ours, term.bank_teacher, z[0]), (theirs, term.bank_student, z[1]))
    whole = 0.0
    for mine, bank, normaliser in sides:
        for vector, rows in zip(mine, compared, strict=True):
            for place, row in enumerate(rows):
                score = np.exp(vector @ bank[row].double().numpy() / term.temperature) / normaliser
                told = score / (score + noise)
                whole -= np.log(told if place == 0 else 1 - told)
    return whole / len(ours)


def test_golden() -> None:
    """The first step, whose normalisers are its own, and a later one, of the bank it left."""
    source, student = Source(), pictures_net(6, 0)
    term = make(source)
    for step in (0, 4):  # the very same examples, other negatives
        batch = source.one(step)
        banks = [term.bank_student.clone(), term.bank_teacher.clone()]
        look = look_at(student, batch, "flat", step=step)
        part = term(look)["crd flat"]
        rows = batch.about["rows"]
        compared = torch.cat([rows[:, None], term.drawn(rows, step)], dim=1).numpy()
        features = (look.inner["flat"], batch.about["pooled"])
        embedded = [
            np.array([unit(row) for row in head(one).detach().double().numpy()])
            for head, one in zip(term.heads, features, strict=True)
        ]
        if step == 0:
            z = []
            for mine, bank in zip(embedded, reversed(banks), strict=True):
                scores = [
                    np.exp(v @ bank[row].double().numpy() / 0.07)
                    for v, r in zip(mine, compared, strict=True)
                    for row in r
                ]
                z.append(EXAMPLES * float(np.mean(scores)))
        assert part.weight == 0.8
        assert part.value.item() == pytest.approx(plain(term, *embedded, compared, z), rel=1e-4)
        assert torch.equal(term.bank_student, banks[0])  # moved only once the student is
        assert list(term.learn(look, 1.0)) == []
        assert term.normalisers.tolist() == pytest.approx(z, rel=1e-4)
        for before, bank, mine in zip(banks, (term.bank_student, term.bank_teacher), embedded, strict=True):
            for row, vector in zip(rows.tolist(), mine, strict=True):
                moved = unit(0.5 * before[row].double().numpy() + 0.5 * vector)
                np.testing.assert_allclose(bank[row].numpy(), moved, atol=1e-5)
            left = [row for row in range(EXAMPLES) if row not in rows]
            assert torch.equal(bank[left], before[left])


def test_negatives_are_of_other_classes_evenly_and_by_seed_and_step() -> None:
    source = Source()
    labels = source.labels.clone()
    labels[[2, 7]] = -1
    term = make(source, labels=labels, negatives=4000)
    rows = torch.arange(12)
    drawn = term.drawn(rows, 5)
    assert torch.equal(drawn, term.drawn(rows, 5)) and not torch.equal(drawn, term.drawn(rows, 6))
    for row, others in zip(rows, drawn, strict=True):
        found, counts = others.unique(return_counts=True)
        unlabelled = labels[row] == -1
        expected = [one for one in range(EXAMPLES) if (one != row if unlabelled else labels[one] != labels[row])]
        assert found.tolist() == expected
        even = 4000 / len(expected)
        assert bool(((counts - even).abs() < 6 * even**0.5).all())


def test_examples_that_are_never_shown_are_never_drawn() -> None:
    source = Source()
    labels = source.labels.clone()
    labels[[0, 2]] = -1
    taught = torch.arange(0, EXAMPLES, 2)  # of the classes 0 and 2, and two without a label
    term = make(source, labels=labels, negatives=4000, taught=taught)
    for row, others in zip(taught, term.drawn(taught, 5), strict=True):
        unlabelled = labels[row] == -1
        expected = [one for one in taught.tolist() if (one != row if unlabelled else labels[one] != labels[row])]
        assert others.unique().tolist() == expected
    with pytest.raises(UserError, match="all of these are of one"):
        make(source, taught=torch.tensor([1, 5, 9]))


def test_the_teacher_in_the_loop_says_what_was_kept_of_it() -> None:
    source, student = Source(), pictures_net(6, 0)
    look = look_at(student, source.one(), "flat")
    values = [
        make(source, teacher=teacher)(look)["crd flat"].value
        for teacher in (
            None,
            module_features(pictures_net(12, 90), ["flat"]),
            module_features(pictures_net(12, 90), ["block"]),
        )
    ]
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(values[0], values[2])  # a convolution's means over places


@pytest.mark.parametrize("size", [1, 6])
def test_gradients_are_finite_under_autocast_and_reach_student_and_heads(size: int) -> None:
    source = Source(size)
    student = pictures_net(6, 0).train(size > 1)
    term = make(source)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        look = look_at(student, source.one(), "flat")
    weights = [*student.stem.parameters(), *term.beside()]  # type: ignore[union-attr]
    found = torch.autograd.grad(term(look)["crd flat"].value, weights)
    assert len(term.beside()) == 4
    assert all(bool(one.isfinite().all()) for one in found)
    assert all(bool(one.any()) for one in found[-4:]) and bool(found[0].any())


def test_killed_and_gone_on_the_bank_is_the_same(tmp_path: Path) -> None:
    def terms() -> list[Labels | Contrastive]:
        return [Labels(1.0), make(Source())]

    whole = train(tmp_path / "whole", pictures_net(6, 0), terms(), steps=11)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", pictures_net(6, 0), terms(), steps=11, stop_after=5)
    assert load_file(tmp_path / "parts" / "checkpoint.safetensors")["term1/bank_student"].shape == (EXAMPLES, 8)
    parts = train(tmp_path / "parts", pictures_net(6, 0), terms(), steps=11)
    assert_same(whole, parts)
    assert not torch.equal(parts.terms[1].bank_student, make(Source()).bank_student)


def test_the_student_learns_to_say_the_same(tmp_path: Path) -> None:
    """Over epochs, as the heads begin anywhere."""
    training = train(tmp_path, pictures_net(6, 0), [make(Source(), weight=1.0)], steps=60)
    values = [line["losses"]["crd flat"] for line in training.curve if "losses" in line]
    assert np.mean(values[-3:]) < 0.8 * values[0]


def test_what_it_cannot_do_is_refused() -> None:
    source = Source()
    with pytest.raises(UserError, match="crd needs examples of two classes, and all of these are of one"):
        make(source, labels=torch.zeros(EXAMPLES, dtype=torch.int64))
    term, batch = make(source), source.one()
    with pytest.raises(UserError, match="crd with teacher: pooled needs the features kept with the pairs"):
        term(look_at(pictures_net(6, 0), batch, "flat", about={"rows": batch.about["rows"]}))
    with pytest.raises(UserError, match="crd needs to know which examples a batch holds"):
        term(look_at(pictures_net(6, 0), batch, "flat", about={}))
