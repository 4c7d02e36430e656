"""Models from a hub at a pinned revision, and in folders (models/teachers/folders.py, pinned.py)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub import REVISION, hub

from models.errors import TryAgain, UserError
from models.teachers.folders import fetch, folder_sha256
from models.teachers.pinned import Place, places


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "owner" / "painter"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "unet" / "weights.safetensors").write_bytes(b"weights")
    (folder / "unet" / "weights.bin").write_bytes(b"a pickle")
    (folder / "README.md").write_text("read me")
    return folder


@pytest.fixture
def served(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The files that were asked for of a hub that has the model."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with hub(model.parent.parent) as (address, asked):
        point_to(address, monkeypatch)
        yield asked


def point_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_ENDPOINT does, which is read at import."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    template = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + template)


def test_a_snapshot_has_what_is_loaded_and_no_pickle(model: Path, served: list[str]) -> None:
    folder = fetch("owner/painter", REVISION)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert names == ["model_index.json", "unet/weights.safetensors"]
    assert not any(name.endswith(".bin") for name in served)
    assert folder_sha256(folder) == folder_sha256(model)
    place = Place(key="model", where="owner/painter", sha256=folder_sha256(model), revision=REVISION)
    assert place.check("painter v1") == folder
    assert sorted(set(served)) == names


def test_what_is_in_the_cache_needs_no_hub(model: Path, served: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    there = fetch("owner/painter", REVISION)
    point_to("http://127.0.0.1:9", monkeypatch)
    assert fetch("owner/painter", REVISION) == there


@pytest.mark.parametrize(
    ("name", "revision", "told"),
    [
        ("owner/sculptor", REVISION, "owner/sculptor at 0123456789ab cannot be had from the hub: .*"),
        ("owner/painter", "f" * 40, "owner/painter at ffffffffffff cannot be had from the hub: .*"),
        ("owner/painter/or/so", REVISION, "cannot be had from the hub"),
        ("owner/painter", "", "no folder at owner/painter; of a model on the hub, name the revision"),
    ],
)
def test_what_the_hub_has_not(served: list[str], name: str, revision: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        fetch(name, revision)
    assert "\n" not in str(caught.value)


def test_no_hub(free_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    point_to(f"http://127.0.0.1:{free_port}", monkeypatch)
    with pytest.raises(TryAgain, match="is no folder here, and the hub does not answer"):
        fetch("owner/painter", REVISION)


def test_every_byte_that_is_loaded_counts(model: Path) -> None:
    before = folder_sha256(model)
    (model / "README.md").write_text("other words")
    (model / ".hidden.json").write_text("{}")
    assert folder_sha256(model) == before
    (model / "unet" / "weights.safetensors").write_bytes(b"Weights")
    changed = folder_sha256(model)
    (model / "unet" / "weights.safetensors").rename(model / "weights.safetensors")
    assert len({before, changed, folder_sha256(model)}) == 3
    with pytest.raises(UserError, match=f"teacher a v1: .* has sha256 .* expected {before}: restore it"):
        Place(key="model", where=str(model), sha256=before).check("a v1")


def test_the_places_of_a_block() -> None:
    assert places({"kind": "painter", "style": "oil"}) == []
    assert [place.key for place in places({"kind": "onnx", "path": "a.onnx", "sha256": "0"})] == ["path"]
    control = {"model": "b", "sha256": "1", "revision": REVISION}
    both = places({"kind": "diffusers", "model": "a", "sha256": "0", "control": control})
    assert [(place.key, place.where, place.revision) for place in both] == [
        ("model", "a", ""),
        ("control.model", "b", REVISION),
    ]
