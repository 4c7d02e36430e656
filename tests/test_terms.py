"""Terms: parts and their share of the gradient, features by path, an adversary, steadiness, several processes."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from test_students import SMALL
from test_training import pairs, recipe, train
from torch import nn

from models.adversarial import Adversarial, adaptive
from models.checkpoints import restore_about
from models.consistency import Consistency, shift
from models.errors import UserError
from models.feature_distillation import FEATURE_LOSSES, FeatureDistillation, Link
from models.features import probe
from models.losses import LOSSES
from models.students import build_student
from models.terms import Look, Part, Pictures, Term, inner_outputs, share_of_gradient, total

__all__ = ["pairs"]


def look_at(output: torch.Tensor, targets: torch.Tensor, **more: object) -> Look:
    settings: dict[str, object] = {"student": nn.Identity(), "inputs": targets, "step": 3, "share": 0.5}
    return Look(output=output, targets=targets, **settings | more)  # type: ignore[arg-type]


@pytest.fixture
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    output = torch.rand(3, 3, 64, 64, generator=generator).requires_grad_()
    return output, torch.rand(3, 3, 64, 64, generator=generator)


def test_pictures_gives_every_loss_that_weighs_something(pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    parts = Pictures({"pixel": 2.0, "chroma": 0.0, "l1": 0.5})(look_at(*pictures))
    assert {name: part.weight for name, part in parts.items()} == {"pixel": 2.0, "l1": 0.5}
    output, target = pictures
    expected = 2 * LOSSES["pixel"](output, target) + 0.5 * LOSSES["l1"](output, target)
    torch.testing.assert_close(total(parts), expected)


def test_shares_are_those_of_the_norms_of_the_gradients() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    parts = {
        "one": Part(2.0, weight.sum()),  # gradient (2, 2)
        "other": Part(1.0, (weight * torch.tensor([0.0, 6.0])).sum()),  # gradient (0, 6)
        "none": Part(0.0, weight.prod()),
    }
    shares = share_of_gradient(parts, [weight])
    one, other = 8**0.5, 6.0
    assert shares == pytest.approx({"one": one / (one + other), "other": other / (one + other), "none": 0.0})
    assert weight.grad is None


def test_inner_outputs_are_those_of_the_named_modules() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))

    x = torch.rand(1, 3, 8, 8)
    with inner_outputs(network, ("0", "2")) as found:
        network(x)
    torch.testing.assert_close(found["0"], network[0](x))
    torch.testing.assert_close(found["2"], network(x))
    with pytest.raises(UserError, match="no module 'encodr.conv_stem' in the network; near: encoder.conv_stem"):
        probe(build_student(SMALL, 64), ["encodr.conv_stem"], torch.rand(1, 3, 64, 64), who="student")


# Golden: plain re-computations of the papers' formulas.


def plain_attention(ours: np.ndarray, theirs: np.ndarray) -> float:
    maps = [np.mean(one**2, axis=1).reshape(len(one), -1) for one in (ours, theirs)]
    maps = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in maps]
    return float(np.mean(np.sum((maps[0] - maps[1]) ** 2, axis=1)))


def huber(x: np.ndarray) -> float:
    return float(np.mean(np.where(np.abs(x) < 1, 0.5 * x**2, np.abs(x) - 0.5)))


def plain_relations(ours: np.ndarray, theirs: np.ndarray) -> float:
    found = []
    for points in (ours.mean((2, 3)), theirs.mean((2, 3))):
        count = len(points)
        apart = np.array([[np.linalg.norm(a - b) for b in points] for a in points])
        cosines = np.zeros((count, count, count))
        for i in range(count):
            for j in range(count):
                for k in range(count):
                    if i not in (j, k):
                        a, b = points[i] - points[j], points[i] - points[k]
                        cosines[i, j, k] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        found.append((apart / (apart.sum() / (count * (count - 1))), cosines))
    # models/feature_distillation.py has the vertex along the first axis too
    return huber(found[0][0] - found[1][0]) + 2 * huber(found[0][1] - found[1][1])


def plain_fitnets(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.mean(((ours - theirs) / np.sqrt(np.mean(theirs**2))) ** 2))


@pytest.mark.parametrize(
    ("name", "plain"), [("attention", plain_attention), ("relations", plain_relations), ("fitnets", plain_fitnets)]
)
def test_golden_feature_losses(name: str, plain: object) -> None:
    generator = torch.Generator().manual_seed(4)
    ours, theirs = (torch.rand(4, 5, 6, 6, generator=generator) for _ in range(2))
    expected = plain(ours.double().numpy(), theirs.double().numpy())  # type: ignore[operator]
    assert FEATURE_LOSSES[name](ours, theirs).item() == pytest.approx(expected, rel=1e-3)
    assert FEATURE_LOSSES[name](theirs, theirs).item() == pytest.approx(0, abs=1e-6)
    ours.requires_grad_()
    FEATURE_LOSSES[name](ours, theirs).backward()  # type: ignore[no-untyped-call]
    assert ours.grad is not None and bool(ours.grad.isfinite().all()) and bool(ours.grad.any())


def test_features_are_learnt_through_an_adapter(tmp_path: Path, pairs: tuple[np.ndarray, np.ndarray]) -> None:
    """The teacher's features are another number of channels at another size; the adapter learns with the student."""
    teacher = nn.Sequential(nn.Conv2d(3, 7, 3, padding=1), nn.AvgPool2d(2)).requires_grad_(False)
    student = build_student(SMALL, 64)
    links = [
        Link(loss=loss, student="decoder.0", teacher="features", weight=1.0)
        for loss in ("fitnets", "attention", "relations")
    ]
    term = FeatureDistillation(links, lambda x: [teacher(x)] * 3, student, torch.rand(2, 3, 64, 64))
    assert [type(one.adapter).__name__ for one in term.comparisons] == ["Conv2d", "Identity", "Identity"]
    training = train(tmp_path, pairs, recipe(steps=40), terms=[Pictures({"pixel": 0.01}), term])
    first, last = training.curve[0]["losses"], training.curve[-2]["losses"]
    assert set(first) == {"pixel", "fitnets decoder.0", "attention decoder.0", "relations decoder.0"}
    assert last["fitnets decoder.0"] < 0.8 * first["fitnets decoder.0"]


def test_an_adversary_is_weighed_against_the_other_losses(pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    output, target = pictures
    look = look_at(output, target)
    look.parts = {"l1": Part(1.0, (output - target).abs().mean())}
    small, large = output.square().mean(), 1e3 * output.square().mean()
    ratio = adaptive(look, small) / adaptive(look, large)
    assert ratio == pytest.approx(1e3, rel=1e-2)
    (ours,) = torch.autograd.grad(adaptive(look, large) * large, output, retain_graph=True)
    (theirs,) = torch.autograd.grad(look.parts["l1"].value, output)
    assert ours.norm().item() == pytest.approx(theirs.norm().item(), rel=1e-2)


def test_discriminators_learn_what_is_whose() -> None:
    torch.manual_seed(0)
    term = Adversarial(weight=0.1, begin=0.5, scales=2, channels=8, learning_rate=3e-3)
    teacher, made = torch.rand(8, 3, 32, 32), torch.full((8, 3, 32, 32), 0.5)
    look = look_at(made, teacher, share=0.2)
    assert term(look) == {}  # the student does not feel it yet
    before = {name: value.clone() for name, value in term.named_parameters()}
    for _ in range(60):
        for weights in term.learn(look, 1.0):
            assert all(weight.grad is not None for weight in weights)
    assert any(not torch.equal(value, before[name]) for name, value in term.named_parameters())
    real, fake = (torch.cat([x.flatten() for x in term.judge(teacher, one)]) for one in (teacher, made))
    assert real.mean() > fake.mean() + 0.5


def test_an_adversary_s_state_is_kept(tmp_path: Path, pairs: tuple[np.ndarray, np.ndarray]) -> None:
    """Stopped and gone on, the same bits: the discriminators, their optimiser and their norms are in the checkpoint."""

    def terms() -> list[Term]:
        torch.manual_seed(7)
        more = Consistency(weight=1.0, begin=0.2, seed=0)
        return [
            Pictures({"pixel": 1.0}),
            more,
            Adversarial(weight=0.1, begin=0.2, scales=1, channels=4, learning_rate=1e-3),
        ]

    whole = train(tmp_path / "whole", pairs, recipe(), terms=terms())
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", pairs, recipe(), stop_after=6, terms=terms())
    parts = train(tmp_path / "parts", pairs, recipe(), terms=terms())
    assert whole.curve == parts.curve
    assert "adversarial" in whole.curve[-2]["losses"] and "consistency" in whole.curve[-2]["losses"]
    for name, value in whole.terms.state_dict().items():
        assert torch.equal(value, parts.terms.state_dict()[name]), name


def test_shift_moves_by_whole_pixels() -> None:
    x = torch.arange(3 * 64 * 64.0).view(1, 3, 64, 64)
    moved = shift(x, 2, -3)
    assert torch.equal(moved[..., 2:, :-3], x[..., :-2, 3:])


def test_consistency_is_nothing_for_what_follows_the_motion_and_something_for_a_fixed_pattern() -> None:
    class Pattern(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 0.2 * (torch.arange(x.shape[-1]) % 4 == 0)

    inputs = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.2
    term = Consistency(weight=2.0, begin=0.5, seed=0)
    found = {}
    for student in (nn.Identity(), Pattern()):
        values = [
            term(look_at(student(inputs), inputs, student=student, share=0.75, step=step))["consistency"]
            for step in range(6)
        ]
        assert {value.weight for value in values} == {1.0}  # half-way up its ramp
        found[type(student).__name__] = max(float(value.value) for value in values)
    assert found["Identity"] < 0.015  # the noise that was added
    assert found["Pattern"] > 0.05
    assert term(look_at(inputs, inputs, share=0.4)) == {}


def test_terminated_it_saves_and_ends(tmp_path: Path, pairs: tuple[np.ndarray, np.ndarray]) -> None:
    """SIGTERM in the middle: the step is ended, the state kept between two regular checkpoints, KeyboardInterrupt."""

    class Terminates(Term):
        def forward(self, look: Look) -> dict[str, Part]:
            if look.step == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            return {}

    whole = train(tmp_path / "whole", pairs, recipe())
    before = signal.getsignal(signal.SIGTERM)
    learnt = {"pixel": 1.0, "structure": 0.2, "gradient": 0.5, "chroma": 0.5}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", pairs, recipe(), terms=[Pictures(learnt), Terminates()])
    assert signal.getsignal(signal.SIGTERM) is before
    assert restore_about(tmp_path / "parts" / "checkpoint.safetensors")["step"] == "6"
    parts = train(tmp_path / "parts", pairs, recipe(), terms=[Pictures(learnt)])
    assert whole.curve == parts.curve
