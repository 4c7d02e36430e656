"""Commands about teachers and what follows: `retrain`, `request`, `try`, `bumps`, `teacher`, `webhook`, `drift`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from models.errors import UserError
from tasks.params import check_files, load_params
from tasks.stage import interrupt_on_terminate

app = typer.Typer()
teacher_app = typer.Typer(no_args_is_help=True, help="Registered teachers and their alias `production`.")
app.add_typer(teacher_app, name="teacher")

Name = Annotated[str, typer.Argument(help="a student in params.yaml")]
MaybeName = Annotated[str, typer.Argument(help="a student in params.yaml; every one if left out")]


@app.command()
def retrain(
    student: MaybeName = "",
    again: Annotated[bool, typer.Option(help="even if it was refused, rejected, rolled back or failed")] = False,
) -> None:
    """Look at what is due and retrain it here: in a worktree, gated; only a better student is promoted."""
    interrupt_on_terminate()
    _known(student)
    if again and not student:
        raise UserError("--again needs a student's name")
    from flows.server import quiet_server

    with quiet_server():
        if again:
            from tasks.bumps import reopen

            print(reopen(student))
        from flows.retrain import retrain as flow

        flow(student=student, via="person")


@app.command()
def request(
    teacher: Annotated[str, typer.Option(help="only this teacher's students")] = "",
    via: Annotated[str, typer.Option(help="who asks, for the log")] = "person",
) -> None:
    """Have the Prefect server's worker look at what is due (the deployment retrain/retrain); CI does after a merge."""
    from flows.request import start_retrain

    print(start_retrain(teacher=teacher, via=via))


@app.command(name="try")
def try_profile(
    student: Name,
    profile: Annotated[str, typer.Option(help="a name under profiles: in params.yaml")] = "small",
    table: Annotated[Path, typer.Option(help="the Markdown file for the gate's table")] = Path("gate.md"),
) -> None:
    """Run a profile of one student in a worktree at the current commit and judge it; promotes nothing."""
    interrupt_on_terminate()
    _known(student)
    from tasks.trial import run_trial

    decision = run_trial(student, profile, table)
    print(f"{student}, profile {profile}: {'passed' if decision.passed else 'not passed'}: {decision.reason}")
    if not decision.passed:
        raise SystemExit(1)


@app.command()
def bumps(
    against: Annotated[str, typer.Option(help="the commit to compare with, such as origin/main")],
    head: Annotated[str, typer.Option(help="the commit that may have bumped")] = "HEAD",
) -> None:
    """Print the students whose teacher is pinned otherwise than at another commit, one name a line."""
    from tasks.pin import changed_pins

    for name, before, now in changed_pins(against, head):
        was = f"{before['name']} version {before['version']}" if before else "none"
        print(f"{name}: {was} -> {now['name']} version {now['version']}", file=sys.stderr)
        print(name)


@teacher_app.command(name="add")
def teacher_add(
    pin: Annotated[Path, typer.Argument(help="a YAML file with a teacher block as in params.yaml")],
) -> None:
    """Register a teacher's version; the files it is read from, if there are any, must have the sha256."""
    import yaml

    from models.teachers.pinned import places
    from tasks.mlflow_client import connected
    from tasks.teachers import read_pin, register_teacher

    try:
        raw = yaml.safe_load(pin.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{pin} is not YAML: {' '.join(str(error).split())}") from None
    block = read_pin(raw, str(pin))
    for place in places(block):
        place.check(block["name"])
    with connected() as client:
        version = register_teacher(client, block)
    print(f"{block['name']} version {block['version']} is version {version} of teacher.{block['name']} in MLflow")


@teacher_app.command(name="sha256")
def teacher_sha256(
    model: Annotated[str, typer.Argument(help="a file, a folder, or the hub's OWNER/NAME")],
    revision: Annotated[str, typer.Option(help="of a model on the hub: a commit's 40 hex digits")] = "",
) -> None:
    """Print the sha256 to pin a teacher by: of a file, or of those files in a folder that are loaded."""
    from models.teachers.pinned import Place

    print(Place(key="model", where=model, sha256="", revision=revision).found()[1])


@teacher_app.command(name="convert")
def teacher_convert(
    pickle: Annotated[Path, typer.Argument(help="NVIDIA's StyleGAN2 .pkl")],
    out: Annotated[Path, typer.Argument(help="the folder to write")],
) -> None:
    """Turn a StyleGAN2 pickle into a safe folder for `kind: stylegan2`; nothing in the pickle is run."""
    from models.teachers.pinned import Place
    from models.teachers.stylegan2.network import save
    from models.teachers.stylegan2.pickles import read_pickle
    from tasks.files import replacing_folder

    if out.exists():
        raise UserError(f"{out} is there already: name a folder that is not")
    generator = read_pickle(pickle)
    with replacing_folder(out) as folder:
        save(generator, folder)
    sha256 = Place(key="model", where=str(out), sha256="").found()[1]
    print(f"{out}: {generator.resolution}x{generator.resolution} pixels, sha256 {sha256}")


@teacher_app.command(name="promote")
def teacher_promote(
    name: Annotated[str, typer.Argument(help="a registered teacher")],
    version: Annotated[int, typer.Argument(help="its version in MLflow")],
    reason: Annotated[str, typer.Option(help="why, for the log")] = "promoted by a person",
) -> None:
    """Make a version the one to teach by, and tell the Prefect server if there is one: its students are retrained."""
    from flows.request import tell
    from tasks.mlflow_client import connected
    from tasks.teachers import set_production

    with connected() as client:
        moved = set_production(client, name, version, reason)
    print(f"production of {name} {'is now' if moved else 'was already'} version {version}; {tell(name, version)}")


@app.command()
def webhook(
    host: Annotated[str, typer.Option(help="where to listen")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="where to listen")] = 8080,
) -> None:
    """Receive MLflow's registry webhooks and tell the Prefect server (flows/webhook.py)."""
    from flows.webhook import serve

    serve(host, port)


@app.command()
def subscribe(url: Annotated[str, typer.Argument(help="of the receiver, such as https://HOST/mlflow")]) -> None:
    """Have the MLflow server call a receiver when a teacher's alias moves."""
    from tasks.webhooks import subscribe as set_webhook

    print(set_webhook(url))


@app.command()
def drift(student: MaybeName = "") -> None:
    """Compare the recent inputs (drift.folder) with those the student was taught on; past the threshold, retrain."""
    interrupt_on_terminate()
    _known(student)
    from flows.server import quiet_server

    with quiet_server():
        from flows.drift import drift as flow

        flow(student)


def _known(student: str) -> None:
    """A wrong name or path is refused before anything starts."""
    params = load_params()
    for name in [student] if student else params.every:
        check_files(params, name)
