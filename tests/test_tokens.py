"""Tokenisers: learnt the same twice, one file, and rows that say when a text is too long."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.classification.tokens import FILE, check_same, load_tokens, open_tokens, student_tokens, train_tokens
from models.errors import UserError

TEXTS = [
    "a gripping film , beautifully shot",
    "the plot is thin and the jokes are thinner",
    "beautifully acted , and never dull",
    "dull , thin , and never funny",
    "Ünlüler café naïve résumé",
] * 3
LEARNT = {"vocabulary": 300, "lowercase": True}
SHAPE: dict[str, Any] = {"max_tokens": 24, "truncate": False}


def learnt(by: str, **changed: Any) -> Any:
    return train_tokens(TEXTS, by=by, **(LEARNT | SHAPE | changed))


@pytest.mark.parametrize("by", ["wordpiece", "bpe"])
def test_texts_come_back_from_their_ids(by: str) -> None:
    tokens = learnt(by, max_tokens=64)
    ids, mask = tokens(TEXTS[:4])
    assert ids.shape == mask.shape == (4, 64) and ids.dtype == mask.dtype == np.int64
    assert ids.max() < tokens.vocabulary <= 300
    assert (ids[mask == 0] == tokens.pad).all() and tokens.pad == tokens.tokenizer.token_to_id("[PAD]")
    begin, end = (tokens.tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    assert (ids[:, 0] == begin).all()
    assert [ids[row, mask[row].sum() - 1] for row in range(4)] == [end] * 4
    told = [" ".join(text.replace(",", " ,").split()) for text in tokens.texts(ids)]
    assert told == [" ".join(text.split()) for text in TEXTS[:4]]


@pytest.mark.parametrize("by", ["wordpiece", "bpe"])
def test_equal_texts_learn_equal_bytes_in_any_process(by: str, repository: Path) -> None:
    code = (
        "import hashlib, sys; sys.path.insert(0, 'tests'); import test_tokens as t; "
        f"print(hashlib.sha256(t.learnt({by!r}).data).hexdigest())"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True
        ).stdout.strip()
        for _ in range(2)
    }
    assert told == {hashlib.sha256(learnt(by).data).hexdigest()}


def test_saved_it_is_read_again(tmp_path: Path) -> None:
    tokens = learnt("wordpiece")
    assert tokens.save(tmp_path) == hashlib.sha256((tmp_path / FILE).read_bytes()).hexdigest()
    again = load_tokens(tmp_path, **SHAPE)
    assert again.digest == tokens.digest and again.pad == tokens.pad
    for one, other in zip(again(TEXTS), tokens(TEXTS), strict=True):
        assert np.array_equal(one, other)


def test_the_digest_is_of_what_decides_ids() -> None:
    tokens = learnt("wordpiece")
    assert learnt("wordpiece", max_tokens=50, truncate=True).digest == tokens.digest
    assert learnt("wordpiece", lowercase=False).digest != tokens.digest
    assert learnt("bpe").digest != tokens.digest
    told = json.loads(tokens.data)
    told["truncation"] = {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    cut = open_tokens(json.dumps(told).encode(), "x", **SHAPE)
    assert cut.digest == tokens.digest
    assert np.array_equal(cut(TEXTS)[0], tokens(TEXTS)[0])  # what the file says of length is not followed


def test_longer_texts_are_refused_or_cut() -> None:
    tokens = learnt("wordpiece", max_tokens=10)
    rows = [len(row) for row in learnt("wordpiece", max_tokens=99).rows(TEXTS)]
    line = f"^{sum(count > 10 for count in rows)} of 15 texts have more than 10 tokens, the longest {max(rows)}: raise"
    with pytest.raises(UserError, match=line):
        tokens(TEXTS)
    ids, mask = learnt("wordpiece", max_tokens=10, truncate=True)(TEXTS)
    end = tokens.tokenizer.token_to_id("[SEP]")
    assert ids.shape == (15, 10) and mask.sum(axis=1).max() == 10
    assert all(ids[row, mask[row].sum() - 1] == end for row in range(15))  # its end stays
    with pytest.raises(UserError, match="max_tokens 2: .* adds 2 of its own"):
        learnt("wordpiece", max_tokens=2)


def test_files_that_are_none_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no tokenizer.json in "):
        load_tokens(tmp_path, **SHAPE)
    (tmp_path / FILE).write_text('{"model": 1}')
    with pytest.raises(UserError, match=r"tokenizer.json is no tokenizer.json of the library"):
        load_tokens(tmp_path, **SHAPE)


def test_a_student_takes_its_teachers_or_learns_its_own() -> None:
    teacher = learnt("wordpiece")
    own = {"by": "teacher", "truncate": True, "vocabulary": None, "lowercase": None}
    taken = student_tokens({"max_tokens": 8, "tokens": own}, teacher, TEXTS)
    check_same(teacher, taken)
    assert (taken.max_tokens, taken.truncate) == (8, True)
    new = student_tokens({"max_tokens": 24, "tokens": LEARNT | {"by": "bpe", "truncate": False}}, teacher, TEXTS)
    with pytest.raises(UserError, match=r"the teacher's tokeniser \(.{12}, \d+ tokens\) is not the student's \(.{12}"):
        check_same(teacher, new)
    with pytest.raises(UserError, match="this teacher has no tokeniser"):
        student_tokens({"max_tokens": 8, "tokens": own}, None, TEXTS)
