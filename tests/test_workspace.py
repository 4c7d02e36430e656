"""Workspaces on a real git repository with a real DVC: whole or made again, and never a trace in the user's tree."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from git_toy import commit_toy, git, state_of
from processes import gone, wait_until

from models.errors import TryAgain, UserError
from models.teachers.folders import folder_sha256
from tasks import carry
from tasks.files import sha256_file
from tasks.params_text import with_values
from tasks.pipeline import StageFailed, cache_folder
from tasks.starts import kept_weights
from tasks.workspace import commit, drop_branch, environment, prepare, remove, run, understudy

KEY = "0123456789abcdef"
START = {"architecture": {}, "size": 64, "compress": {}, "ranks": {}, "weights_sha256": "a" * 64}
OWN = Path("models/start/champions/oil/student.json")
NEW = {"kind": "painter", "name": "oil-painter", "version": 2, "style": "oil"}
CHILD = """
    import os, signal, sys
    from pathlib import Path
    if sys.argv[1] == "hang":
        child = os.spawnvp(os.P_NOWAIT, "sleep", ["sleep", "600"])
        Path("hanging").write_text(f"{os.getpid()} {child}")
        os.waitpid(child, 0)
    if sys.argv[1] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    print("working", *sys.argv[3:])
    print(sys.argv[2], file=sys.stderr)
    sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def repo(toy: Path) -> Path:
    """The current folder: the toy repository in git, with photos that git does not hold."""
    (toy / "child.py").write_text(textwrap.dedent(CHILD))
    (toy / "data" / "sources" / "more").mkdir()
    for name in ("a.jpg", "more/b.jpg"):
        (toy / "data" / "sources" / name).write_text(f"photo {name}")
    commit_toy(toy)
    git("add", "child.py")
    git("commit", "--quiet", "-m", "child")
    return toy


def ready(**changed: Any) -> Path:
    nothing = dict.fromkeys(("teacher", "profile", "inputs", "start"))
    return prepare(**({"student": "oil", "key": KEY, "base": "HEAD"} | nothing | changed))


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def params_of(folder: Path) -> Any:
    return yaml.safe_load((folder / "params.yaml").read_text())


def test_a_workspace_has_the_base_the_pin_the_photos_and_the_cache(repo: Path) -> None:
    (repo / "seed").write_text("what is not committed does not count")
    before = state_of(repo)
    space = ready(teacher=NEW)
    assert space == repo / "data" / ".work" / "workspaces" / "oil-01234567"
    assert git("rev-parse", "HEAD", cwd=space) == git("rev-parse", "HEAD")
    assert (space / "seed").read_text() == "1"
    assert params_of(space) == params_of(repo) | {
        "students": {"oil": params_of(repo)["students"]["oil"] | {"teacher": NEW}}
    }
    for name in ("a.jpg", "more/b.jpg"):
        assert (space / "data" / "sources" / name).samefile(repo / "data" / "sources" / name)
    code = "from tasks.pipeline import cache_folder; print(cache_folder())"
    asked = subprocess.run([sys.executable, "-c", code], cwd=space, capture_output=True, text=True, check=True)
    assert Path(asked.stdout.strip()) == cache_folder() == repo / ".dvc" / "cache"
    assert state_of(repo) == before
    remove(space)
    assert not space.exists()
    assert not [path for path in space.parent.iterdir() if path.suffix != ".lock"]
    assert git("worktree", "list").count("\n") == 0
    assert state_of(repo) == before


def test_found_again_nothing_is_written(repo: Path) -> None:
    space = ready(teacher=NEW, profile="small")
    made = files_of(space)
    (space / "data" / "students").mkdir()
    (space / "data" / "students" / "begun").write_text("work")
    assert ready(teacher=NEW, profile="small") == space
    assert {name: told for name, told in files_of(space).items() if "begun" not in name} == made
    assert (space / "data" / "students" / "begun").exists()
    block = params_of(space)["students"]["oil"]
    assert block["train"]["steps"] == params_of(repo)["profiles"]["small"]["students"]["train.steps"]
    assert block["teacher"] == NEW
    # Another base, same job: git's files are those of the base, and what has been begun stays.
    (repo / "seed").write_text("2")
    git("commit", "--quiet", "-am", "second")
    ready(teacher=NEW)
    assert (space / "seed").read_text() == "2"
    assert (space / "data" / "students" / "begun").exists()
    assert params_of(space)["students"]["oil"]["train"]["steps"] != block["train"]["steps"]


def test_a_start_is_a_record_in_the_workspace_with_its_weights(repo: Path) -> None:
    params = (repo / "params.yaml").read_text()
    profiles, block = params.split("\nstudents:\n")
    text = f"{profiles}\nstudents:\n" + block.replace("    init: start\n", "    init: start  # to begin with\n")
    assert text != params
    (repo / "params.yaml").write_text(text)
    git("commit", "--quiet", "-am", "a comment")
    weights = kept_weights(START["weights_sha256"])
    weights.parent.mkdir(parents=True)
    weights.write_text("weights")
    before = state_of(repo)
    space = ready(start=START)
    new = text.replace("    init: start  #", "    init: models/start/champions/oil  #")
    assert (space / "params.yaml").read_text() == new
    assert json.loads((space / OWN).read_text()) == START
    assert (space / weights).samefile(weights)
    made = files_of(space)
    assert ready(start=START) == space
    assert files_of(space) == made
    # Another champion is another start; and none gives the block its init back.
    other = START | {"weights_sha256": "b" * 64}
    ready(start=other)
    assert json.loads((space / OWN).read_text()) == other
    ready()
    assert (space / "params.yaml").read_text() == text and not (space / OWN).exists()
    assert state_of(repo) == before
    remove(space)


def test_a_start_that_the_base_has_is_replaced_and_put_back(repo: Path) -> None:
    merged = START | {"weights_sha256": "b" * 64}
    (repo / OWN).parent.mkdir(parents=True)
    (repo / OWN).write_text(json.dumps(merged))
    params = with_values((repo / "params.yaml").read_text(), "oil", {"init": OWN.parent.as_posix()})
    (repo / "params.yaml").write_text(params)
    git("add", OWN.as_posix())
    git("commit", "--quiet", "-am", "merged")
    space = ready(start=START)
    assert json.loads((space / OWN).read_text()) == START
    ready()
    assert git("status", "--porcelain", cwd=space) == ""
    assert json.loads((space / OWN).read_text()) == merged


def test_videos_in_a_folder_of_their_own_come_along(repo: Path) -> None:
    params = params_of(repo)
    params["video"]["clips"] = "data/videos"
    (repo / "params.yaml").write_text(yaml.safe_dump(params))
    git("commit", "--quiet", "-am", "videos")
    (repo / "data/videos").mkdir()
    (repo / "data/videos/a.mp4").write_text("a video")
    assert (ready() / "data/videos/a.mp4").read_text() == "a video"


def test_photos_follow_the_checkout(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = ready()
    sources = repo / "data" / "sources"
    (sources / "a.jpg").unlink()
    (sources / "more" / "b.jpg").rename(sources / "c.jpg")
    (space / "data" / "sources" / ".tmp-1-c.jpg").write_text("half a cop")

    def no_links(*_: Any) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(carry.os, "link", no_links)
    ready()
    names = {path.relative_to(space).as_posix() for path in (space / "data" / "sources").rglob("*") if path.is_file()}
    assert names == {"data/sources/.keep", "data/sources/c.jpg"}
    copied = space / "data" / "sources" / "c.jpg"
    assert copied.read_text() == "photo more/b.jpg"
    assert not copied.samefile(sources / "c.jpg")
    before = copied.stat().st_ino
    ready()
    assert copied.stat().st_ino == before


def test_recent_pictures_come_in_a_folder_of_their_own(repo: Path, tmp_path: Path) -> None:
    recent = tmp_path / "recent"
    (recent / "deep").mkdir(parents=True)
    (recent / "deep" / "new.jpg").write_text("new")
    space = ready(inputs=recent)
    (folder,) = (space / "data" / "sources").glob("recent-*")
    assert [path.read_text() for path in folder.rglob("*.jpg")] == ["new"]
    made = files_of(space)
    ready(inputs=recent)
    assert files_of(space) == made
    (recent / "deep" / "new.jpg").write_text("newer")
    ready(inputs=recent)
    (other,) = (path for path in (space / "data" / "sources").glob("recent-*") if list(path.rglob("*.jpg")))
    assert other != folder
    with pytest.raises(UserError, match="no folder .* of recent pictures"):
        ready(inputs=tmp_path / "nowhere")


def test_a_teachers_file_comes_along_if_it_is_the_pinned_one(repo: Path) -> None:
    file = repo / "data" / "sources" / "t.onnx"  # anywhere that git ignores
    file.write_text("weights")
    teacher = {"kind": "onnx", "name": "t", "version": 1, "path": "data/sources/t.onnx", "sha256": sha256_file(file)}
    elsewhere = repo / "data" / "inputs" / "t.onnx"
    elsewhere.parent.mkdir()
    shutil.move(file, elsewhere)
    space = ready(teacher=teacher | {"path": "data/inputs/t.onnx"})
    assert (space / "data" / "inputs" / "t.onnx").read_text() == "weights"
    for changed, told in (
        ({"path": "data/inputs/t.onnx", "sha256": "a" * 64}, "has sha256"),
        ({"path": "data/inputs/no.onnx"}, "nothing lies at data/inputs/no.onnx: put it there"),
        ({"path": "../t.onnx"}, "leads out of the repository"),
    ):
        with pytest.raises(UserError, match=told):
            ready(key="f" * 16, teacher=teacher | changed)


def test_a_teachers_folder_comes_along_with_what_is_loaded_of_it(repo: Path) -> None:
    model = repo / "data" / "inputs" / "model"
    (model / "unet").mkdir(parents=True)
    (model / "model_index.json").write_text("{}")
    (model / "unet" / "weights.safetensors").write_text("weights")
    (model / "unet" / "weights.bin").write_text("a pickle")
    pin = {"kind": "diffusers", "name": "t", "version": 1, "model": "data/inputs/model", "sha256": folder_sha256(model)}
    pin |= {"call": {"prompt": "oil"}, "revision": "", "scheduler": "", "size": 0, "dtype": "float32", "control": None}
    space = ready(teacher=pin)
    below = space / "data" / "inputs" / "model"
    brought = sorted(path.relative_to(below).as_posix() for path in below.rglob("*.*"))
    assert brought == ["model_index.json", "unet/weights.safetensors"]
    (below / "model_index.json").unlink()  # as a kill may leave it
    assert ready(teacher=pin) == space
    assert (below / "model_index.json").exists()
    (model / "unet" / "weights.safetensors").write_text("others")
    with pytest.raises(UserError, match="has sha256"):
        ready(key="e" * 16, teacher=pin)


def test_the_pairs_that_are_replayed_come_along(repo: Path) -> None:
    params = params_of(repo)
    params["students"]["oil"]["train"]["replay"] = {"pairs": "data/students/old/pairs", "share": 0.25}
    (repo / "params.yaml").write_text(yaml.safe_dump(params))
    git("commit", "--quiet", "--all", "-m", "replay")
    older = repo / "data" / "students" / "old" / "pairs" / "pairs.json"
    older.parent.mkdir(parents=True)
    older.write_text("{}")
    assert (ready() / "data" / "students" / "old" / "pairs" / "pairs.json").samefile(older)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"student": "../oil"}, "no workspace for student"),
        ({"key": "../../../../x"}, "no workspace for student"),
        ({"student": "water"}, "no student 'water'"),
        ({"base": "nowhere"}, "git knows no commit 'nowhere'"),
        ({"profile": "tiny"}, "no profile 'tiny'"),
        ({"teacher": NEW | {"colour": "red"}}, "unknown key students.oil.teacher.colour"),
    ],
)
def test_a_wrong_argument_is_one_line(repo: Path, changed: dict[str, Any], told: str) -> None:
    before = state_of(repo)
    with pytest.raises(UserError, match=told) as caught:
        ready(**changed)
    assert "\n" not in str(caught.value)
    assert state_of(repo) == before


def test_a_link_in_git_does_not_lead_out(repo: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    shutil.rmtree(repo / "data" / "sources" / "more")
    (repo / "data" / "sources" / "more").symlink_to("../../../outside")
    git("add", "--force", "data/sources/more")
    git("commit", "--quiet", "-m", "a link")
    (tmp_path / "outside" / "z.jpg").write_text("z")
    for there in (False, True):
        with pytest.raises(UserError, match="would lead out of the workspace"):
            ready()
        outside = repo / "data" / ".work" / "workspaces" / "outside"
        assert outside.exists() == there
        outside.mkdir(exist_ok=True)
    assert not list(outside.iterdir())


def test_outside_git(toy: Path) -> None:
    with pytest.raises(UserError, match="this is no git repository"):
        ready()


def test_below_the_root_of_git(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repo / "data")
    with pytest.raises(UserError, match="not at the root"):
        ready()


PREPARE = """
    import os, signal, sys
    from pathlib import Path
    from tasks import workspace
    def die(*args, **more):
        os.kill(os.getpid(), signal.SIGKILL)
    real = workspace.git
    if sys.argv[1] == "move":
        workspace.git = lambda *args, **more: die() if args[1] == "move" else real(*args, **more)
    elif sys.argv[1]:
        setattr(workspace, sys.argv[1], die)
    workspace.prepare(student="oil", key="{key}", base="HEAD", teacher=None, profile=None, inputs=None, start=None)
"""


def preparing(step: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(PREPARE).format(key=KEY), step]


@pytest.mark.parametrize("step", ["cache_folder", "move", "write_text", "_set_start", "_set_params", "carry"])
def test_a_kill_in_the_middle_of_making_it(repo: Path, step: str) -> None:
    before = state_of(repo)
    killed = subprocess.run(preparing(step), capture_output=True, text=True, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    space = ready()
    assert (space / "data" / "sources" / "a.jpg").exists()
    assert (space / ".dvc" / "config.local").exists()
    assert git("status", "--porcelain", cwd=space) == ""
    remove(space)
    assert not [path for path in space.parent.iterdir() if path.suffix != ".lock"]
    assert git("worktree", "list").count("\n") == 0
    assert state_of(repo) == before


def test_a_kill_while_git_works_which_goes_on(repo: Path) -> None:
    (repo / ".gitattributes").write_text("seed filter=slow\n")
    git("add", ".gitattributes")
    git("commit", "--quiet", "-m", "a slow file")
    git("config", "filter.slow.smudge", f"touch {repo}/hanging; sleep 600; cat")
    process = subprocess.Popen(preparing(""))
    wait_until((repo / "hanging").exists)
    orphans = psutil.Process(process.pid).children(recursive=True)
    assert orphans
    process.kill()
    process.wait()
    try:
        git("config", "filter.slow.smudge", "cat")
        space = ready()
        assert (space / "seed").read_text() == "1"
        made = files_of(space)
    finally:
        for orphan in reversed(orphans):
            with suppress(psutil.NoSuchProcess):  # it ends by itself when what it waits for is killed
                orphan.kill()
    for orphan in orphans:
        wait_until(lambda orphan=orphan: gone(orphan.pid))  # type: ignore[misc]
    assert files_of(space) == made
    assert git("status", "--porcelain", cwd=space) == ""


def test_the_lines_of_a_child_and_what_its_end_means(repo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    space = ready()
    run(space, "child", "0", "all is well", "with words")
    assert capfd.readouterr().out.splitlines() == ["working with words", "all is well"]
    with pytest.raises(StageFailed, match="^train: no room: free some$") as caught:
        run(space, "child", "1", "train: no room: free some")
    assert (caught.value.stage, caught.value.reason) == ("train", "no room: free some")
    with pytest.raises(UserError, match="^no student: add one$"):
        run(space, "child", "1", "understudy: no student: add one")
    with pytest.raises(TryAgain, match="^lineage: MLflow sleeps$"):
        run(space, "child", "75", "lineage: MLflow sleeps")
    with pytest.raises(UserError, match="ended by SIGKILL: run again"):
        run(space, "child", "kill")


RUN = """
    import sys
    from pathlib import Path
    from tasks.stage import interrupt_on_terminate
    from tasks.workspace import run
    interrupt_on_terminate()
    try:
        run(Path(sys.argv[1]), "child", "hang")
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_child_ends_with_its_parent(repo: Path, number: signal.Signals) -> None:
    space = ready()
    command = [sys.executable, "-c", textwrap.dedent(RUN), str(space)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: (space / "hanging").exists() and " " in (space / "hanging").read_text())
    child, below = (int(pid) for pid in (space / "hanging").read_text().split())
    try:
        parent.send_signal(number)
        out, _ = parent.communicate(timeout=60)
        wait_until(lambda: gone(child))
        assert ("interrupted" in out) == (number != signal.SIGKILL)
        if number != signal.SIGKILL:
            wait_until(lambda: gone(below))
    finally:
        if not gone(below):  # a plain `sleep` outlives a killed parent; a stage does not (tests/test_pipeline.py)
            os.kill(below, signal.SIGKILL)


def test_the_workspaces_own_code_runs(repo: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (repo / "flows").mkdir()
    (repo / "flows" / "__init__.py").touch()
    (repo / "flows" / "cli.py").write_text("import sys; print(__file__, *sys.argv[1:])")
    git("add", "flows")
    git("commit", "--quiet", "-m", "other code")
    space = ready()
    understudy(space, "run", "oil")
    assert capfd.readouterr().out == f"{space}/flows/cli.py run oil\n"
    code = "import flows, importlib.util as u; print(flows.__file__, 'site-packages' in u.find_spec('mlflow').origin)"
    env = environment(space)
    asked = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert asked.stdout == f"{space}/flows/__init__.py True\n", asked.stderr


def test_the_environment_of_a_child(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/of/a/hook")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow/mlflow.db")
    monkeypatch.delenv("UNDERSTUDY_MLFLOW", raising=False)
    env = environment(repo / "space")
    assert "GIT_DIR" not in env
    assert env["UNDERSTUDY_MLFLOW"] == f"{repo}/mlflow"
    assert env["UNDERSTUDY_ANSWERS"] == f"{repo}/data/.work/answers"
    assert env["MLFLOW_TRACKING_URI"] == f"sqlite:///{repo}/mlflow/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    monkeypatch.setenv("UNDERSTUDY_MLFLOW", "/else/where")
    env = environment(repo / "space")
    assert (env["MLFLOW_TRACKING_URI"], env["UNDERSTUDY_MLFLOW"]) == ("http://127.0.0.1:5000", "/else/where")


def test_a_commit_holds_two_files_and_is_made_once(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    git("config", "commit.gpgsign", "true")
    hook = repo / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    space = ready(teacher=NEW)
    branch = "retrain/oil/oil-painter-v2-01234567"
    with pytest.raises(UserError, match=r"dvc\.lock is missing"):
        commit(space, branch=branch, message="too early")
    (space / "dvc.lock").write_text(json.dumps({"schema": "2.0"}))
    (space / "seed").write_text("changed by nobody who should")
    (space / "stray").touch()
    before = state_of(repo)
    made = commit(space, branch=branch, message="oil: taught by Öl v2\n\nBecause.")
    assert git("diff", "--name-only", f"main..{made}").split() == ["dvc.lock", "params.yaml"]
    assert git("show", f"{branch}:params.yaml") == (space / "params.yaml").read_text().strip()
    assert git("log", "-1", "--format=%an <%ae>|%s%n%n%b|%P", branch) == (
        f"Understudy <understudy@localhost>|oil: taught by Öl v2\n\nBecause.|{git('rev-parse', 'main')}"
    )
    assert commit(space, branch=branch, message="again") == made
    # Work of somebody on top of it is no reason for another commit, and is not thrown away.
    on_top = git("commit-tree", f"{made}^{{tree}}", "-p", made, "-m", "a note")
    git("branch", "--force", branch, on_top)
    assert commit(space, branch=branch, message="again") == made
    assert git("rev-parse", branch) == on_top
    (space / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": {}}))
    second = commit(space, branch=branch, message="other outputs")
    assert second != made and git("rev-parse", branch) == second
    drop_branch(branch)
    drop_branch(branch)
    assert state_of(repo) == before


def test_a_commit_holds_the_start_too_and_nothing_else(repo: Path) -> None:
    for path in ("models/start/other/student.json", "models/code.py"):
        (repo / path).parent.mkdir(parents=True, exist_ok=True)
        (repo / path).write_text("{}")
        git("add", path)
    git("commit", "--quiet", "-m", "models")
    space = ready(start=START)
    (space / "dvc.lock").write_text("{}")
    (space / OWN.parent / "weights.safetensors").write_text("not for git")
    branch = "retrain/oil/x"
    made = commit(space, branch=branch, message="x")
    changed = git("diff", "--name-status", f"main..{made}").split()
    assert changed == ["A", "dvc.lock", "A", OWN.as_posix(), "M", "params.yaml"]
    assert json.loads(git("show", f"{branch}:{OWN}")) == START
    git("fsck", "--strict")
    # Merged, the next one of the same student changes that file.
    git("merge", "--quiet", branch)
    space = ready(start=START | {"weights_sha256": "b" * 64})
    (space / "dvc.lock").write_text("{}")
    made = commit(space, branch="retrain/oil/y", message="y")
    assert git("diff", "--name-status", f"main..{made}").split() == ["M", OWN.as_posix()]


def test_only_branches_of_retrains_are_touched(repo: Path) -> None:
    space = ready()
    (space / "dvc.lock").write_text("{}")
    before = state_of(repo)
    for wrong, told in (("main", "main is not ours"), ("retrain/a..b", "git check-ref-format"), ("-d", "git check")):
        for act in (lambda name: commit(space, branch=name, message="x"), drop_branch):
            with pytest.raises(UserError, match=told):
                act(wrong)
    git("branch", "retrain/mine")
    git("checkout", "--quiet", "retrain/mine")
    with pytest.raises(UserError, match="git branch: "):
        commit(space, branch="retrain/mine", message="x")
    drop_branch("retrain/mine")  # checked out: left alone
    git("checkout", "--quiet", "main")
    assert git("rev-parse", "retrain/mine") == git("rev-parse", "main")
    git("branch", "--delete", "retrain/mine")
    assert state_of(repo)["branch --list"] == before["branch --list"]


def test_nothing_but_a_workspace_is_removed(repo: Path) -> None:
    before = state_of(repo)
    for wrong in (repo, repo / "data", Path("data/.work/workspaces"), Path("data/.work/workspaces/..")):
        with pytest.raises(UserError, match="is no workspace"):
            remove(wrong)
    assert state_of(repo) == before


@pytest.mark.server
def test_a_run_in_a_workspace_takes_from_the_shared_cache(
    finished_toy: tuple[Path, str], capfd: pytest.CaptureFixture[str]
) -> None:
    repo = finished_toy[0]
    commit_toy(repo)
    (repo / "params.yaml").write_text((repo / "params.yaml").read_text() + "# being edited\n")
    before = state_of(repo)
    space = ready(teacher=NEW)
    understudy(space, "run", "oil", "--until", "curate")
    told = [line.split()[:2] for line in capfd.readouterr().out.splitlines()]
    assert told == [
        ["ingest", "restored"],
        ["exportability", "restored"],
        ["generate", "ran"],  # it is another teacher's
        ["curate", "ran"],
    ]
    assert (space / "data" / "students" / "oil" / "pairs" / "pairs.json").exists()
    assert not (space / "data" / "students" / "oil" / "student").exists()
    understudy(space, "run", "oil", "--until", "curate")
    assert capfd.readouterr().out == "oil: nothing has changed, nothing to do\n"
    (space / "mode").write_text("fail train")
    (space / "seed").write_text("2")
    with pytest.raises(StageFailed, match="^train: the toy is broken: mend it$"):
        understudy(space, "run", "oil")
    made = commit(space, branch="retrain/oil/x", message="x")
    assert git("diff", "--name-only", f"main..{made}").split() == ["dvc.lock", "params.yaml"]
    remove(space)
    drop_branch("retrain/oil/x")
    after = state_of(repo)
    cached = {name for state in (before, after) for name in state["files"] if name.startswith((".dvc/cache", "mlflow"))}
    for state in (before, after):
        state["files"] = {name: time for name, time in state["files"].items() if name not in cached}
    assert after == before


def test_the_until_of_a_run_is_a_stage(repo: Path) -> None:
    command = [sys.executable, "-m", "flows.cli", "run", "oil", "--until", "dreaming"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("understudy: oil has no stage 'dreaming'; it has: ingest, exportability, generate, ")
