"""Projection, pivotal tuning and edits on a small generator of random weights, and a CLIP of random weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_stylegan2
import torch
from safetensors.torch import save_file
from torch.nn import functional
from torchvision.models import alexnet, vgg16

from models.errors import UserError
from models.teachers.stylegan2.channels import channel_effects, global_direction, layer_kinds
from models.teachers.stylegan2.clip import TEMPLATES, Clip
from models.teachers.stylegan2.edits import Direction, LatentOptimisation, read_direction
from models.teachers.stylegan2.inversion import Inversion, project, roughness, spread, tune, tuned
from models.teachers.stylegan2.network import Generator
from models.teachers.stylegan2.perceptual import load_distance, pyramid_distance

TOLD = Inversion(
    space="w",
    steps=80,
    learning_rate=0.05,
    noise_weight=1e5,
    tuning_steps=120,
    tuning_rate=3e-3,
    pixel=1.0,
    perceptual=1.0,
    stop=0.0,
)


@pytest.fixture(scope="module")
def generator() -> Generator:
    return tiny_stylegan2.generator()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return Clip(tiny_stylegan2.save_clip(tmp_path_factory.mktemp("clip") / "clip"), torch.device("cpu"))


def stranger() -> torch.Tensor:
    """A picture that no latent of the generator draws: another generator's."""
    other = tiny_stylegan2.generator(seed=9)
    return other(other.truncated(torch.randn(1, 8, generator=torch.Generator().manual_seed(3)), 0.8))


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(functional.mse_loss(a, b))


def test_projection_finds_what_the_generator_drew(generator: Generator) -> None:
    z = torch.randn(1, 8, generator=torch.Generator().manual_seed(5))
    target = generator(generator.truncated(z, 0.8))
    mean = apart(generator(generator.mapping.w_avg[None]), target)
    found = {}
    for space in ("w", "w+"):
        w = project(generator, target, replace(TOLD, space=space, steps=200), pyramid_distance, spread(generator))
        assert w.shape == (1, generator.num_ws, 8)
        assert (w.std(dim=1).max() == 0) == (space == "w")
        found[space] = apart(generator(w), target)
    assert found["w"] < 0.1 * mean and found["w+"] < 0.1 * mean


def test_tuning_draws_a_stranger_and_keeps_the_edits_way(generator: Generator) -> None:
    target = stranger()
    w = project(generator, target, TOLD, pyramid_distance, spread(generator))
    torch.testing.assert_close(w, project(generator, target, TOLD, pyramid_distance, spread(generator)))
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    change = tune(generator, w, target, TOLD, pyramid_distance)
    assert all(torch.equal(before[name], value) for name, value in generator.state_dict().items())
    assert all(value.dtype == torch.float16 for value in change.values())
    pivotal = tuned(generator, change)
    assert apart(generator(w), target) >= 3 * apart(pivotal(w), target)
    edit = Direction(torch.randn(8, generator=torch.Generator().manual_seed(2)))
    plain, after = (edit(each, w, 0.5) - each(w) for each in (generator, pivotal))
    assert float(functional.cosine_similarity(plain.flatten(), after.flatten(), dim=0)) > 0.6


def test_tuning_stops_when_it_is_near_enough(generator: Generator) -> None:
    target = stranger()
    w = generator.broadcast(generator.mapping.w_avg[None])
    untouched = tune(generator, w, target, replace(TOLD, stop=10.0), pyramid_distance)
    assert not any(bool(value.any()) for value in untouched.values())
    start = float(pyramid_distance(generator(w), target))
    halfway = tuned(generator, tune(generator, w, target, replace(TOLD, stop=start / 2), pyramid_distance))
    assert start / 4 < float(pyramid_distance(halfway(w), target)) < start * 0.55


def test_noise_maps_are_kept_rough() -> None:
    source = torch.Generator().manual_seed(0)
    white = torch.randn(64, 64, generator=source)
    smooth = functional.interpolate(torch.randn(1, 1, 16, 16, generator=source), scale_factor=4)[0, 0]
    assert float(roughness([white])) < 0.05 < 0.5 < float(roughness([smooth / smooth.std()]))


def test_distances(tmp_path: Path) -> None:
    a = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(pyramid_distance(a, a), torch.zeros(2))
    assert bool((pyramid_distance(a, a.roll(1, 3)) > pyramid_distance(a, a * 0.99)).all())
    for name, net in (("alex", alexnet(weights=None)), ("vgg", vgg16(weights=None))):
        save_file(net.features.state_dict(prefix="features."), tmp_path / name)
        lpips = load_distance(tmp_path / name)
        near, far = lpips(a, a), lpips(a, -a)
        assert near.shape == (2,) and float(near.abs().max()) < 1e-6 < float(far.min())
    (tmp_path / "no").write_text("no")
    with pytest.raises(UserError, match="no safetensors file"):
        load_distance(tmp_path / "no")
    save_file({"features.0.weight": torch.zeros(1, 1, 1, 1)}, tmp_path / "short")
    with pytest.raises(UserError, match="holds 1 convolutions: AlexNet has 5"):
        load_distance(tmp_path / "short")


def test_lpips_uses_the_weights_it_is_given(tmp_path: Path) -> None:
    a, b = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        path = tmp_path / f"{len(found)}"
        save_file(alexnet(weights=None).features.state_dict(prefix="features."), path)
        torch.manual_seed(len(found))
        found.append(float(load_distance(path)(a, b)))
    assert found[0] == found[1] != found[2]


def test_a_direction_of_ones_own(generator: Generator, tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((generator.num_ws, 8))
    np.save(tmp_path / "d.npy", values)
    edit = read_direction(tmp_path / "d.npy", generator)
    w = generator.broadcast(generator.mapping.w_avg[None])
    assert torch.equal(edit(generator, w, 0.0), generator(w))
    torch.testing.assert_close(edit(generator, w, -2.0), generator(w - 2 * torch.from_numpy(values).float()))
    for wrong in (np.zeros(7), np.full(8, np.nan), np.array([None] * 8)):
        np.save(tmp_path / "wrong.npy", wrong, allow_pickle=True)
        with pytest.raises(UserError, match="wrong.npy"):
            read_direction(tmp_path / "wrong.npy", generator)


def test_clip_sees_pictures_as_its_own_processor_does(clip: Clip) -> None:
    from transformers import CLIPImageProcessorPil

    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    size = {"height": 32, "width": 32}
    processor = CLIPImageProcessorPil(size=size, crop_size=size)
    values = processor(pixels, return_tensors="pt")["pixel_values"]
    wanted = functional.normalize(clip.model.visual_projection(clip.model.vision_model(values).pooler_output), dim=-1)
    ours = clip.pictures(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1)
    torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-4)
    assert float(clip.text("a b").norm()) == pytest.approx(1, abs=1e-5)
    assert not torch.allclose(clip.text("a b"), clip.text("c d")) and len(set(TEMPLATES)) == len(TEMPLATES)


def test_a_text_by_optimisation(generator: Generator, clip: Clip) -> None:
    w = generator.broadcast(generator.truncated(torch.randn(2, 8, generator=torch.Generator().manual_seed(1)), 0.7))
    text = clip.text("a b")
    edit = LatentOptimisation(clip=clip, text=text, steps=30, learning_rate=0.1, stay=0.001)
    likeness = [float((clip.pictures(edit(generator, w, strength)) @ text).mean()) for strength in (0.0, 0.5, 1.0)]
    assert likeness[0] < likeness[1] < likeness[2]
    torch.testing.assert_close(edit(generator, w, 0.0), generator(w))
    # Each picture for itself. A few steps: in many, Adam makes much of the last bits.
    short = replace(edit, steps=3)
    together = short(generator, w, 1.0)[1]
    assert apart(short(generator, w[1:], 1.0)[0], together) < 0.01 * apart(together, generator(w)[1])
    bound = LatentOptimisation(clip=clip, text=text, steps=30, learning_rate=0.1, stay=10.0)
    assert apart(bound(generator, w, 1.0), generator(w)) < apart(edit(generator, w, 1.0), generator(w))


def test_a_text_by_a_global_direction(generator: Generator, clip: Clip) -> None:
    effects = channel_effects(generator, clip, 6)
    styles = generator.synthesis.styles(generator.broadcast(generator.mapping.w_avg[None]))
    channels = sum(style.shape[1] for style, conv in zip(styles, layer_kinds(generator), strict=True) if conv)
    assert effects.shape == (channels, 12)
    towards, neutral = clip.text("a b"), clip.text("c d")
    edit = global_direction(generator, effects, towards, neutral, beta=0.1)
    assert all(
        not bool(change.any()) for change, conv in zip(edit.change, layer_kinds(generator), strict=True) if not conv
    )
    few = global_direction(generator, effects, towards, neutral, beta=0.5)
    moved = [sum(int(change.count_nonzero()) for change in each.change) for each in (few, edit)]
    assert 0 < moved[0] < moved[1] < channels
    w = generator.broadcast(generator.truncated(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)), 0.7))
    axis = towards - neutral
    shift = [float((clip.pictures(edit(generator, w, strength)) @ axis).mean()) for strength in (-3.0, 0.0, 3.0)]
    assert shift[0] < shift[1] < shift[2]
    torch.testing.assert_close(edit(generator, w, 0.0), generator(w))
    none = global_direction(generator, effects, towards, neutral, beta=1.0)
    assert not any(bool(change.any()) for change in none.change)
