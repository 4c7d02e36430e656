"""evaluate, of classifiers: every file, the torch student, the teacher and the commonest class on the test examples.

Reads data/datasets/NAME and, of one student, pairs/, student/, exported/ and benchmark/; weights and model files are
checked against their recorded sha256. Writes report/quality.json and the report (tasks/classification/report.py).

The command is that of tasks/evaluate.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.classification.params import Classifier
from tasks.classification.phone import student_evidence
from tasks.classification.quality import Model, Work, measure_all, summarise, taught_labels
from tasks.classification.taken import Taken, student_takes
from tasks.classification.taught import LabelPairs, open_pairs
from tasks.files import check_sha256, read_json, read_jsonl, replacing_folder, write_json
from tasks.params import Params
from tasks.quality import TORCH
from tasks.records import read_made
from tasks.stage import STUDENTS
from tasks.target import without_addresses


def evaluate(params: Params, name: str, block: Classifier) -> None:
    """Write data/students/NAME/report; UserError where what it reads does not belong together."""
    from models.torch_setup import prepare_torch

    prepare_torch(params.train.threads)
    folder = STUDENTS / name
    work = read_work(folder, block.dataset)
    found = measure_all(open_models(folder, work), work)
    evidence = student_evidence(work, found)
    quality = summarise(found, work, evidence.to_json())
    with replacing_folder(folder / "report") as report:
        write_json(report / "quality.json", quality)
        write_page(report, name, folder, quality, work)
    phone = quality["files"][quality["phone"]]
    told = {what: "-" if phone[what] is None else f"{phone[what]:.3f}" for what in ("accuracy", "agreement")}
    print(
        f"{name}: accuracy {told['accuracy']}, agreement with the teacher {told['agreement']} on "
        f"{quality['test_samples']} test examples; {folder}/report/index.html"
    )


def read_work(folder: Path, dataset: str) -> Work:
    """What a classifier is measured on, after right bytes were found, and one made from another."""
    made, _, exported = read_made(folder)
    pairs = open_pairs(folder, dataset)
    for record in exported["files"]:
        check_sha256(folder / "exported" / record["file"], record["sha256"], "exported model")
    return work_of(pairs, made, exported["files"], read_json(folder / "benchmark" / "benchmark.json"))


def work_of(pairs: LabelPairs, record: dict[str, Any], files: Sequence[Any], benchmark: Any) -> Work:
    """The test examples with labels and the teacher's answers."""
    taught, test = pairs.split("train"), pairs.split("test")
    rows, kept = pairs.rows("test"), pairs.rows("train")
    inputs = (
        np.asarray(test.inputs)[rows] if isinstance(test.inputs, np.ndarray) else [test.inputs[row] for row in rows]
    )
    return Work(
        classes=pairs.examples.classes,
        inputs=inputs,
        labels=test.labels[rows],
        teacher=np.asarray(pairs.logits("test")[rows, 0], np.float32),
        taught=taught_labels(taught.labels[kept], np.asarray(pairs.logits("train")[kept, 0], np.float32)),
        pairs=record,
        files=files,
        benchmark=benchmark,
    )


def open_models(folder: Path, work: Work) -> dict[str, Model]:
    """Every contestant by name: the torch student and each file."""
    from models.classification.networks import load_network

    taken = student_takes(folder / "student")
    models: dict[str, Model] = {TORCH: of_torch(load_network(folder / "student"), taken)}
    for record in work.files:
        models[record["file"]] = of_file(folder / "exported" / record["file"], record["runtime"], taken)
    return models


def of_torch(student: Any, taken: Taken) -> Model:
    """A torch classifier as a function over batches of pictures (B,S,S,3) uint8, or of texts."""
    import torch

    def run(inputs: Any) -> Any:
        with torch.inference_mode():
            return student(*taken.batch(inputs)).numpy()

    return run


def of_file(path: Path, runtime: str, taken: Taken) -> Model:
    """A model file as a function over batches; it takes one example at a time."""
    from models.runtimes import open_model

    model = open_model(path, runtime, gives=taken.gives)
    return lambda inputs: np.concatenate([model(taken.sample(one)) for one in inputs])


def write_page(report: Path, name: str, folder: Path, quality: Any, work: Work) -> None:
    """The report's page."""
    from tasks.classification.report import Told, write_report

    told = Told(
        name=name,
        quality=quality,
        benchmark=without_addresses(work.benchmark),
        exported=read_json(folder / "exported" / "exported.json"),
        student=read_json(folder / "student" / "student.json"),
        pairs=work.pairs,
        curve=read_jsonl(folder / "student" / "curve.jsonl"),
        inputs={one["row"]: work.inputs[one["row"]] for one in quality["worst"]},
    )
    write_report(report, told)
