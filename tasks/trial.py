"""A trial: one profile of one student in a worktree at the current commit, judged, never promoted, as CI does."""

import shutil
from pathlib import Path

from models.errors import UserError
from tasks import workspace
from tasks.audit import StudentState
from tasks.bumps import Base, job_for
from tasks.files import write_text
from tasks.gate import Decision
from tasks.gate_table import gate_table
from tasks.mlflow_client import is_configured
from tasks.retrain import compare, fetch_champion, judge, measure_teacher_drift, papers


def run_trial(student: str, profile: str, table: Path) -> Decision:
    """Run it and write the gate's table as Markdown; compared with the champion where a registry is configured."""
    base = Base.at("HEAD")
    if profile not in base.params.profiles:
        raise UserError(f"no profile {profile!r} at HEAD; there are: {', '.join(base.params.profiles) or 'none'}")
    teacher = base.params.block(student).teacher.model_dump()
    job = job_for(base, student, teacher, f"trial of profile {profile}", of=f"profile {profile}")
    folder = papers(job)
    space = workspace.prepare(
        student=student, key=job.key, base=job.base, teacher=job.teacher, profile=profile, inputs=None, start=None
    )
    try:
        workspace.understudy(space, "run", student, "--until", "curate")
        registry = is_configured()
        told = measure_teacher_drift(space, job, folder, base.params.retrain.teacher_samples) if registry else ""
        workspace.understudy(space, "run", student)
        state, champion = fetch_champion(student, folder) if registry else (StudentState(), None)
        compare(space, student, champion, folder)
        decision = judge(space, student, folder, upon=state).decision
        title = f"### {student}, taught by {job.title}: profile `{profile}`"
        note = "Fewer pairs and steps than a full run: it shows that the teacher can be learnt, and promotes nothing."
        write_text(table, "\n\n".join(part for part in (title, note, told, gate_table(decision)) if part) + "\n")
    finally:
        workspace.remove(space)
        shutil.rmtree(folder, ignore_errors=True)
    return decision
