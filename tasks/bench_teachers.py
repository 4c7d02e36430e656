"""Pairs per second of the local teachers for `make bench`: as generate makes them, and by the plain loop, in turn.

The plain loop is what one writes first: the model loaded with its library's defaults, one picture after the other, in
one process. Ours is the stage's own engine with the workers and batch size of params.yaml. It is timed from the first
finished shard on, so that neither side pays for its start.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.teachers.folders import file_sha256, folder_sha256
from tasks.generate import in_processes, in_shards, plan, plan_samples
from tasks.params import Params
from tasks.pictures import Pixels, crop_and_resize, decode_picture, pixel_digest, read_input, write_input
from tasks.records import Input, Pair
from tasks.shards import Job
from tasks.sources import library_sources
from tasks.student_params import Pairs
from tasks.teacher_params import Inversion

ROUNDS, SHARD = 2, 4
SIZE = 256
RESTYLER = Path("models/teachers/weights/restyler")
OIL = {"style": "oil", "strength": 1.0, "num_inference_steps": 2}
One = Callable[[Pixels], object]  # the plain loop's work for one picture (H,W,3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A teacher, and the plain way to ask it."""

    name: str
    settings: dict[str, Any]
    load: Callable[[], One]
    pairs: int  # of a round


def painter() -> Rival:
    """The weightless teacher."""
    settings = {"kind": "painter", "name": "oil-painter", "version": 1, "style": "oil"}

    def load() -> One:
        from models.teachers.painter import STYLES

        return lambda picture: STYLES["oil"]((picture / 255).astype(np.float32))

    return Rival(name="painter", settings=settings, load=load, pairs=48)


def restyler() -> Rival:
    """The embedded diffusion teacher."""
    where = {"model": str(RESTYLER), "revision": "", "sha256": folder_sha256(RESTYLER)}
    more = {"call": OIL, "scheduler": "", "size": 0, "dtype": "float32", "control": None}

    def load() -> One:
        from PIL import Image

        from models.teachers import restyler as module

        pipeline: Any = module.RestylePipeline
        loaded = pipeline.from_pretrained(RESTYLER)
        loaded.set_progress_bar_config(disable=True)
        return lambda picture: loaded(image=Image.fromarray(picture), **OIL)

    settings = {"kind": "diffusers", "name": "restyler", "version": 2, **where, **more}
    return Rival(name="restyler", settings=settings, load=load, pairs=24)


def onnx(path: Path) -> Rival:
    """A style network in an ONNX file, (1,3,H,W) in [0,1]."""
    settings = {"kind": "onnx", "name": path.stem, "version": 1, "path": str(path), "sha256": file_sha256(path)}

    def load() -> One:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path))
        name = session.get_inputs()[0].name
        return lambda picture: session.run(None, {name: (picture.transpose(2, 0, 1)[None] / 255).astype(np.float32)})

    return Rival(name=path.name, settings=settings, load=load, pairs=48)


def stylegan2(folder: Path) -> Rival:
    """Pairs drawn by a generator of random weights, whose speed is a trained one's; along a random direction."""
    import torch

    from models.teachers.stylegan2.network import Generator, load, save

    torch.manual_seed(0)
    folder.mkdir()
    save(Generator(z_dim=512, w_dim=512, mapping_layers=8, channels=[256, 256, 256, 256, 128, 64, 32]), folder)
    direction = folder.with_suffix(".npy")
    np.save(direction, np.random.default_rng(0).standard_normal(512).astype(np.float32))
    edit = {"by": "direction", "path": str(direction), "sha256": file_sha256(direction)}
    where = {"model": str(folder), "revision": "", "sha256": folder_sha256(folder), "perceptual": None}
    more = {"strength": 1.0, "truncation": 0.7, "inversion": Inversion().model_dump()}

    def load_it() -> One:
        generator = load(folder)

        def draw(_: Pixels) -> object:
            with torch.no_grad():
                w = generator.mapping(torch.randn(1, 512))
                return generator(w), generator(w + 1.0)

        return draw

    settings = {"kind": "stylegan2", "name": "faces", "version": 1, "edit": edit, **where, **more}
    return Rival(name="stylegan2, pairs from nothing", settings=settings, load=load_it, pairs=48)


def compare(rival: Rival, params: Params, work: Path) -> tuple[float, float]:
    """Pairs per second, ours and the plain loop's."""
    pictures = work / "images"
    pictures.mkdir(parents=True, exist_ok=True)
    inputs = list(_inputs(pictures))
    from_nothing = rival.settings["kind"] == "stylegan2"  # else its inversions are timed, which no loop lacks
    count = {"train_crops": -(-rival.pairs // len(inputs)), "samples": rival.pairs if from_nothing else 0}
    asked = Pairs(size=SIZE, held_out_crops=1, min_scale=0.5, recolour=0.0, occlude=0.0, expose=0.0, seed=0, **count)
    pairs = (plan_samples(asked, "bench") if from_nothing else plan(inputs, asked, "bench"))[: rival.pairs]
    one = rival.load()
    shown = _shown(inputs, pictures, rival.pairs // 3)
    one(shown[0])
    seconds = [0.0, 0.0]
    made = 0
    for turn in range(ROUNDS):
        jobs = _jobs(rival, pairs, params, work / f"turn-{turn}", pictures)
        began, done = 0.0, 0
        for job in in_processes(jobs, params.generate.workers):
            if began:
                done += len(job.pairs)
            began = began or time.perf_counter()
        seconds[0] += time.perf_counter() - began
        made += done
        began = time.perf_counter()
        for picture in shown:
            one(picture)
        seconds[1] += time.perf_counter() - began
    return made / seconds[0], ROUNDS * len(shown) / seconds[1]


def _inputs(folder: Path) -> Iterator[Input]:
    """The libraries' photographs, as ingest would list them."""
    for source in library_sources("scikit-learn"):
        pixels = decode_picture(source.path.read_bytes())
        digest = pixel_digest(pixels)
        write_input(folder, digest, pixels)
        height, width = pixels.shape[:2]
        yield Input(
            digest=digest,
            origin=source.origin,
            licence=source.licence,
            width=width,
            height=height,
            clip="",
            group=digest,
            split="train",
        )


def _shown(inputs: list[Input], folder: Path, count: int) -> list[Pixels]:
    """Crops for the plain loop."""
    found = [read_input(folder, one.digest) for one in inputs]
    return [crop_and_resize(found[i % len(found)], (i, i, SIZE), SIZE) for i in range(count)]


def _jobs(rival: Rival, pairs: list[Pair], params: Params, folder: Path, images: Path) -> list[Job]:
    return [
        Job(
            name=f"shard-{number:05d}",
            pairs=tuple(some),
            origins={pair.input: "bench" for pair in some},
            folder=folder,
            images=images,
            size=SIZE,
            batch_size=params.generate.batch_size,
            teacher=rival.settings,
        )
        for number, some in enumerate(in_shards(pairs, SHARD))
    ]
