"""splits: each kind of leak is planted and found, with both origins named; an honest split passes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scenes import scene
from skimage import data

from models.errors import UserError
from tasks import curate
from tasks.cutouts import fit
from tasks.files import read_json
from tasks.ingest import INPUTS
from tasks.panel_inputs import PanelInput, write_panel
from tasks.params import load_params
from tasks.pictures import Pixels, perceptual_hashes, pixel_digest, write_input
from tasks.records import SPLITS, Input, Verdict, write_records
from tasks.splits import check_splits, nearest_bits, tell
from tasks.stage_params import Splits

SIZE = 64
FOLDER = Path("pairs")
RANDOM = np.random.default_rng(0)


def jpeg(pixels: Pixels, quality: int = 60) -> Pixels:
    import io

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


class Made:
    """data/inputs and pairs with one crop of each input, to which leaks are added."""

    def __init__(self) -> None:
        self.inputs: list[Input] = []
        self.verdicts: list[Verdict] = []
        self.crops: dict[str, list[Pixels]] = {side: [] for side in SPLITS}
        (INPUTS / "images").mkdir(parents=True)
        FOLDER.mkdir()

    def add(self, name: str, side: Any, pixels: Pixels, crop: Pixels | None = None, **changed: Any) -> Input:
        digest = pixel_digest(pixels)
        write_input(INPUTS / "images", digest, pixels)
        height, width = pixels.shape[:2]
        fields = {"origin": f"folder:{name}", "licence": "CC0", "clip": "", "group": name, "split": side} | changed
        one = Input(digest=digest, width=width, height=height, **fields)
        self.inputs.append(one)
        self.pair(one, side, scene(1000 + len(self.inputs), SIZE, SIZE) if crop is None else crop)
        return one

    def pair(self, one: Input, side: Any, crop: Pixels) -> None:
        row = len(self.crops[side])
        self.crops[side].append(crop)
        pair = f"pair{len(self.verdicts)}"
        self.verdicts.append(Verdict(pair=pair, split=side, rule="", reason="", index=row, input=one.digest, seed=0))

    def check(self, **changed: Any) -> dict[str, Any]:
        write_records(INPUTS / "inputs.jsonl", {one.digest: one for one in self.inputs}.values())
        write_records(FOLDER / "kept.jsonl", self.verdicts)
        for side, crops in self.crops.items():
            np.save(FOLDER / f"{side}.inputs.npy", np.stack(crops))
        plain = {"near_duplicate_bits": 10, "nearest": 2, "min_fit": 0.93, "min_same_face": 0.9, "crop_bits": 2}
        return check_splits(
            FOLDER, Splits.model_validate(plain | {"faces": {"kind": "gradients", "blur": 1.5}} | changed)
        )


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """An honest split: photographs that have nothing to do with one another, some on each side."""
    monkeypatch.chdir(tmp_path)
    found = Made()
    photos = {"chelsea": data.chelsea(), "coffee": data.coffee(), "rocket": data.rocket()}
    for (name, pixels), side in zip(photos.items(), SPLITS, strict=True):
        found.add(f"{name}.png", side, np.asarray(Image.fromarray(pixels).resize((300, 225))))
    for seed, side in enumerate(("train", "train", "train", "val", "test")):
        found.add(f"scene{seed}.png", side, scene(seed, 200, 160))
    return found


def pixels_of(made: Made, name: str) -> Pixels:
    digest = next(one.digest for one in made.inputs if one.origin == f"folder:{name}")
    return np.asarray(Image.open(INPUTS / "images" / f"{digest}.png"))


def test_an_honest_split_passes_and_says_how_near_it_came(made: Made) -> None:
    found = made.check()
    assert found == read_json(FOLDER / "splits.json")
    assert found["photos"] == {"train": 4, "val": 2, "test": 2}
    assert 0 < found["nearest"]["cutout"]["fit"] < 0.93
    assert found["nearest"]["crop_bits"] > 2
    assert found["nearest"]["face"] is None  # there is no face in any of them
    assert found["panel"] is None
    assert "nothing is on two sides of 4 train, 2 val, 2 test" in tell(found)
    first = (FOLDER / "splits.json").read_bytes()
    made.check()
    assert (FOLDER / "splits.json").read_bytes() == first


def test_one_input_on_two_sides(made: Made) -> None:
    made.pair(made.inputs[0], "test", scene(77, SIZE, SIZE))
    with pytest.raises(UserError, match=r"chelsea\.png \(te.* and folder:chelsea\.png \(tr.* are the same picture"):
        made.check()


def test_frames_of_one_clip_on_two_sides_whatever_their_groups_say(made: Made) -> None:
    for seed, side in ((50, "train"), (51, "val")):
        made.add(f"a.mp4#{seed}.000", side, scene(seed, 200, 160))
    with pytest.raises(UserError, match=r"a\.mp4#50\.000 .* and folder:a\.mp4#51\.000 .* are frames of one clip"):
        made.check()


def test_a_group_on_two_sides(made: Made) -> None:
    made.add("new.png", "test", scene(50, 200, 160), group="scene0.png")
    with pytest.raises(UserError, match=r"new\.png \(test\) and folder:scene0\.png \(train\) are of one group"):
        made.check()


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "jpeg": jpeg,
    "mirrored": lambda x: jpeg(x[:, ::-1]),
    "light": lambda x: x // 4 * 3 + 40,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_near_duplicate_under_another_group(made: Made, change: Callable[[Pixels], Pixels]) -> None:
    twin = np.ascontiguousarray(change(pixels_of(made, "chelsea.png")).astype(np.uint8))
    made.add("twin.jpg", "test", twin)
    with pytest.raises(UserError, match=r"chelsea\.png \(train\) and folder:twin\.jpg \(test\) are near-duplicates"):
        made.check()
    assert not (FOLDER / "splits.json").exists()


@pytest.mark.parametrize(("keep", "mirror"), [(0.85, False), (0.7, True)])
def test_a_photo_that_is_cut_out_of_another(made: Made, keep: float, mirror: bool) -> None:
    whole = pixels_of(made, "coffee.png")
    height, width = (round(side * keep) for side in whole.shape[:2])
    cut = np.ascontiguousarray(whole[:height, -width:][:, :: -1 if mirror else 1])
    made.add("cut.png", "train", cut)
    with pytest.raises(UserError, match=r"coffee\.png \(val\) and folder:cut\.png \(train\) are one photo, cut"):
        made.check()
    made.check(min_fit=1.0)  # the hash alone does not see it


def person(background: int, light: float, left: int) -> Pixels:
    """The astronaut's head in front of something else (350,350,3)."""
    picture = np.array(Image.fromarray(scene(90 + background)).resize((350, 350)))
    head = data.astronaut()[:280, 90:370]
    y, x = np.mgrid[:280, :280]
    soft = np.clip((1 - np.hypot((y - 115) / 125, (x - 135) / 110)) * 4, 0, 1)[..., None]
    place = (slice(10, 290), slice(left, left + 280))
    picture[place] = np.clip(soft * head * light + (1 - soft) * picture[place], 0, 255).astype(np.uint8)
    return picture


def test_a_face_on_two_sides(made: Made) -> None:
    made.add("anna.png", "train", person(0, 1.0, 10))
    made.add("again.png", "test", person(2, 0.8, 60))
    with pytest.raises(UserError, match=r"anna\.png \(train\) and folder:again\.png \(test\) show one person"):
        made.check()
    assert made.check(min_same_face=1.0)["faces"] == {"train": 0, "val": 0, "test": 0}  # 1 leaves faces out


def test_different_people_are_told_apart_and_the_most_alike_named(made: Made) -> None:
    made.add("anna.png", "train", person(0, 1.0, 10))
    other = np.array(Image.fromarray(scene(95)).resize((350, 300)))
    face = (data.lfw_subset()[3] * 255).astype(np.uint8)
    other[80:220, 100:240] = np.asarray(Image.fromarray(face).convert("RGB").resize((140, 140)))
    made.add("other.png", "test", other)
    found = made.check()
    if found["faces"]["test"]:
        assert found["nearest"]["face"]["second"] == "folder:other.png (test)"
        assert found["nearest"]["face"]["alike"] < 0.9


def test_crops_that_look_the_same(made: Made) -> None:
    crop = scene(300, SIZE, SIZE)
    made.add("one.png", "train", scene(60, 200, 160), crop)
    made.add("two.png", "test", scene(61, 200, 160), jpeg(crop[:, ::-1], 90))
    with pytest.raises(UserError, match=r"one\.png \(train pair pair8\) and folder:two\.png \(test pair pair9\) have"):
        made.check()


def test_pairs_older_than_the_split_are_refused(made: Made) -> None:
    made.add("moved.png", "train", scene(60, 200, 160), split="test")
    with pytest.raises(UserError, match=r"moved\.png \(train\) is on the test side in data/inputs by now"):
        made.check()
    made.inputs.pop()
    with pytest.raises(UserError, match=r"pairs of 1 inputs that data/inputs does not hold"):
        made.check()


def test_a_panel_input_that_is_taught(made: Made) -> None:
    plain, mirrored = perceptual_hashes(pixels_of(made, "rocket.png"))
    hashes = (f"{plain:016x}", f"{mirrored:016x}")
    for digest in (made.inputs[2].digest, made.inputs[0].digest):
        write_panel([PanelInput(origin="folder:frozen.png", file="f" * 64, digest=digest, hashes=hashes)])
        if digest == made.inputs[2].digest:  # on the test side: as it should be
            assert made.check()["panel"]
    with pytest.raises(UserError, match=r"frozen\.png of the frozen panel is on the train side"):
        made.check()


def test_pictures_that_a_teacher_drew_have_no_photo_to_compare(made: Made) -> None:
    made.crops["train"].append(scene(400, SIZE, SIZE))
    drawn = Verdict(
        pair="drawn", split="train", rule="", reason="", index=len(made.crops["train"]) - 1, input="", seed=5
    )
    made.verdicts.append(drawn)
    assert made.check()["photos"]["train"] == 4


def test_the_fewest_bits_are_found_across_blocks_and_mirrored() -> None:
    first, second = (RANDOM.integers(2**64, size=(count, 2), dtype=np.uint64) for count in (2100, 70))
    second[41, 0] = first[2050, 1] ^ np.uint64(0b101)
    assert nearest_bits(first, second) == (2, 2050, 41)
    assert nearest_bits(first[:0], second) is None


def test_a_plain_picture_fits_nothing() -> None:
    assert fit(np.full((60, 80, 3), 200, np.uint8), scene(1)) < 0.5


def test_curate_publishes_nothing_where_the_check_fails(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_curate import PAIRS, good, write_raw

    params = load_params(repository / "params.yaml")
    block = params.student("oil")
    small = block.model_copy(update={"pairs": block.pairs.model_copy(update={"size": SIZE})})
    monkeypatch.chdir(tmp_path)
    write_raw(good())
    write_records(INPUTS / "inputs.jsonl", [])
    with pytest.raises(UserError, match=r"splits: pairs of 9 inputs that data/inputs does not hold"):
        curate.curate(params, "tiny", small)
    assert not PAIRS.exists()
    assert [path.name for path in PAIRS.parent.iterdir()] == ["raw"]
