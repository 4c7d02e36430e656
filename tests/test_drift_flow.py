"""flows/drift.py on real Prefect and MLflow: drifted pictures start a retrain, once; histograms ask for photos."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from retrain_toy import kinds, make_git_toy
from scenes import scene
from servers import prefect_server
from test_drift import darker, make_recent, make_training, same

from models.errors import UserError
from tasks.features import centre_square, histograms, plain_features
from tasks.mlflow_client import connected

pytestmark = [pytest.mark.server, pytest.mark.slow]  # a whole retrain
WIDE: dict[str, int] = {"width": 160, "height": 128}  # large enough for the repository's params.yaml
TRAINING = 40


@pytest.fixture(scope="module", autouse=True)
def _prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

    with prefect_server(tmp_path_factory.mktemp("prefect")) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", url)
        with temporary_settings({PREFECT_API_URL: url, PREFECT_LOGGING_TO_API_ENABLED: False}):
            yield


@pytest.fixture(scope="module")
def _trained(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A git toy with training inputs."""
    toy = make_git_toy(tmp_path_factory.mktemp("drift"), repository)
    make_training(toy, TRAINING, **WIDE)
    return toy


@pytest.fixture
def toy(_trained: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, without recent inputs; what MLflow holds stays from test to test."""
    monkeypatch.chdir(_trained)
    yield _trained
    shutil.rmtree(_trained / "data/recent", ignore_errors=True)


def noted() -> dict[str, object]:
    with connected() as client:
        found: dict[str, object] = json.loads(client.get_registered_model("student.oil").tags["drift"])
        return found


def test_no_folder_is_no_failure(toy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from flows.drift import drift

    assert drift() == []
    assert "no recent inputs" in capfd.readouterr().out
    with pytest.raises(UserError, match="no student 'coal'"):
        drift("coal")


def test_drifted_histograms_say_what_to_collect_and_retrain_nothing(
    toy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from flows.drift import drift

    squares = [centre_square(darker(scene(seed, **WIDE)), 256) for seed in range(3000, 3030)]
    (toy / "data/recent").mkdir()
    (toy / "data/recent/phone.json").write_text(json.dumps(histograms(plain_features(squares), 256)))
    (found,) = drift("oil")
    assert found.drifted and found.kind == "histograms"
    assert "put photos that look like what has changed into data/recent" in capfd.readouterr().out
    assert noted()["told"] == found.told and noted()["at"]
    assert kinds() == []


def test_drifted_pictures_retrain_the_student_once(toy: Path) -> None:
    from flows.drift import drift

    make_recent(toy / "data", darker, 30, **WIDE)
    (found,) = drift("oil")
    assert found.drifted and "darker" in found.told
    after = kinds()
    assert after[-1] == "promoted"
    (again,) = drift("oil")
    assert again.digest == found.digest
    assert kinds() == after


def test_a_student_that_cannot_be_compared_is_told_after_the_others(toy: Path) -> None:
    from flows.drift import drift

    make_recent(toy / "data", same, 30, **WIDE)
    listed = toy / "data/inputs/inputs.jsonl"
    listed.rename(listed.with_suffix(".away"))
    try:
        with pytest.raises(UserError, match=r"oil: missing data/inputs/inputs.jsonl"):
            drift()
    finally:
        listed.with_suffix(".away").rename(listed)
