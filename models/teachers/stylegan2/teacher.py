"""The `stylegan2` teacher: photographs inverted into a generator's space and edited there, or pairs it draws itself.

An inversion costs minutes and does not depend on the edit: it is kept, for each picture, and used again by every edit
and strength. What keeps it is named by all that decides it, so nothing stale is ever taken.
Raise its number in models/teachers/digests.py when the output changes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock

from models.errors import UserError
from models.files import replacing
from models.teachers.digests import CODE_VERSIONS, teacher_digest
from models.teachers.folders import refuse_pickles
from models.teachers.pinned import places
from models.teachers.sizes import resized
from models.teachers.stylegan2.channels import channel_effects, global_direction
from models.teachers.stylegan2.clip import Clip
from models.teachers.stylegan2.edits import Edit, LatentOptimisation, read_direction
from models.teachers.stylegan2.inversion import Inversion, project, spread, tune, tuned
from models.teachers.stylegan2.network import load
from models.teachers.stylegan2.perceptual import load_distance

CODE = CODE_VERSIONS["stylegan2"]
Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]


class Stylegan2Teacher:
    """On a GPU if there is one, else on one thread, as every worker has a core of its own."""

    def __init__(
        self,
        *,
        name: str,
        version: int,
        edit: Mapping[str, Any],
        strength: float | Sequence[float],
        truncation: float,
        inversion: Mapping[str, Any],
        store: Path,
        perceptual: Mapping[str, Any] | None = None,
        **model: Any,
    ) -> None:
        self.name = f"{name} v{version}"
        decisive = {"edit": edit, "strength": strength, "truncation": truncation, "inversion": inversion}
        settings = {"kind": "stylegan2", **decisive, "perceptual": perceptual, **model}
        self.digest = teacher_digest(settings)
        self.found = {place.key: place.check(self.name) for place in places(settings)}
        self.sha256 = {place.key: place.sha256 for place in places(settings)}
        for folder in self.found.values():
            if folder.is_dir():
                refuse_pickles(folder, self.name)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.generator = load(self.found["model"]).to(self.device)
        self.distance = load_distance(self.found.get("perceptual.path"))
        self.inversion, self.truncation = Inversion(**inversion), truncation
        self.deviation = spread(self.generator)
        self.limits = (strength, strength) if isinstance(strength, int | float) else tuple(strength)
        self.store = store / "inversions"
        self.store.mkdir(parents=True, exist_ok=True)
        self.edit = self._edit(dict(edit))

    def __call__(self, inputs: Pixels, seeds: Sequence[int]) -> Values:
        """(B,H,W,3) uint8 RGB -> (B,H,W,3) float32, meant to lie in [0,1]; one after the other, each by itself."""
        self._one_core()
        return np.stack(
            [self._edited(picture, self.strength(seed)) for picture, seed in zip(inputs, seeds, strict=True)]
        )

    def sample(self, size: int, seeds: Sequence[int]) -> tuple[Pixels, Values]:
        """Pairs from nothing: what the generator draws for each seed, (B,size,size,3) uint8, and the same edited."""
        self._one_core()
        sources = [torch.Generator().manual_seed(seed) for seed in seeds]
        z = torch.cat([torch.randn(1, self.generator.z_dim, generator=source) for source in sources]).to(self.device)
        with torch.no_grad():
            w = self.generator.broadcast(self.generator.truncated(z, self.truncation))
            # A processor is 1.7 times as fast with one picture at a time, whose layers stay in its cache.
            together = 1 if self.device.type == "cpu" else len(w)
            before = torch.cat([self.generator(each) for each in w.split(together)])
        # Strengths may differ from pair to pair, and an edit is told one.
        after = [self.edit(self.generator, w[i : i + 1], self.strength(seed)) for i, seed in enumerate(seeds)]
        inputs = [np.rint(resized(each, (size, size)).clip(0, 1) * 255).astype(np.uint8) for each in _values(before)]
        return np.stack(inputs), np.stack([resized(each, (size, size)) for each in _values(torch.cat(after))])

    def strength(self, seed: int) -> float:
        """How strong the edit of a pair is: the one there is, or drawn between two by the pair's seed."""
        low, high = self.limits
        return float(low if low == high else np.random.default_rng([seed, 1]).uniform(low, high))

    def _edited(self, picture: Pixels, strength: float) -> Values:
        side = self.generator.resolution
        values = resized(picture.astype(np.float32) / 255, (side, side))
        target = torch.from_numpy(values).permute(2, 0, 1)[None].to(self.device) * 2 - 1
        w, change = self._inverted(picture, target)
        made = self.edit(tuned(self.generator, change), w, strength)
        return resized(_values(made)[0], picture.shape[:2])

    def _inverted(self, picture: Pixels, target: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The latent and what tuning adds to the weights; from an earlier time if there was one."""
        from safetensors.torch import load_file, save_file

        decides = [CODE, self.sha256["model"], self.sha256.get("perceptual.path", ""), asdict(self.inversion)]
        told = json.dumps([*decides, picture.shape]).encode()
        key = hashlib.sha256(told + picture.tobytes()).hexdigest()
        path = self.store / f"{key}.safetensors"
        if not path.exists():
            w = project(self.generator, target, self.inversion, self.distance, self.deviation)
            change = tune(self.generator, w, target, self.inversion, self.distance)
            tensors = {f"change.{name}": value.cpu() for name, value in change.items()}
            with replacing(path) as temporary:
                save_file({"w": w.cpu(), **tensors}, temporary)
        kept = load_file(path, device=str(self.device))
        return kept.pop("w"), {name.removeprefix("change."): value for name, value in kept.items()}

    def _edit(self, told: dict[str, Any]) -> Edit:
        """The edit that the block's `edit` describes."""
        by = told["by"]
        if by == "direction":
            return read_direction(self.found["edit.path"], self.generator)
        clip = Clip(self.found["edit.clip.model"], self.device)
        if by == "text-optimisation":
            steps, rate, stay = told["steps"], told["learning_rate"], told["stay"]
            return LatentOptimisation(
                clip=clip, text=clip.text(told["text"]), steps=steps, learning_rate=rate, stay=stay
            )
        effects = self._effects(clip, told["samples"])
        towards, neutral = clip.text(told["text"]), clip.text(told["neutral"])
        found = global_direction(self.generator, effects, towards, neutral, told["beta"])
        if not any(bool(change.any()) for change in found.change):
            raise UserError(
                f"teacher {self.name}: no style channel agrees with the text by beta {told['beta']:g}: lower edit.beta"
            )
        return found

    def _effects(self, clip: Clip, samples: int) -> torch.Tensor:
        """What each style channel does to CLIP; measured once, by one process, and kept."""
        from safetensors.torch import load_file, save_file

        decides = json.dumps([CODE, self.sha256["model"], self.sha256["edit.clip.model"], samples])
        path = self.store / f"channels-{hashlib.sha256(decides.encode()).hexdigest()}.safetensors"
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                effects = channel_effects(self.generator, clip, samples).cpu()
                with replacing(path) as temporary:
                    save_file({"effects": effects}, temporary)
        return load_file(path, device=str(self.device))["effects"]

    def _one_core(self) -> None:
        if self.device.type == "cpu":
            torch.set_num_threads(1)


def _values(pictures: torch.Tensor) -> Values:
    """(B,3,R,R) in [-1,1] -> (B,R,R,3) in [0,1]."""
    found: Values = ((pictures.detach() + 1) / 2).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return found
