"""What the gate is told of pictures: the trivial students, measured for real, do not pass; one that learned does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evidences import good
from scenes import scene
from scipy.ndimage import gaussian_filter

from models import metrics
from models.teachers.painter import Painter
from tasks.gate import decide
from tasks.gate_params import Gate
from tasks.params import load_params
from tasks.phone import picture_evidence
from tasks.quality import Columns, Floats, Model, Pictures, Work, measure_all, scale, to_pictures

SIZE, PHOTOS, CROPS = 64, 4, 3
NOT_OF_PICTURES = {  # filled in as of a good file, so that only the pictures can fail
    name: getattr(good(), name)
    for name in (
        *("measured_sha256", "shipped_sha256", "int8_psnr_db", "banding", "flicker_over_teacher"),
        *("p90_ms", "file_bytes", "bundle_mib", "detector_false_positives", "dropped"),
        *("copied_failures", "invented_failures"),
    )
}
ABOUT_EFFECT = {"min_explained_effect", "min_explained_effect_low", "min_above_colour_affine", "min_worst_slice"}


def relief(x: Pictures) -> Floats:
    """A quick teacher that no colour map can follow: every colour stands out from what is around it."""
    soft = gaussian_filter(scale(x), (0, 1, 1, 0))
    return np.clip(soft + 4 * (soft - gaussian_filter(soft, (0, 4, 4, 0))), 0, 1)


class Bench:
    """A test set with its teacher's pictures, on which any function is measured as a file would be."""

    def __init__(self, teacher: Model, rules: Gate) -> None:
        self.rules = rules
        photos = [scene(seed, CROPS * SIZE, SIZE) for seed in range(PHOTOS)]
        self.inputs = np.concatenate([np.stack(np.split(photo, CROPS, axis=1)) for photo in photos])
        self.targets = np.rint(255 * teacher(self.inputs)).astype(np.uint8)
        self.work = Work(
            pairs={"digest": "a" * 64, "teacher": "b" * 64},
            student={},
            exported={},
            benchmark={},
            inputs=self.inputs,
            targets=self.targets,
            verdicts=[],
            photos=[f"photo-{row // CROPS}" for row in range(len(self.inputs))],
        )
        # Fitted on the very test pairs: no colour map can do better on them.
        recolour = metrics.colour_affine(metrics.fit_colour_affine([(self.inputs, self.targets)]))
        self.colour_map: Model = lambda x: to_pictures(recolour(metrics.to_tensor(x)))
        self.affine = metrics.pool(self.columns(self.colour_map))["explained_effect"]

    def columns(self, model: Model) -> Columns:
        return measure_all({"it": model}, self.inputs, self.targets, {})["it"]

    def failing(self, model: Model) -> set[str]:
        """The rules, as shipped, that the function does not meet."""
        found = picture_evidence("it", model, self.columns(model), self.work)
        evidence = replace(found, colour_affine_explained=self.affine, **NOT_OF_PICTURES)
        return {result.name for result in decide(evidence, None, self.rules).results if not result.passed}


@pytest.fixture(scope="module", params=["oil", "sketch"])
def painted(request: pytest.FixtureRequest, repository: Path) -> Bench:
    """The test set of a real teacher and the rules of its student in params.yaml."""
    painter = Painter(style=request.param, name=request.param, version=1)
    rules = load_params(repository / "params.yaml").students[request.param].gate
    return Bench(lambda x: painter(x, [0] * len(x)), rules)


def test_leaving_pictures_alone_does_not_pass(painted: Bench) -> None:
    assert ABOUT_EFFECT <= painted.failing(scale)


def test_the_best_colour_map_does_not_pass(painted: Bench) -> None:
    assert painted.affine > 0.2  # it does explain something
    assert "min_above_colour_affine" in painted.failing(painted.colour_map)


@pytest.fixture(scope="module")
def quick(repository: Path) -> Bench:
    """The test set of the quick teacher, which is asked again for every moved picture."""
    return Bench(relief, load_params(repository / "params.yaml").students["oil"].gate)


def test_a_student_as_good_as_its_teacher_passes(quick: Bench) -> None:
    assert not quick.failing(relief)


def grey(x: Pictures) -> Floats:
    return np.repeat(relief(x).mean(axis=3, keepdims=True), 3, axis=3)


def blurred(x: Pictures) -> Floats:
    return gaussian_filter(relief(x), (0, 3, 3, 0))


def restless(x: Pictures) -> Floats:
    noise = np.random.default_rng(int(x.astype(np.int64).sum())).normal(0, 0.15, x.shape)
    return np.clip(relief(x) + noise, 0, 1).astype(np.float32)


@pytest.mark.parametrize(
    ("model", "rule"),
    [
        (grey, "min_chroma_ratio"),
        (blurred, "min_sharpness_ratio"),
        (restless, "max_flicker"),
        (scale, "min_worst_slice"),
    ],
)
def test_each_fault_fails_its_rule(quick: Bench, model: Model, rule: str) -> None:
    assert rule in quick.failing(model)
