"""What pivotal tuning gains: held-out photos inverted into W alone, into W+ alone, and into W with tuning.

Reads a generator that tasks/train_stylegan2.py made, and the photos it held out. Prints the mean squared error of each
way, how far tuning lowers that of W, and whether an edit still goes the same way in the tuned generator; writes a
picture of it all. The edit is the first principal component of W (Harkonen et al. 2020), which needs no labels.
Command: python -m tasks.bench_inversion --generator FOLDER --photos FOLDER --out PICTURE [--count 8]
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.errors import UserError
from tasks.files import read_json
from tasks.progress import progress
from tasks.sources import walk
from tasks.stage import guarded
from tasks.teacher_params import Inversion as Told
from tasks.train_stylegan2 import crops

STRENGTH = 1.5  # standard deviations along the component


def first_component(generator: Any) -> Any:
    """The direction (w_dim,) in which w varies most, one standard deviation long."""
    import torch

    with torch.no_grad():
        z = torch.randn(5000, generator.z_dim, generator=torch.Generator().manual_seed(7))
        w = generator.mapping(z)
        _, values, vectors = torch.pca_lowrank(w, q=4)
    return vectors[:, 0] * values[0] / len(w) ** 0.5


def compare(
    generator: Any, picture: Any, told: Any, deviation: float, direction: Any
) -> tuple[dict[str, float], list[Any]]:
    """The figures of one picture (1,3,R,R), and the row to look at."""
    import torch
    from torch.nn import functional

    from models.teachers.stylegan2.edits import Direction
    from models.teachers.stylegan2.inversion import project, tune, tuned
    from models.teachers.stylegan2.perceptual import pyramid_distance

    w = project(generator, picture, told, pyramid_distance, deviation)
    wide = project(generator, picture, replace(told, space="w+"), pyramid_distance, deviation)
    pivotal = tuned(generator, tune(generator, w, picture, told, pyramid_distance))
    with torch.no_grad():
        in_w, in_wide, in_tuned = generator(w), generator(wide), pivotal(w)
        edit = Direction(direction)
        ways = [edit(each, w, STRENGTH) - each(w) for each in (generator, pivotal)]
    errors = {
        name: float(functional.mse_loss(made, picture))
        for name, made in (("w", in_w), ("w+", in_wide), ("tuned", in_tuned))
    }
    same_way = float(functional.cosine_similarity(ways[0].flatten(), ways[1].flatten(), dim=0))
    return errors | {"edit": same_way}, [picture, in_w, in_wide, in_tuned, in_tuned + ways[1], in_w + ways[0]]


def sheet(rows: list[list[Any]], scale: int = 2) -> Image.Image:
    """All rows as one picture."""
    lines = [np.concatenate([(each[0].permute(1, 2, 0).numpy() + 1) / 2 for each in row], axis=1) for row in rows]
    whole = Image.fromarray(np.rint(np.concatenate(lines).clip(0, 1) * 255).astype(np.uint8))
    return whole.resize((whole.width * scale, whole.height * scale), Image.Resampling.NEAREST)


def main(folder: Path, photos: Path, out: Path, count: int) -> None:
    """Invert `count` held-out photos, print the table and write the picture."""
    import torch

    from models.teachers.stylegan2.inversion import Inversion, spread
    from models.teachers.stylegan2.network import load

    generator = load(folder)
    names = set(read_json(folder / "held_out.json"))
    shown = crops([path for path in sorted(walk(photos)) if path.name in names], generator.resolution, 1, seed=1)
    if not len(shown):
        raise UserError(f"{photos} holds none of the photos in {folder}/held_out.json: name the folder it came from")
    chosen = shown[np.random.default_rng(0).permutation(len(shown))[:count]]
    # PTI's own settings, but for a learning rate that fits a network a hundredth as wide; without a stop, as its
    # threshold is one of LPIPS.
    told = Inversion(**Told(learning_rate=0.05, tuning_rate=0.003, stop=0.0).model_dump())
    deviation, direction = spread(generator), first_component(generator)
    found, rows = [], []
    with progress("inversion", len(chosen), "photos") as advance:
        for pixels in chosen:
            picture = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
            figures, row = compare(generator, picture, told, deviation, direction)
            found.append(figures)
            rows.append(row)
            advance(1)
    sheet(rows).save(out)
    ratios = [each["w"] / each["tuned"] for each in found]
    print("photo  error in W  in W+   tuned   W/tuned  edit's way")
    for number, (each, ratio) in enumerate(zip(found, ratios, strict=True)):
        print(f"{number:5d}  {each['w']:.5f}  {each['w+']:.5f}  {each['tuned']:.5f}  {ratio:7.1f}  {each['edit']:.3f}")
    print(f"least W/tuned {min(ratios):.1f}, median {np.median(ratios):.1f}; least likeness of the edit's way ", end="")
    print(f"{min(each['edit'] for each in found):.3f} (cosine); {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--generator", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=8)
    asked = parser.parse_args()
    guarded("bench_inversion", lambda: main(asked.generator, asked.photos, asked.out, asked.count))
