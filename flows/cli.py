"""The command line: `understudy run [STUDENT]`, `status`, `doctor`; each from the repository's root.

Prefect and MLflow are imported only when there is something to run, so that nothing to do takes a second.
"""

import os
import sys
from contextlib import ExitStack
from functools import cache
from typing import Annotated

import typer

from models.errors import UserError
from tasks.params import check_files, load_params
from tasks.pipeline import STAGES, StageFailed, stale_stages
from tasks.stage import STUDENTS, die_with_parent, interrupt_on_terminate, one_line

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

# The run's own lines say what happens; Prefect's log would say it twice, with a traceback for every typo.
QUIET = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "DVC_NO_ANALYTICS": "1",
}


@app.command()
def run(
    student: Annotated[str | None, typer.Argument(help="a name in params.yaml; the first one if left out")] = None,
    every: Annotated[bool, typer.Option("--all", help="every student in params.yaml, one after the other")] = False,
    with_parent: Annotated[bool, typer.Option(hidden=True, help="end when make, which started this, ends")] = False,
) -> None:
    """Make a student, or bring it up to date, and print the headline figures."""
    if with_parent:
        die_with_parent()
    interrupt_on_terminate()
    params = load_params()
    if student and every:
        raise UserError("give a student's name or --all, not both")
    names = list(params.students) if every else [student or next(iter(params.students))]
    for name in names:
        check_files(params, name)  # a wrong name or path is refused before anything starts
    from flows.headline import as_text, headline

    try:
        with ExitStack() as stack:
            # One server for all students: Prefect sends a process's events to the first server it meets.
            connect = cache(lambda: _connect(stack))
            for name in names:
                if stale_stages(name):
                    connect()
                    from flows.distil import distil

                    distil(name)
                else:
                    print(f"{name}: nothing has changed, nothing to do")
                print(as_text(name, headline(name)), flush=True)
    except KeyboardInterrupt:  # here, since Typer would end the program without a word
        _fail("stopped; run again to go on from here", 130)


def _connect(stack: ExitStack) -> None:
    """Reach the configured Prefect server, or start one of our own that ends with `stack`."""
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    from flows.server import reachable_server

    stack.enter_context(reachable_server())


@app.command()
def status() -> None:
    """Per student: the teacher that is pinned, which stages are up to date, the figures and the gate's verdict."""
    from flows.headline import try_headline

    params = load_params()
    for name, block in params.students.items():
        stale = stale_stages(name)
        fresh = [stage for stage in STAGES if stage not in stale]
        teacher = block.teacher
        print(f"{name}:\n  teacher   {teacher.name} version {teacher.version} ({teacher.kind})")
        print(f"  up to date  {', '.join(fresh) or 'nothing'}")
        if stale:
            print(f"  stale       {', '.join(stale)} (run: understudy run {name})")
        if (STUDENTS / name / "bundle" / "manifest.json").exists():
            print("\n".join(f"  {what:<8}{figure}" for what, figure in try_headline(name)))


@app.command()
def doctor() -> None:
    """Check this machine and the environment: a line each, with what to do; exit code 1 if something is broken."""
    from flows.doctor import examine

    findings = list(examine())
    for finding in findings:
        print(f"{finding.verdict:<5}{finding.what}: {finding.told}")
    if any(finding.verdict == "fail" for finding in findings):
        raise SystemExit(1)


def main() -> None:
    """Entry point: what the user can mend is one line on stderr and exit code 1."""
    try:
        app()
    except StageFailed as failure:
        if failure.shown:
            raise SystemExit(1) from None
        _fail(str(failure), 1)
    except (UserError, OSError) as error:
        _fail(one_line(error), 1)


def _fail(line: str, code: int) -> None:
    print(f"understudy: {line}", file=sys.stderr)
    raise SystemExit(code) from None


if __name__ == "__main__":
    main()
