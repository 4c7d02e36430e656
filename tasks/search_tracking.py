"""What a search leaves in MLflow: a run for the study, and in it one for each trial that ended.

A trial is logged once, however often this is called; mlflow/tags.yaml and metrics.yaml list the names.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tasks.facts import flat_params, numbers
from tasks.mlflow_client import connected, experiment_id, log_values, new_run

if TYPE_CHECKING:
    from tasks.mlflow_client import Client

MOST = 5000  # trials of a study that are looked for


def log_search(student: str, key: str, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """Log the trials (tasks.search_result.rows_of) that are not there yet; TryAgain when MLflow cannot be reached."""
    if not rows:
        return
    with connected() as client:
        experiment = experiment_id(client, student)
        parent = _parent(client, experiment, key, about)
        known = _logged(client, experiment, parent)
        for row in rows:
            if str(row["trial"]) not in known:
                _log_trial(client, experiment, parent, row)
        finished = [row["quality"]["explained_effect"] for row in rows if row["state"] == "finished"]
        figures = {"search.trials": float(len(rows)), "search.front": float(sum(row["front"] for row in rows))}
        figures |= {"search.explained_effect": max(finished)} if finished else {}
        log_values(client, parent, figures, {}, [])
        client.set_terminated(parent, "FINISHED")


def _parent(client: "Client", experiment: str, key: str, about: Mapping[str, Any]) -> str:
    """The study's run, made on first use."""
    found = client.search_runs([experiment], f"tags.search.key = '{key}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    with new_run(client, experiment, f"search-{key[:8]}", {"search.key": key}) as run_id:
        log_values(client, run_id, {}, flat_params(about), [])
    return run_id


def _logged(client: "Client", experiment: str, parent: str) -> set[str]:
    """The numbers of the trials that are there; what a kill left half written is removed."""
    inside = f"tags.mlflow.parentRunId = '{parent}'"
    known = set()
    for run in client.search_runs([experiment], inside, max_results=MOST):
        if run.info.status == "FINISHED":
            known.add(run.data.tags["trial.number"])
        else:
            client.delete_run(run.info.run_id)
    return known


def _log_trial(client: "Client", experiment: str, parent: str, row: Mapping[str, Any]) -> None:
    """One trial: what it was, what it took, how good it became by step and in the end."""
    tags = {"mlflow.parentRunId": parent, "trial.number": str(row["trial"]), "trial.state": row["state"]}
    tags |= {"trial.own": str(row["own"]).lower(), "trial.reason": row["reason"] or ""}
    params = {key: row[key] for key in ("architecture", "losses", "point") if row[key]}
    figures = {"trial": {**(row["cost"] or {}), **(row["quality"] or {})}}
    curve = [
        {"step": rung["step"], "trial": {"val_explained_effect": rung["explained_effect"]}} for rung in row["rungs"]
    ]
    with new_run(client, experiment, f"trial-{row['trial']}", tags) as run_id:
        log_values(client, run_id, numbers(figures), flat_params(params), curve)
