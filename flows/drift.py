"""The drift flow: recent inputs against the training split, for one student or all; past the threshold, a retrain.

Reads the folder of params.drift.folder. Leaves data/.work/NAME/drift.json, a note at the registry and a table on
Prefect's page of the run. Pictures that have drifted are given to the retrain, which teaches the student on them
with the same teacher; of histograms nothing can be learnt, so they only say what to collect.

Deployed by prefect.yaml; `understudy drift` calls it.
"""

from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.retrain import retrain_for_drift
from models.errors import UserError
from tasks.drift import DriftResult, by_distance, measure_drift
from tasks.mlflow_client import connected
from tasks.params import load_params
from tasks.registry import note_drift

TO_COLLECT = "histograms cannot be trained on: put photos that look like what has changed into {folder}, and run again"


@task(cache_policy=NO_CACHE)
def compare(student: str, folder: Path) -> DriftResult:
    """Recent inputs against the student's training split, noted at the registry."""
    result = measure_drift(load_params(), student, folder)
    create_markdown_artifact(as_markdown(result), key=f"drift-{student}")
    with connected() as client:
        note_drift(client, student, result.to_json())
    return result


@flow(name="drift")
def drift(student: str = "") -> list[DriftResult]:
    """Compare the recent inputs of one student, or of all, and retrain those that have left their training.

    A student that cannot be compared does not keep the others from it; the flow then ends with a UserError.
    """
    params = load_params()
    names = list(params.students)
    if student:
        params.student(student)  # a wrong name is refused with the names there are
        names = [student]
    folder = Path(params.drift.folder)
    if not folder.is_dir():
        print(f"drift: no recent inputs, there is no folder {folder} (drift.folder)", flush=True)
        return []
    results, failed = [], []
    for name in names:
        try:
            results.append(compare(name, folder))
            print(f"{name}: {results[-1].told}", flush=True)
            follow(results[-1], folder)
        except (UserError, OSError) as error:
            failed.append(f"{name}: {error}")
    if failed:
        raise UserError("; ".join(failed))
    return results


def follow(result: DriftResult, folder: Path) -> None:
    """What a result asks for: nothing, a retrain, or photos to retrain with."""
    if not result.drifted:
        return
    if result.kind == "pictures":
        retrain_for_drift(result.student, folder, result.digest)
    else:
        print(f"{result.student}: {TO_COLLECT.format(folder=folder)}", flush=True)


def as_markdown(result: DriftResult) -> str:
    """The result and its table for Prefect's page of the run."""
    counts = f"{result.n_recent} recent {result.kind} against {result.n_training} training inputs"
    lines = [f"# {result.student}: {result.told.split(':')[0]}", "", result.told, "", counts, ""]
    if result.set_aside:
        lines += ["Set aside: " + ", ".join(f"{count} {kind}" for kind, count in result.set_aside.items()), ""]
    if result.features:
        lines += ["| feature | training median | recent median | KS | p |", "|---|---|---|---|---|"]
        for name, row in by_distance(result.features):
            figures = (row["training_median"], row["recent_median"], row["ks"], row["p_value"])
            lines.append(f"| {name} | " + " | ".join(f"{figure:.3g}" for figure in figures) + " |")
    return "\n".join(lines)
