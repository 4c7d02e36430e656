"""flows -> tasks -> models, and one module each for Prefect's folder, MLflow and DVC."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ALLOWED = {"flows": {"flows", "tasks", "models"}, "tasks": {"tasks", "models"}, "models": {"models"}}
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def imports(path: Path) -> Iterator[str]:
    """The top-level name of every import in a file, those inside functions too; and of `python -m X` in a list."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield (node.module or "").partition(".")[0]


def modules(repository: Path) -> Iterator[tuple[str, Path]]:
    for folder in ALLOWED:
        for path in sorted((repository / folder).rglob("*.py")):
            yield folder, path


def importers(repository: Path, package: str) -> set[str]:
    return {path.relative_to(repository).as_posix() for _, path in modules(repository) if package in imports(path)}


def test_one_way_only(repository: Path) -> None:
    for folder, path in modules(repository):
        wrong = (set(imports(path)) & set(ALLOWED)) - ALLOWED[folder]
        assert not wrong, f"{path} imports {wrong}"


def test_prefect_only_in_flows(repository: Path) -> None:
    assert {Path(path).parts[0] for path in importers(repository, "prefect")} == {"flows"}


def test_mlflow_and_dvc_in_one_module_each(repository: Path) -> None:
    # The doctor imports every tool by name, to see whether it imports.
    assert importers(repository, "mlflow") == {"tasks/mlflow_client.py"}
    assert importers(repository, "dvc") == {"tasks/pipeline.py"}


def test_ray_on_both_ends_of_the_cluster_only(repository: Path) -> None:
    # Not in the stage's own process, which it could end (tasks/cluster.py).
    assert importers(repository, "ray") == {"tasks/cluster_driver.py", "tasks/cluster_actor.py"}


def test_no_pickle(repository: Path) -> None:
    # One takes NVIDIA's pickles apart, and loads none.
    assert {path for package in PICKLES for path in importers(repository, package)} == {
        "models/teachers/stylegan2/pickles.py"
    }


def test_the_mlflow_folder_does_not_shadow_the_package(repository: Path) -> None:
    assert not list((repository / "mlflow").rglob("*.py"))
    code = "import importlib.util as u; print(u.find_spec('mlflow').origin)"
    found = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert "site-packages" in found.stdout


def test_the_command_line_starts_without_prefect_mlflow_and_torch() -> None:
    code = "import sys, flows.cli; print([name for name in ('prefect', 'mlflow', 'torch') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
