"""What each stage of a classifier left on disk, told as parameters, figures and digests: what lineage hands to MLflow.

As tasks/facts.py does it of students of pictures, by the same names where the same is meant (mlflow/metrics.yaml).
"""

from collections.abc import Callable, Mapping
from typing import Any

from models.teachers.pinned import without_places
from tasks.classification.evidence import LabelEvidence
from tasks.classification.params import Classifier
from tasks.classification.quality import MAJORITY, TEACHER
from tasks.classification.rules import accuracy_low
from tasks.dataset import DATASETS
from tasks.facts import FACTS as OF_PICTURES
from tasks.facts import StageFacts, file_names, teacher_tags
from tasks.files import read_json, sha256_file
from tasks.params import Params
from tasks.quality import TORCH
from tasks.stage import STUDENTS

Json = Mapping[str, Any]


def _dataset(params: Params, name: str, block: Classifier) -> StageFacts:
    record = read_json(DATASETS / block.dataset / "dataset.json")
    return StageFacts(
        stage="dataset",
        digest=record["digest"],
        params=params.dataset(block.dataset).model_dump(),
        made_from={},
        figures={"inputs": {**record["counts"], "classes": len(record["classes"])}},
    )


def _generate(params: Params, name: str, block: Classifier) -> StageFacts:
    raw = STUDENTS / name / "raw"
    teacher, record = read_json(raw / "teacher.json"), read_json(raw / "answers.json")
    return StageFacts(
        stage="generate",
        digest=record["digest"],
        params={"teacher": without_places(block.teacher.model_dump()), "pairs": block.pairs.model_dump()},
        made_from={"inputs": record["dataset"], "teacher": teacher["digest"]},
        tags=teacher_tags(teacher),
    )


def _curate(params: Params, name: str, block: Classifier) -> StageFacts:
    folder = STUDENTS / name
    pairs = read_json(folder / "pairs" / "pairs.json")
    return StageFacts(
        stage="curate",
        digest=pairs["digest"],
        params={"max_conflict": block.pairs.max_conflict},
        made_from={"raw": read_json(folder / "raw" / "answers.json")["digest"]},
        figures={"yield": read_json(folder / "pairs" / "yield.json"), "pairs": pairs["counts"]},
        tags={"pairs.digest": pairs["digest"]},
    )


def _evaluate(params: Params, name: str, block: Classifier) -> StageFacts:
    folder = STUDENTS / name
    report = folder / "report"
    exported = read_json(folder / "exported" / "exported.json")["files"]
    return StageFacts(
        stage="evaluate",
        digest=sha256_file(report / "quality.json"),
        params={},
        made_from={
            "pairs": read_json(folder / "pairs" / "pairs.json")["digest"],
            **{file["file"]: file["sha256"] for file in exported},
        },
        figures=evaluate_figures(read_json(report / "quality.json"), file_names(exported)),
        files=tuple(sorted(path for path in report.rglob("*") if path.suffix in (".html", ".png", ".svg"))),
    )


def evaluate_figures(quality: Json, whose: Json) -> dict[str, Any]:
    """The figures of quality.json by the names of mlflow/metrics.yaml; `whose` names each model file.

    Those that are None, as all about labels where there are none, become no metrics.
    """
    phone = quality["phone"]
    evidence = LabelEvidence.from_json(quality["evidence"])
    others = {whose[file]: found for file, found in quality["files"].items() if file != phone}
    others |= {TORCH: quality["student"], TEACHER: quality[TEACHER], MAJORITY: quality["baselines"][MAJORITY]}
    costs = {
        whose[row["file"]]: {key: row[key] for key in ("drop", "flipped", "p")}
        | {f"drop_{end}": row["interval"][end] for end in ("low", "high") if row["interval"]}
        for row in quality["int8"]
    }
    return {
        "quality": quality["files"][phone] | {"accuracy_low": accuracy_low(evidence).value} | others,
        "to_float": costs,
        "mimicry": quality["mimicry"],
    }


FACTS: dict[str, Callable[[Params, str, Any], StageFacts]] = {
    "dataset": _dataset,
    "generate": _generate,
    "curate": _curate,
    # The same files in the same words.
    "train": OF_PICTURES["train"],
    "quantise": OF_PICTURES["quantise"],
    "benchmark": OF_PICTURES["benchmark"],
    "evaluate": _evaluate,
    "bundle": OF_PICTURES["bundle"],
}
