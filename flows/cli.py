"""The command line: `understudy run [STUDENT]`, `doctor`, and what flows/*_commands.py add; from the repository's root.

Prefect and MLflow are imported only when there is something to run, so that nothing to do takes a second.
"""

import sys
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from flows import champion_commands, teacher_commands
from models.errors import TryAgain, UserError
from tasks.params import check_files, load_params
from tasks.pipeline import STAGES, StageFailed, stale_stages, up_to
from tasks.stage import TRY_AGAIN, die_with_parent, interrupt_on_terminate, one_line

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
for part in (teacher_commands, champion_commands):
    app.add_typer(part.app)


@app.command()
def run(
    student: Annotated[str | None, typer.Argument(help="a name in params.yaml; the first one if left out")] = None,
    every: Annotated[bool, typer.Option("--all", help="every student in params.yaml, one after the other")] = False,
    until: Annotated[str, typer.Option(help="the last stage to bring up to date")] = STAGES[-1],
    with_parent: Annotated[bool, typer.Option(hidden=True, help="end when make, which started this, ends")] = False,
) -> None:
    """Make a student, or bring it up to date, and print the headline figures."""
    if with_parent:
        die_with_parent()
    interrupt_on_terminate()
    params = load_params()
    if student and every:
        raise UserError("give a student's name or --all, not both")
    names = list(params.every) if every else [student or next(iter(params.every))]
    for name in names:
        check_files(params, name)  # a wrong name or path is refused before anything starts
        up_to(until, name, params)
    from flows.headline import as_text, headline
    from flows.server import quiet_server

    try:
        with ExitStack() as stack:
            # One server for all students: Prefect sends a process's events to the first server it meets.
            connect = cache(lambda: stack.enter_context(quiet_server()))
            for name in names:
                if set(stale_stages(name, params)) & set(up_to(until, name, params)):
                    connect()
                    from flows.distil import distil

                    distil(name, until)
                else:
                    print(f"{name}: nothing has changed, nothing to do")
                if until == STAGES[-1]:
                    print(as_text(name, headline(name)), flush=True)
    except KeyboardInterrupt:  # here, since Typer would end the program without a word
        _fail("stopped; run again to go on from here", 130)


@app.command()
def search(
    student: Annotated[str, typer.Argument(help="a name in params.yaml, curated")],
    space: Annotated[Path | None, typer.Option(help="a YAML file as tasks/search.yaml, which is the default")] = None,
    trials: Annotated[int | None, typer.Option(help="in all, those of earlier runs too")] = None,
    minutes: Annotated[float | None, typer.Option(help="no trial is begun after so many")] = None,
    steps: Annotated[int | None, typer.Option(help="of a trial's training")] = None,
    max_p90_ms: Annotated[float | None, typer.Option(help="on the gate's target; the gate's if left out")] = None,
    seed: Annotated[int, typer.Option(help="of what is tried")] = 0,
    write: Annotated[bool, typer.Option(help="put the best into params.yaml")] = False,
) -> None:
    """Search for a better student under a budget of latency: a page, and a block for params.yaml; resumable."""
    interrupt_on_terminate()
    from tasks.search import Asked
    from tasks.search import search as look
    from tasks.search_space import SPACE

    asked = Asked(
        space=space or SPACE,
        trials=trials,
        minutes=minutes,
        steps=steps,
        max_p90_ms=max_p90_ms,
        seed=seed,
        write=write,
    )
    try:
        look(student, asked)
    except KeyboardInterrupt:
        _fail("stopped; run again to go on from here", 130)


@app.command()
def trace(
    image: Annotated[Path, typer.Argument(help="a photo; its middle is looked at")],
    student: Annotated[str, typer.Option(help="a name in params.yaml, made")],
    out: Annotated[Path | None, typer.Option(help="a folder for the page; data/trace/STUDENT/... if left out")] = None,
    pairs: Annotated[int, typer.Option(help="training pairs to show", min=1)] = 8,
) -> None:
    """Say why a student's picture is what it is: nearest training pairs, what the teacher made of them, whose fault."""
    from tasks.trace import trace as look
    from tasks.trace_page import in_lines

    folder, found = look(image, student, out, pairs)
    print("\n".join([*in_lines(found), f"  {folder}/index.html"]))


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
    """Entry point: what the user can mend is one line on stderr and exit code 1, 75 where a second try can help."""
    try:
        app()
    except StageFailed as failure:
        code = TRY_AGAIN if failure.code == TRY_AGAIN else 1
        if failure.shown:
            raise SystemExit(code) from None
        _fail(str(failure), code)
    except (UserError, OSError) as error:
        _fail(one_line(error), TRY_AGAIN if isinstance(error, TryAgain) else 1)


def _fail(line: str, code: int) -> None:
    print(f"understudy: {line}", file=sys.stderr)
    raise SystemExit(code) from None


if __name__ == "__main__":
    main()
