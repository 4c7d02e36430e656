"""The kinds of evidence there are, one for each kind of answer a student gives, and the rules each is judged by."""

from collections.abc import Mapping
from typing import Any

from models.errors import UserError
from tasks.classification.evidence import LabelEvidence
from tasks.classification.rules import LABEL_RULES
from tasks.evidence import Evidence
from tasks.file_evidence import FileEvidence
from tasks.measure import Measure
from tasks.rules import RULES

TABLES: dict[type[FileEvidence], dict[str, Measure]] = {Evidence: RULES, LabelEvidence: LABEL_RULES}
# By name, of every kind; where two kinds share a name, the unit is one too.
EVERY_RULE: Mapping[str, Measure] = {name: measure for table in TABLES.values() for name, measure in table.items()}


def read_evidence(value: Mapping[str, Any]) -> FileEvidence:
    """The evidence a JSON object stands for; what names no kind is older than the others, and of pictures."""
    kinds = {kind.kind: kind for kind in TABLES}
    name = value.get("kind", Evidence.kind)
    if name not in kinds:
        raise UserError(f"evidence of the kind {name!r} does not fit this version: run dvc repro evaluate")
    return kinds[name].from_json(dict(value))
