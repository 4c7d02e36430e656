"""Params to terms: `losses` are read strictly, each makes its term, a whole training learns from all of them."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import TypeAdapter, ValidationError
from torch import nn
from toy_classifiers import EXAMPLES, Source, TextsNet, assert_same, look_at, pictures_net, recipe, tokens, train

from models.batches import Batch
from models.contrastive import Contrastive
from models.errors import UserError
from models.features import module_features
from models.term_check import check_terms
from models.terms import Term
from models.training import make_optimizer
from tasks.label_losses_params import Losses, inside_paths, peers, wants_pooled
from tasks.label_terms import make_label_terms

READ: TypeAdapter[Any] = TypeAdapter(Losses)
CRD = (
    "{kind: crd, student: flat, teacher: TEACHER, weight: 0.8, dimensions: 8, negatives: 5, temperature: 0.07, "
    "momentum: 0.5}"
)
EVERY = f"""
- {{kind: labels, weight: 1.0}}
- {{kind: kd, temperature: 4.0, soft: 0.9}}
- {{kind: dkd, alpha: 1.0, beta: 8.0, temperature: 4.0, warmup: 0.1}}
- {{kind: dist, beta: 2.0, gamma: 2.0, temperature: 4.0}}
- {{kind: fitnets, student: block, teacher: block, weight: 1.0}}
- {{kind: attention, student: block, teacher: stem, weight: 1.0}}
- {{kind: relations, student: flat, teacher: flat, weight: 1.0}}
- {{kind: sp, student: block, teacher: block, weight: 1.0}}
- {{kind: vid, student: block, teacher: block, weight: 0.1}}
- {{kind: hidden-cosine, student: flat, teacher: flat, weight: 1.0}}
- {CRD.replace("TEACHER", "pooled")}
- {{kind: mutual, weight: 1.0, temperature: 1.0}}
"""


def read(text: str) -> Any:
    return READ.validate_python(yaml.safe_load(text))


def make(text: str, student: nn.Module, **change: Any) -> list[Term]:
    source = Source()
    torch.manual_seed(2)
    settings: dict[str, Any] = {
        "example": source.one(),
        "labels": source.labels,
        "seed": 3,
        "teacher": lambda paths: module_features(pictures_net(12, 90), paths),
        "peer": pictures_net(6, 5),
        "optimizer": lambda weights: make_optimizer(weights, recipe()),
    }
    return make_label_terms(read(text), student, **settings | change)


def test_every_loss_makes_its_part_and_a_killed_training_goes_on(tmp_path: Path) -> None:
    whole_student, student, again = (pictures_net(6, 0) for _ in range(3))
    terms = make(EVERY, whole_student)
    check_terms(whole_student, terms, Source().one())
    whole = train(tmp_path / "whole", whole_student, terms, rate=0.002)
    assert list(whole.curve[0]["losses"]) == [
        *("labels", "kd soft", "kd hard", "dkd", "dist", "crd flat", "mutual"),
        *("fitnets block", "attention block", "relations flat", "sp block", "vid block", "hidden-cosine flat"),
    ]
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", student, make(EVERY, student), stop_after=4, rate=0.002)
    assert_same(whole, train(tmp_path / "parts", again, make(EVERY, again), rate=0.002))


def test_what_is_wanted_of_the_teacher_is_known_before() -> None:
    losses = read(EVERY)
    assert inside_paths(losses) == ["block", "stem", "flat", "block", "block", "flat"] and peers(losses)
    assert inside_paths(read("[" + CRD.replace("TEACHER", "layer3") + "]")) == ["layer3"]
    assert inside_paths(read("[{kind: kd, temperature: 4.0, soft: 0.9}]")) == []


def test_the_teacher_is_run_once_a_batch_for_all_of_them() -> None:
    asked = []

    def teacher(paths: Any) -> Any:
        network = pictures_net(12, 90)
        network.register_forward_hook(lambda *_: asked.append(1))
        return module_features(network, paths)

    student, batch = pictures_net(6, 0), Source().one()
    text = f"[{{kind: sp, student: block, teacher: block, weight: 1.0}}, {CRD.replace('TEACHER', 'block')}]"
    terms = make(text, student, teacher=teacher, example=batch)
    assert isinstance(terms[0], Contrastive)
    check_terms(student, terms, batch)
    assert len(asked) == 1  # the example is the batch here


@pytest.mark.parametrize("kind", ["fitnets", "relations", "sp", "vid", "hidden-cosine"])
def test_features_kept_with_the_pairs_teach_as_the_teacher_in_the_loop_does(kind: str) -> None:
    found = []
    for where in ("flat", "pooled"):
        student, teacher, batch = pictures_net(6, 0), pictures_net(12, 90), Source().one()
        text = f"[{{kind: {kind}, student: flat, teacher: {where}, weight: 2.0}}]"
        [term] = make(text, student, teacher=partial(module_features, teacher))
        check_terms(student, [term], batch)
        [part] = term(look_at(student, batch, "flat")).values()
        found.append(part.value.item())
    assert found[1] == pytest.approx(found[0], rel=1e-5) and found[0] != 0


def test_kept_features_want_no_teacher_and_go_with_those_that_do() -> None:
    text = "[{kind: sp, student: flat, teacher: pooled, weight: 1.0}]"
    assert inside_paths(read(text)) == [] and wants_pooled(read(text)) == "sp"
    student = pictures_net(6, 0)
    terms = make(text, student, teacher=None)
    assert [name for term in terms for name in term(look_at(student, Source().one(), "flat"))] == ["sp flat"]
    vid = "{kind: vid, student: flat, teacher: pooled, weight: 1.0}"
    both = f"[{{kind: sp, student: block, teacher: block, weight: 1.0}}, {vid}]"
    terms = make(both, student)
    batch = Source().one()
    names = [name for term in terms for name in term(look_at(student, batch, "flat", "block"))]
    assert names == ["sp block", "vid flat"]
    bare = Batch(inputs=batch.inputs, targets=batch.targets)
    with pytest.raises(UserError, match="sp takes the teacher's pooled features: keep them"):
        make(text, student, example=bare)


def test_texts_learn_from_hidden_states() -> None:
    ids, mask = tokens(6)
    about = {"labels": torch.arange(6) % 4, "rows": torch.arange(6)}
    batch = Batch(inputs=ids, targets=torch.randn(6, 4), controls=(mask,), about=about)
    text = f"[{{kind: hidden-cosine, student: layer, teacher: layer, weight: 1.0}}, {CRD.replace('TEACHER', 'layer')}]"
    student = TextsNet(6, 0)
    terms = make(
        text.replace("flat", "layer"),
        student,
        example=batch,
        labels=torch.arange(EXAMPLES) % 4,
        teacher=lambda paths: module_features(TextsNet(8, 1), paths),
    )
    check_terms(student, terms, batch)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "at least 1 item"),
        ("[{kind: kd, temperature: 4.0}]", "soft"),
        ("[{kind: kd, temperature: 0.0, soft: 0.9}]", "greater than 0"),
        ("[{kind: kd, temperature: 4.0, soft: 1.5}]", "less than or equal to 1"),
        ("[{kind: kd, temperature: 4.0, soft: 0.9, weight: 1.0}]", "Extra inputs"),
        ("[{kind: hinton, temperature: 4.0}]", "does not match any of the expected tags"),
        ("[{kind: sp, student: a, teacher: b, weight: 0.0}]", "greater than 0"),
        ("[{kind: attention, student: a, teacher: pooled, weight: 1.0}]", "pooled features have none"),
        ("[{kind: sp, student: '', teacher: b, weight: 1.0}]", "at least 1 character"),
        ("[{kind: labels, weight: 1.0}, {kind: labels, weight: 2.0}]", "labels is there twice"),
        ("[{kind: sp, student: a, teacher: b, weight: 1.0}, {kind: sp, student: a, teacher: c, weight: 1.0}]", "twice"),
    ],
)
def test_what_is_no_loss_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        read(text)


def test_what_is_missing_is_named() -> None:
    student = pictures_net(6, 0)
    with pytest.raises(UserError, match="'block' is a module of the teacher, and this one shows none of its inside"):
        make("[{kind: sp, student: block, teacher: block, weight: 1.0}]", student, teacher=None)
    with pytest.raises(UserError, match="no module 'blok' in the network; near: block"):
        make("[{kind: sp, student: block, teacher: blok, weight: 1.0}]", student)
    with pytest.raises(UserError, match="no module 'blok' in the network; near: block"):
        make("[{kind: sp, student: blok, teacher: block, weight: 1.0}]", student)
    with pytest.raises(UserError, match="mutual needs a peer"):
        make("[{kind: mutual, weight: 1.0, temperature: 1.0}]", student, peer=None)
    batch = Source().one()
    bare = Batch(inputs=batch.inputs, targets=batch.targets)
    with pytest.raises(UserError, match="needs the features kept with the pairs"):
        make("[" + CRD.replace("TEACHER", "pooled") + "]", student, example=bare)
