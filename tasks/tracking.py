"""What a pipeline run leaves in MLflow: an experiment per student, a run per pipeline run, a child run per stage.

Pipeline runs are what people compare, so each has the figures, curves, pictures and inputs that matter, whether its
stages ran or were reused; the rest lies with the stages. mlflow/tags.yaml lists the tags, mlflow/metrics.yaml the
metrics and pictures. Nothing is ever logged as a pickle.
"""

import platform
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.facts import StageFacts, flat_params, numbers, run_record
from tasks.files import sha256_json
from tasks.mlflow_client import connected, experiment_id, log_inputs, log_picture, log_values, new_run
from tasks.stage import STUDENTS

if TYPE_CHECKING:
    from tasks.mlflow_client import Client

OUTER = ("inputs", "teacher", "pairs", "init")  # what a student is made from; the rest are its own parts
# The figures by which pipeline runs are compared, few enough to be looked at and in the order in which MLflow lists
# them; all of them are with the stages.
COMPARED = (
    "quality.explained_effect",
    "quality.explained_low",
    "quality.worst_slice",
    "quality.sharpness_ratio",
    "quality.chroma_ratio",
    "quality.flicker",
    "quality.flicker_over_teacher",
    "quality.structure_kept",
    "quality.psnr_to_float_db",
    "quality.psnr_db",
    "quality.ms_ssim",
    "quality.colour_affine.explained_effect",
    "latency.int8.p50_ms",
    "latency.int8.p90_ms",
    "size.int8.bytes",
    "detector.auroc",
    "detector.false_positives",
    "gate.passed",
    "gate.failed_rules",
    "pairs.train",
    "pairs.test",
    "train.parameters",
)
# Besides those of them that classifiers have too, these of classifiers.
LABELS_COMPARED = (
    "quality.accuracy",
    "quality.accuracy_low",
    "quality.teacher.accuracy",
    "quality.majority.accuracy",
    "quality.agreement",
    "quality.divergence",
    "quality.ece",
    "quality.worst_class",
    "quality.copied_errors",
    "quality.corrected_errors",
    "quality.broken",
    "to_float.int8.drop",
    "to_float.int8.drop_high",
)
# MLflow's pages print every parameter of a run above each of its pictures: more than these would hide the picture.
PARAMS = ("train.architecture.encoder", "train.train.steps")
CURVES = ("loss", "val_l1", "val_explained_effect")
LABEL_CURVES = ("val_accuracy", "val_agreement", "val_divergence")


def log_run(student: str, facts: Sequence[StageFacts], *, failed: str = "", reason: str = "") -> str:
    """Log one pipeline run and its stages; returns the parent's run id. `failed` names the stage that failed, if any.

    The caller holds the student's lineage lock. Raises TryAgain when MLflow cannot be reached.
    """
    with connected() as client:
        experiment = experiment_id(client, student)
        _close_stale(client, experiment)
        tags = {key: value for fact in facts for key, value in fact.tags.items()}
        tags |= {"workspace": _workspace(), **_commit()}
        if failed:
            tags |= {"failed.stage": failed, "failed.reason": reason}
        description = "\n\n".join(fact.told for fact in facts if fact.told)
        if description:
            tags["mlflow.note.content"] = description
        name = f"{student}-failed-{failed}"
        if facts and not failed:
            name = f"{tags['teacher.name']}-v{tags['teacher.version']}-{facts[-1].digest[:8]}"
        with new_run(client, experiment, name, tags, fails=bool(failed)) as parent:
            for fact in facts:
                _log_stage(client, experiment, parent, student, fact)
            if failed:
                told = {"mlflow.parentRunId": parent, "stage.name": failed, "stage.status": "failed"}
                with new_run(client, experiment, failed, {**told, "failed.reason": reason}, fails=True):
                    pass
            _log_summary(client, parent, student, facts)
        return parent


def _workspace() -> str:
    """Names this checkout without telling its host or path."""
    return sha256_json([platform.node(), str(Path.cwd())])[:16]


def _close_stale(client: "Client", experiment: str) -> None:
    """Runs of this checkout that SIGKILL left RUNNING; we hold its lock, so none of them is alive."""
    mine = f"attributes.status = 'RUNNING' and tags.workspace = '{_workspace()}'"
    for parent in client.search_runs([experiment], mine):
        inside = f"attributes.status = 'RUNNING' and tags.mlflow.parentRunId = '{parent.info.run_id}'"
        for run in [*client.search_runs([experiment], inside), parent]:
            client.set_terminated(run.info.run_id, "KILLED")


def _commit() -> dict[str, str]:
    """The git commit the code is at, if this is a repository with one."""
    with suppress(OSError, subprocess.SubprocessError):
        asked = ["git", "rev-parse", "--verify", "HEAD"]
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True)
        return {"git.commit": answer.stdout.strip()}
    return {}


def _log_stage(client: "Client", experiment: str, parent: str, student: str, fact: StageFacts) -> None:
    """One child run: params, figures, curve, inputs; pictures and costs only where the stage really ran."""
    earlier = client.search_runs(
        [experiment],
        f"tags.stage.name = '{fact.stage}' and tags.stage.digest = '{fact.digest}' and tags.stage.status = 'ran'"
        " and attributes.status = 'FINISHED'",
        max_results=1,
        order_by=["attributes.start_time ASC"],
    )
    tags = {
        "mlflow.parentRunId": parent,
        "stage.name": fact.stage,
        "stage.digest": fact.digest,
        "stage.status": "reused" if earlier else "ran",
        **fact.tags,
    }
    if earlier:
        tags["stage.reused_from"] = earlier[0].info.run_id
    with new_run(client, experiment, fact.stage, tags) as run_id:
        figures = numbers(fact.figures) | ({} if earlier else run_record(fact.stage, student))
        log_values(client, run_id, figures, flat_params(fact.params), [_named(fact.stage, line) for line in fact.curve])
        log_inputs(client, run_id, fact.made_from)
        if not earlier:
            for path in fact.files:
                _log_file(client, run_id, student, path)


def _log_file(client: "Client", run_id: str, student: str, path: Path) -> None:
    """In the folder it is in on disk, so that a page finds its pictures."""
    folder = path.parent.relative_to(STUDENTS / student)
    client.log_artifact(run_id, str(path), folder.as_posix() if folder.parts else None)


def _named(stage: str, line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of a curve under the names of metrics."""
    return {"step": line["step"], stage: {key: value for key, value in line.items() if key != "step"}}


def _log_summary(client: "Client", parent: str, student: str, facts: Sequence[StageFacts]) -> None:
    """On the parent: the outer inputs, and the parameters, figures, curves and pictures that are compared."""
    settings = {f"{fact.stage}.{key}": value for fact in facts for key, value in flat_params(fact.params).items()}
    params = {key: settings[key] for key in PARAMS if key in settings}
    found = {key: value for fact in facts for key, value in numbers(fact.figures).items()}
    figures = {key: found[key] for key in (*COMPARED, *LABELS_COMPARED) if key in found}
    lines = [(fact.stage, line) for fact in facts for line in fact.curve]
    curve = [
        _named(stage, {key: line[key] for key in ("step", *CURVES, *LABEL_CURVES) if key in line})
        for stage, line in lines
    ]
    log_values(client, parent, figures, params, curve)
    inputs = {key: digest for fact in facts for key, digest in fact.made_from.items()}
    log_inputs(client, parent, {key: inputs[key] for key in OUTER if key in inputs})
    for fact in facts:
        for key, path in fact.pictures.items():
            log_picture(client, parent, key, path)
        for path in fact.sheets:
            _log_file(client, parent, student, path)
