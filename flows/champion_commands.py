"""Commands about registered students: `status`, `promote`, `reject`, `rollback`, `fetch`, `lineage`, `log`."""

from pathlib import Path
from typing import Annotated

import typer

from tasks import champions

app = typer.Typer()

Name = Annotated[str, typer.Argument(help="a student")]
Version = Annotated[int, typer.Option("--version", help="which; the challenger if left out")]
Reason = Annotated[str, typer.Option(help="why, for the log")]


@app.command()
def status(student: Annotated[str, typer.Argument(help="a student; every one if left out")] = "") -> None:
    """Per student: pinned teacher, champion and its teacher, gate, age, drift, what is pending, stages up to date."""
    from flows.status import report

    for line in report(student):
        print(line)


@app.command()
def promote(student: Name, version: Version = 0, reason: Reason = "") -> None:
    """Say yes to the challenger that passed the gate: it becomes the champion."""
    print(champions.promote(student, version, reason))


@app.command()
def reject(student: Name, version: Version = 0, reason: Reason = "") -> None:
    """Say no to the challenger; the champion stays."""
    print(champions.reject(student, version, reason))


@app.command()
def rollback(student: Name, reason: Reason = "") -> None:
    """Make the champion before this one champion again, in one step."""
    print(champions.rollback(student, reason))


@app.command()
def fetch(
    student: Name,
    to: Annotated[Path, typer.Option(help="a folder to make")],
    version: Annotated[int, typer.Option("--version", help="which; the champion if left out")] = 0,
) -> None:
    """Put the champion's bundle, verified, into a folder."""
    print(champions.fetch(student, version, to))


@app.command()
def lineage(
    version: Annotated[str, typer.Argument(help="STUDENT, for its champion, or STUDENT/NUMBER")],
) -> None:
    """Print the chain teacher -> pairs -> student -> files with digests, each checked against what is on disk."""
    from tasks.provenance import trace

    links = trace(version)
    for link in links:
        print(f"{link.verdict:<9}{link.what:<10}{link.told}")
    if any(link.verdict == "DIFFERS" for link in links):
        raise SystemExit(1)


@app.command()
def log(student: Name) -> None:
    """Print a student's audit log, oldest first, and whether each move counted."""
    for line in champions.tell_log(student):
        print(line)
