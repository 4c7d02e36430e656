"""The diffusion pipeline of our own: its arithmetic and training in small, and the weights that are in the box."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from models.errors import UserError
from models.teachers import load_teacher
from models.teachers.folders import folder_sha256
from models.teachers.pinned import places
from models.teachers.restyler import CHANGE_SCALE, RestylePipeline, network_input, new_pipeline, new_unet
from tasks import restyler_sheet, train_restyler
from tasks.params import parse_params

REPOSITORY = Path(__file__).parents[1]
SHIPPED = REPOSITORY / "models/teachers/weights/restyler"
WIDTHS = (8, 16)


@pytest.fixture
def pipeline() -> Any:
    torch.manual_seed(0)
    made = new_pipeline(new_unet(2, WIDTHS), ["oil", "ink"])
    made.set_progress_bar_config(disable=True)
    return made


def photo(height: int = 40, width: int = 52) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def noise() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_pictures_keep_their_size_whatever_it_is(pipeline: Any) -> None:
    (made,) = pipeline(photo(), "oil", generator=noise()).images
    assert made.size == (52, 40)
    array = pipeline(photo(33, 21), "ink", generator=noise(), output_type="np").images
    assert array.shape == (1, 33, 21, 3) and 0 <= array.min() <= array.max() <= 1


def test_style_strength_and_seed_decide(pipeline: Any) -> None:
    def made(**changed: Any) -> np.ndarray:
        said = {"style": "oil", "generator": noise(), "num_inference_steps": 2} | changed
        return np.asarray(pipeline(photo(), output_type="np", **said).images)

    base = made()
    np.testing.assert_array_equal(made(), base)
    for changed in (
        {"style": "ink"},
        {"strength": 0.5},
        {"generator": noise().manual_seed(4)},
        {"num_inference_steps": 3},
    ):
        assert np.abs(made(**changed) - base).max() > 1e-4, changed


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"style": "chalk"}, "no style 'chalk'; there are: oil, ink"),
        ({"style": "oil", "strength": 1.5}, "strength 1.5 is not between 0 and 1"),
        ({"style": "oil", "num_inference_steps": 0}, "num_inference_steps 0 is below 1"),
    ],
)
def test_what_cannot_be(pipeline: Any, said: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        pipeline(photo(), **said)


def test_a_network_that_knows_the_change_is_followed_in_a_straight_line(pipeline: Any) -> None:
    """The network's answer is replaced by a known change: every number of steps finds it, halfway being halfway."""
    change = 0.3
    seen: list[tuple[float, torch.Tensor]] = []

    def knows(said: torch.Tensor, time: Any, class_labels: torch.Tensor) -> Any:
        noisy = torch.nn.functional.pixel_shuffle(said[:, :12], 2)
        seen.append((float(time) / 1000, noisy))
        true = torch.full_like(noisy, change * CHANGE_SCALE)
        return type("Answer", (), {"sample": torch.nn.functional.pixel_unshuffle(true, 2)})

    pipeline.unet.forward = knows
    grey = Image.fromarray(np.full((32, 32, 3), 100, np.uint8))
    for steps in (1, 2, 5):
        seen.clear()
        made = pipeline(grey, "oil", generator=noise(), num_inference_steps=steps, output_type="np").images
        np.testing.assert_allclose(made, 100 / 255 + change / 2, atol=1e-4)  # in [-1,1] a change is twice as large
        assert [round(at, 4) for at, _ in seen] == [round(1 - step / steps, 4) for step in range(steps)]
        for at, noisy in seen:
            torch.testing.assert_close(noisy, torch.lerp(torch.tensor(change * CHANGE_SCALE), seen[0][1], at))


def test_the_network_sees_noise_photo_and_strength() -> None:
    noisy, seen = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    said = network_input(noisy, seen, torch.tensor([0.25, 1.0]))
    assert said.shape == (2, 25, 4, 4)
    torch.testing.assert_close(torch.nn.functional.pixel_shuffle(said[:, :12], 2), noisy)
    torch.testing.assert_close(torch.nn.functional.pixel_shuffle(said[:, 12:24], 2), seen)
    assert said[0, 24].unique().tolist() == [0.25] and said[1, 24].unique().tolist() == [1.0]


def test_it_is_a_teacher(pipeline: Any, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path / "model")
    sha256 = folder_sha256(tmp_path / "model")
    pin = {"kind": "diffusers", "name": "oil-painter", "version": 2, "model": str(tmp_path / "model"), "sha256": sha256}
    call = {"style": "ink", "strength": 1.0, "num_inference_steps": 2}
    teacher = load_teacher(pin | {"call": call, "scheduler": "", "size": 0, "dtype": "float32"})
    pictures = np.stack([np.asarray(photo(64, 64)), 255 - np.asarray(photo(64, 64))])
    together = teacher(pictures, [1, 2])
    assert together.shape == pictures.shape
    np.testing.assert_allclose(teacher(pictures[1:], [2])[0], together[1], atol=1e-4)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training in miniature, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"SIZE": 64, "CROP": 32, "BATCH": 2, "CROPS_A_PHOTO": 1, "COLLAGES": 1, "PROCEDURAL": 2}.items():
        monkeypatch.setattr(train_restyler, name, value)
    for name, answer in {"new_unet": lambda styles: new_unet(styles, WIDTHS)}.items():
        monkeypatch.setattr(f"models.teachers.restyler.{name}", answer)
    photos = train_restyler.crops(0)
    monkeypatch.setattr(train_restyler, "painted", lambda seed: (photos, np.stack([photos[:, ::-1]] * 3, axis=1)))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


def test_training_that_was_stopped_ends_as_one_that_was_not(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    train_restyler.train(Path("whole"), 6, None, 0)
    monkeypatch.setattr(train_restyler, "CHECKPOINT_S", 0.0)
    take, taken = train_restyler.take_step, []

    def stop(*told: Any) -> None:
        taken.append(told)
        if len(taken) == 5:
            raise KeyboardInterrupt
        take(*told)

    monkeypatch.setattr(train_restyler, "take_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train_restyler.train(Path("stopped"), 6, None, 0)
    assert not Path("stopped").exists()
    monkeypatch.setattr(train_restyler, "take_step", take)
    train_restyler.train(Path("stopped"), 6, None, 0)
    whole, stopped = weights(Path("whole")), weights(Path("stopped"))
    assert whole.keys() == stopped.keys() and all(torch.equal(whole[name], stopped[name]) for name in whole)
    assert whole["conv_in.weight"].dtype == torch.float16
    train_restyler.train(Path("further"), 1, Path("whole"), 0)
    assert Path("further/model_index.json").exists()
    with pytest.raises(UserError, match="no restyler to start from"):
        train_restyler.train(Path("further"), 1, Path("nowhere"), 0)


def test_the_pictures_it_learns_from() -> None:
    photos = train_restyler.photographs()
    assert len(photos) == 9
    made = train_restyler.procedural(np.random.default_rng(0))
    assert made.shape == (256, 256, 3) and made.std() > 5


@pytest.fixture(scope="module")
def shipped() -> Any:
    pipeline: Any = RestylePipeline
    found = pipeline.from_pretrained(SHIPPED, use_safetensors=True, local_files_only=True)
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture(scope="module")
def unseen() -> np.ndarray:
    """A part of a photograph that the training left out."""
    return restyler_sheet.held_out(1)[0]


def test_the_pin_in_the_box_is_the_one_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    raw = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    before = raw["students"]["oil"]["teacher"]
    pin = yaml.safe_load((SHIPPED / "pin.yaml").read_text())
    assert (pin["name"], pin["version"]) == (before["name"], before["version"] + 1)
    raw["students"]["oil"]["teacher"] = pin
    (place,) = places(parse_params(raw).student("oil").teacher.model_dump())
    assert place.found()[1] == pin["sha256"]
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*")) < 10e6
    assert pin["call"]["style"] in train_restyler.STYLES


@pytest.mark.parametrize("style", train_restyler.STYLES)
def test_the_styles_look_like_the_ones_named(shipped: Any, unseen: np.ndarray, style: str) -> None:
    made = restyler_sheet.restyled(shipped, unseen, style, 1.0)
    wanted = dict(zip(train_restyler.STYLES, train_restyler.paint(unseen), strict=True))
    near = {name: restyler_sheet.psnr(made, at) for name, at in wanted.items()}
    assert max(near, key=lambda name: near[name]) == style
    assert near[style] > restyler_sheet.psnr(unseen, wanted[style]) + 2


def test_its_strength_works_between_0_and_1(shipped: Any, unseen: np.ndarray) -> None:
    made = [restyler_sheet.restyled(shipped, unseen, "oil", strength) for strength in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert restyler_sheet.psnr(made[0], unseen) > 30
    change = [np.abs(each.astype(int) - unseen).mean() for each in made]
    assert change == sorted(change) and change[-1] > 4 * change[0]
    halfway = (made[0].astype(float) + made[-1]) / 2
    assert restyler_sheet.psnr(made[2], halfway) > 24


@pytest.mark.parametrize("style", train_restyler.STYLES)
def test_it_leaves_no_grid_and_no_grain_on_what_is_plain(shipped: Any, style: str) -> None:
    for grey in (60, 128, 220):
        made = restyler_sheet.restyled(shipped, np.full((128, 128, 3), grey, np.uint8), style, 1.0).astype(float)
        inner = made[16:-16, 16:-16]
        assert inner.std(axis=(0, 1)).max() < 6
        places = [inner[y::2, x::2].mean(axis=(0, 1)) for y in range(2) for x in range(2)]  # of the fold
        assert np.ptp(places, axis=0).max() < 1.5
