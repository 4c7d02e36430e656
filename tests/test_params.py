"""params.yaml is strict: whatever is wrong is one line that names the key."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.errors import UserError
from tasks.params import check_files, load_params, parse_params


@pytest.fixture(scope="module")
def raw(repository: Path) -> Any:
    return yaml.safe_load((repository / "params.yaml").read_text())


def changed(raw: Any, key: str, value: Any) -> Any:
    """A copy with one value set, or with the key removed if the value is ...; the key's parts are joined by dots."""
    new = copy.deepcopy(raw)
    *path, last = key.split(".")
    place = new
    for part in path:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return new


def refusal(value: Any) -> str:
    with pytest.raises(UserError) as caught:
        parse_params(value)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("params.yaml: ")
    return line


def test_the_shipped_file_is_right(repository: Path) -> None:
    assert load_params(repository / "params.yaml").students


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("ingets", {}, "unknown key ingets"),
        ("ingest.foldr", "x", "unknown key ingest.foldr"),
        ("students.oil.train.stepz", 3, "unknown key students.oil.train.stepz"),
        ("students.oil.teacher.style_", "oil", "unknown key students.oil.teacher.style_"),
        ("ingest.seed", ..., "missing key ingest.seed"),
        ("students.oil.gate", ..., "missing key students.oil.gate"),
        ("students.oil.teacher.style", ..., "missing key students.oil.teacher.style"),
        ("exportability.max_partition", 1, "unknown key exportability.max_partition"),
        ("exportability.only_warn", ["max_speed"], "only_warn: no limit 'max_speed'; there are: max_partitions"),
        ("quantise.max_float_difference", 0.0, "quantise.max_float_difference: "),
        ("students.oil.sizes", ..., "missing key students.oil.sizes"),
        ("students.oil.sizes", [100], "students.oil.sizes.0: "),
        ("students.oil.sizes", [320, 320], "sizes: each once, and without pairs.size"),
        ("students.oil.sizes", [256], "sizes: each once, and without pairs.size"),
        ("students.oil.control", ..., "missing key students.oil.control"),
        ("students.oil.control.by", "hue", "students.oil.control.by: "),
        ("students.oil.control.baked", [0.5], "control.baked: there is no strength to bake"),
        ("students.oil.control", {"by": "strength", "baked": [1.0]}, "students.oil.control.baked.0: "),
        ("students.oil.control", {"by": "strength", "baked": [0.5, 0.5]}, "control.baked: a strength is named twice"),
        ("students.oil.control", {"by": "strength", "baked": []}, "control: quantise_aware.steps does not know a"),
        ("train.threads", "2", "train.threads: "),
        ("train.threads", 2.0, "train.threads: "),
        ("train.threads", True, "train.threads: "),
        ("train.threads", 0, "train.threads: "),
        ("benchmark.threads", [], "benchmark.threads: "),
        ("quantise.precisions.litert", ["fp32", "fp16"], "fp32 and int8 must be there"),
        ("quantise.precisions.litert", ["fp32", "int8", "int8"], "each precision once"),
        ("quantise.precisions.onnx", ["fp32", "int8", "w8a16"], "quantise.precisions.onnx.2: "),
        ("quantise.min_psnr_db", 0.0, "quantise.min_psnr_db: "),
        ("benchmark.targets", [], "benchmark.targets: "),
        ("benchmark.targets", ["local", "phone"], "a target is local, browser, ssh:user@host"),
        ("benchmark.targets", ["local", "local"], "a target is named twice"),
        ("students.oil.gate.target", "adb", "students.oil.gate.target adb is not among benchmark.targets (local)"),
        ("generate.cluster", "ray://head:10001", "generate.cluster: "),
        ("generate.gpus_per_actor", 2.0, "generate.gpus_per_actor: "),
        ("ingest.split.val", 0.7, "ingest.split.val: "),
        ("students.oil.task", "classify", "students.oil.task: "),
        ("students.oil.train.learning_rate", float("nan"), "students.oil.train.learning_rate: "),
        ("students.oil.train.crop", 512, "train.crop 512 is larger than pairs.size"),
        ("students.oil.pairs.occlude", 1.5, "students.oil.pairs.occlude: "),
        ("students.oil.pairs.expose", ..., "missing key students.oil.pairs.expose"),
        ("students.oil.train.camera", ..., "missing key students.oil.train.camera"),
        ("students.oil.train.camera.noise", -0.1, "students.oil.train.camera.noise: "),
        ("students.oil.train.camera.fog", 0.5, "unknown key students.oil.train.camera.fog"),
        ("students.oil.train.losses.pixel", -1.0, "students.oil.train.losses.pixel: "),
        ("students", {}, "students: "),
        ("evaluate", None, "evaluate: "),
    ],
)
def test_one_line_names_the_key(raw: Any, key: str, value: Any, told: str) -> None:
    assert told in refusal(changed(raw, key, value))


def test_an_unknown_kind_of_teacher(raw: Any) -> None:
    line = refusal(changed(raw, "students.oil.teacher.kind", "oracle"))
    assert "students.oil.teacher" in line
    assert "oracle" in line


def test_a_sha256_that_is_none(raw: Any) -> None:
    teacher = {"kind": "onnx", "name": "n", "version": 1, "path": "x.onnx", "sha256": "abc"}
    assert "students.oil.teacher.sha256" in refusal(changed(raw, "students.oil.teacher", teacher))


@pytest.mark.parametrize("name", ["Oil", "../x", "a b", "a.b", ""])
def test_a_student_name_that_is_no_plain_word(raw: Any, name: str) -> None:
    assert f"name {name!r}: use small letters" in refusal({**raw, "students": {name: raw["students"]["oil"]}})


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_a_file_that_is_no_mapping(value: Any) -> None:
    assert "top level" in refusal(value)


def test_a_file_that_is_not_yaml(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("a: [1\nb: {")
    with pytest.raises(UserError, match="is not YAML") as caught:
        load_params(path)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run this from the repository's root"):
        load_params(tmp_path / "params.yaml")


def test_an_unknown_student_is_told_the_names(repository: Path) -> None:
    with pytest.raises(UserError, match="there are: oil, sketch"):
        load_params(repository / "params.yaml").student("watercolour")


def test_a_misspelt_key_is_named_rather_than_the_one_it_was_meant_to_be(raw: Any) -> None:
    wrong = changed(changed(raw, "generate.shard_size", ...), "generate.shard_sze", 16)
    assert "unknown key generate.shard_sze (and 1 more)" in refusal(wrong)


def test_a_picture_model_is_told_what_to_do(raw: Any) -> None:
    caps = {"calls_per_minute": 60.0, "max_calls": 1, "price_per_call": 0.1, "max_cost": 1.0}
    teacher = {"kind": "genai", "name": "a", "version": 1, "model": "gemini", "call": {}, **caps}
    told = refusal(changed(raw, "students.oil.teacher", teacher))
    assert told.startswith("params.yaml: students.oil.teacher.call: ") and "`prompt` is missing" in told


def test_paths_that_lead_nowhere_are_refused_by_key(raw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "start").mkdir()
    here = changed(changed(raw, "ingest.folder", "photos"), "students.oil.init", "start")
    here = changed(here, "video.clips", "photos")
    here = changed(here, "students.oil.train.replay.pairs", "start")
    check_files(parse_params(here), "oil")
    teacher = {"kind": "onnx", "name": "a", "version": 1, "path": "no.onnx", "sha256": "a" * 64}
    model = {"kind": "diffusers", "name": "a", "version": 1, "model": "no/where", "sha256": "a" * 64, "call": {}}
    for key, value, told in (
        ("ingest.folder", "no", "ingest.folder: no folder at no"),
        ("video.clips", "no", "video.clips: no folder at no"),
        ("students.oil.init", "no", "students.oil.init: no folder at no"),
        ("students.oil.train.replay.pairs", "no", "students.oil.train.replay.pairs: no folder at no"),
        ("students.oil.teacher", teacher, "students.oil.teacher.path: nothing lies at no.onnx"),
        ("students.oil.teacher", model, "students.oil.teacher.model: nothing lies at no/where"),
    ):
        with pytest.raises(UserError, match=told):
            check_files(parse_params(changed(here, key, value)), "oil")
    check_files(parse_params(changed(here, "students.oil.init", "data/students/sketch/student")), "oil")
    check_files(parse_params(changed(here, "students.oil.teacher", model | {"revision": "0" * 40})), "oil")  # the hub's


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"quantil": 0.9}, r"curate\.limits\.grid: a limit is a number, \{quantile: 0\.99\}, .* or null, got"),
        ("high", r"curate\.limits\.grid: a limit is a number"),
        (True, r"curate\.limits\.grid: a limit is a number"),
        (-1, r"curate\.limits\.grid\..*greater than or equal to 0"),
        ({"quantile": 1.5}, r"curate\.limits\.grid\..*less than 1"),
        ({"spread": 6}, r"missing key curate\.limits\.grid\.spread\.least"),
    ],
)
def test_a_limit_of_another_form_is_refused(raw: Any, limit: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_params(changed(raw, "curate.limits.grid", limit))


def test_limits_of_all_forms_and_a_file_that_knows_faces(
    raw: Any, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    for limit in (None, 2, 0.5, {"quantile": 0.99}, {"spread": 6, "least": 0}):
        parse_params(changed(raw, "curate.limits.grid", limit))
    faces = {"kind": "onnx", "path": "no/faces.onnx", "sha256": "0" * 64}
    with pytest.raises(UserError, match=r"curate\.faces\.path: no file at no/faces\.onnx"):
        check_files(parse_params(changed(raw, "curate.faces", faces)), "oil")
