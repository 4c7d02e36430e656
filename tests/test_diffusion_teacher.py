"""The `diffusers` teacher on real pipelines with small random networks, loaded offline as from a hub's folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_diffusers import save

from models.errors import UserError
from models.teachers import load_teacher
from models.teachers.digests import teacher_digest
from models.teachers.folders import folder_sha256

SIZE = 64
SAID = {"prompt": "oil", "strength": 0.6, "num_inference_steps": 4, "guidance_scale": 3.0}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for each kind of pipeline."""
    root = tmp_path_factory.mktemp("models")
    for kind in ("img2img", "text", "instruct", "prude", "controlnet"):
        save(root / kind, kind)
    return root


def block(folder: Path, **changed: Any) -> dict[str, Any]:
    pin = {"kind": "diffusers", "name": "painted", "version": 1, "model": str(folder), "sha256": folder_sha256(folder)}
    return pin | {"call": SAID, "scheduler": "", "size": 0, "dtype": "float32"} | changed


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    across = np.linspace(0, 255, SIZE)
    ramp = np.stack([np.tile(across, (SIZE, 1)), np.tile(across[:, None], (1, SIZE)), np.full((SIZE, SIZE), 90)], -1)
    return np.stack([ramp, ramp[::-1], 255 - ramp]).astype(np.uint8)


def test_a_sample_depends_on_its_picture_and_seed_alone(models: Path, pictures: np.ndarray) -> None:
    teacher = load_teacher(block(models / "img2img"))
    together = teacher(pictures, [5, 6, 7])
    assert together.shape == pictures.shape and together.dtype == np.float32
    assert together.min() >= 0 and together.max() <= 1
    np.testing.assert_array_equal(teacher(pictures, [5, 6, 7]), together)
    for place in range(3):
        alone = teacher(pictures[place : place + 1], [5 + place])[0]
        np.testing.assert_allclose(alone, together[place], atol=1e-3)  # the last bits, no more
    assert np.abs(teacher(pictures, [8, 9, 10]) - together).mean() > 0.01


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("img2img", {"call": SAID | {"strength": 0.9}}),
        ("img2img", {"call": SAID | {"prompt": "ink", "negative_prompt": "oil"}}),
        ("img2img", {"call": SAID | {"guidance_scale": 7.0}}),
        ("img2img", {"scheduler": "LCMScheduler"}),
        ("img2img", {"size": 2 * SIZE}),
        ("img2img", {"dtype": "bfloat16"}),
    ],
)
def test_what_decides_the_output_is_in_the_digest(
    models: Path, pictures: np.ndarray, kind: str, changed: dict[str, Any]
) -> None:
    one, other = load_teacher(block(models / kind)), load_teacher(block(models / kind, **changed))
    assert one.digest != other.digest and other.digest == teacher_digest(block(models / kind, **changed))
    made = other(pictures, [1, 2, 3])
    assert made.shape == pictures.shape and np.isfinite(made).all()
    assert np.abs(one(pictures, [1, 2, 3]) - made).max() > 1e-3


def test_where_it_lies_is_not(models: Path, pictures: np.ndarray, tmp_path: Path) -> None:
    moved = shutil.copytree(models / "img2img", tmp_path / "moved")
    (moved / "README.md").write_text("not loaded")
    one, other = load_teacher(block(models / "img2img")), load_teacher(block(moved))
    assert one.digest == other.digest
    np.testing.assert_array_equal(one(pictures, [1, 2, 3]), other(pictures, [1, 2, 3]))


def test_a_pipeline_that_begins_from_text_is_given_the_picture(models: Path, pictures: np.ndarray) -> None:
    call = SAID | {"strength": 0.3}
    found = load_teacher(block(models / "text", call=call))
    expected = load_teacher(block(models / "img2img", call=call))
    np.testing.assert_array_equal(found(pictures, [1, 2, 3]), expected(pictures, [1, 2, 3]))


def test_instructions(models: Path, pictures: np.ndarray) -> None:
    call = {"prompt": "oil", "num_inference_steps": 3, "guidance_scale": 3.0, "image_guidance_scale": 1.5}
    teacher = load_teacher(block(models / "instruct", call=call))
    together = teacher(pictures, [5, 6, 7])
    assert np.abs(teacher(pictures[1:2], [6])[0] - together[1]).max() < 1e-3
    with pytest.raises(UserError, match="takes no 'strength' in its call; it takes: .*image_guidance_scale"):
        load_teacher(block(models / "instruct", call=call | {"strength": 0.5}))


def test_a_controlnet_is_shown_the_picture_or_its_edges(models: Path, pictures: np.ndarray) -> None:
    made = []
    for shows in ("picture", "edges"):
        place = models / "controlnet"
        control = {"model": str(place), "revision": "", "sha256": folder_sha256(place), "shows": shows}
        teacher = load_teacher(block(models / "text", control=control))
        made.append(teacher(pictures, [1, 2, 3]))
    made.append(load_teacher(block(models / "text"))(pictures, [1, 2, 3]))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(made[one] - made[other]).max() > 1e-3


def test_a_picture_that_the_safety_checker_refuses_is_no_black_one(models: Path, pictures: np.ndarray) -> None:
    assert np.isnan(load_teacher(block(models / "prude"))(pictures, [1, 2, 3])).all()


def pickle_only(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "diffusion_pytorch_model.bin")


def other_class(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "Mine"}))


def other_library(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"unet": ["antigravity", "Flying"]}))


def no_weights(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0nonsense")


@pytest.mark.parametrize(
    ("spoil", "changed", "told"),
    [
        (pickle_only, {}, "unet/diffusion_pytorch_model.bin is a pickle, which runs code .*save_pretrained"),
        (other_class, {}, "its pipeline 'Mine' is not one of diffusers"),
        (other_library, {}, "diffusers cannot load it: antigravity is not one of the libraries"),
        (no_weights, {}, "diffusers cannot load it: "),
        (lambda folder: (folder / "model_index.json").unlink(), {}, "holds no pipeline of diffusers"),
        (None, {"scheduler": "Sheduler"}, "diffusers has no scheduler 'Sheduler'"),
        (None, {"scheduler": "UNet2DModel"}, "diffusers has no scheduler"),
        (None, {"call": SAID | {"strenght": 0.5}}, "takes no 'strenght' in its call; it takes: .*strength"),
        (None, {"call": SAID | {"generator": 1}}, "takes no 'generator'"),
        (None, {"sha256": "0" * 64}, "has sha256 .* expected 000000.*: restore it or change the pin"),
        (None, {"model": "no/where"}, "no folder at no/where; .* name the revision"),
    ],
)
def test_what_is_wrong_is_one_line(models: Path, tmp_path: Path, spoil: Any, changed: Any, told: str) -> None:
    folder = shutil.copytree(models / "img2img", tmp_path / "model")
    if spoil:
        spoil(folder)
    with pytest.raises(UserError, match=told) as caught:
        load_teacher(block(folder) | changed)
    assert "\n" not in str(caught.value)
