"""Stage video: how much the student flickers, beside its own teacher, and both of them side by side in a clip.

Reads pairs/ and exported/ of data/students/NAME, and videos in the folder `video.clips`. The teacher, the float file
and the file a phone runs see the same frames: test pictures under camera motion, with sensor noise and in a crop box
that jumps (models/flicker.py), and consecutive frames of the videos. Writes video/: video.json, and clip.webp with its
first frame clip.png, of the first video, or of a test picture under camera motion where there is none. The report
shows all of it.

A teacher whose pictures cost money or hours is asked only with `video.costly_teachers`; without, its figures are null
and `without_teacher` says why.

Command: python -m tasks.video --student NAME
"""

import io
import sys
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import UserError
from models.teachers import KEEPING, Teacher, load_teacher
from tasks.charts import png
from tasks.features import centre_square
from tasks.files import check_sha256, replacing_folder, write_bytes, write_json
from tasks.params import Params
from tasks.pictures import Unfit
from tasks.progress import progress
from tasks.quality import DIGITS, Floats, Model, Pictures, checked, open_file, read_pairs, scale, shown_file, to_bytes
from tasks.records import read_made
from tasks.sources import walk
from tasks.stage import STUDENTS, student_main
from tasks.stage_params import Video
from tasks.student_params import Student
from tasks.target import judged_file
from tasks.videos import SUFFIXES, sample_frames

INPUT, TEACHER, FLOAT, PHONE = "input", "teacher", "float", "phone"
SHOWN = (INPUT, TEACHER, PHONE)  # in the clip, from left to right
SEED = 0  # of a teacher that draws noise: one for all frames, as an app would fix it
FLOOR = 1.0  # levels of 255: two figures below it nobody can tell apart, so a ratio raises both to it
FRAME_MS = 40  # of the clip
GAP = 8  # pixels between its panels
MAX_CLIP_BYTES = 1536 * 1024
QUALITIES = (80, 60, 40, 20)  # of the clip; the first that keeps to its size, or the last


class NoPicture(UserError):
    """The teacher did not make a picture of a frame."""


def video(params: Params, name: str, block: Student) -> None:
    """Write data/students/NAME/video; raises UserError where what it reads does not belong together."""
    folder, settings = STUDENTS / name, params.video
    pairs, _, exported = read_made(folder)
    phone = judged_file(exported["files"])
    record = {"pairs": pairs["digest"], "teacher": pairs["teacher"], "phone": phone["sha256"]}
    with replacing_folder(folder / "video") as made:
        if settings.photos:
            check_sha256(folder / "pairs" / "test.inputs.npy", pairs["files"]["test.inputs.npy"], "pairs")
            files = {FLOAT: shown_file(exported["files"]), PHONE: phone["file"]}
            models = open_students(folder / "exported", exported["files"], files)
            record |= look(settings, folder, block, models, made)
        else:
            record |= {"flicker": {}, "over_teacher": {}, "clip": None, "without_teacher": "video.photos is 0"}
        write_json(made / "video.json", record)
    told = ", ".join(f"{kind} {whose[PHONE]:.2f}" for kind, whose in record["flicker"].items()) or "left out"
    print(f"{name}: flicker of {phone['file']} in levels of 255: {told}; {folder}/video/video.json")


def open_students(folder: Path, records: list[dict[str, Any]], files: Mapping[str, str]) -> dict[str, Model]:
    """The input as it is, and the student's files under the names of `files`, each checked."""
    models: dict[str, Model] = {INPUT: scale}
    for whose, file in files.items():
        record = next(one for one in records if one["file"] == file)
        check_sha256(folder / file, record["sha256"], "exported model")
        models[whose] = _whole(file, open_file(folder / file, record["runtime"]))
    return models


def _whole(file: str, model: Model) -> Model:
    return lambda pictures: checked(file, model(pictures), pictures.shape)


def of_teacher(teacher: Teacher) -> Model:
    """The teacher as a function over batches; raises NoPicture where it gives none."""

    def model(pictures: Pictures) -> Floats:
        output = teacher(pictures, [SEED] * len(pictures))
        if output.shape != pictures.shape or not np.isfinite(output).all():
            raise NoPicture("the teacher gave no whole picture of a frame (NaN, or another shape)")
        return np.clip(output, 0.0, 1.0)

    return model


def look(settings: Video, folder: Path, block: Student, models: dict[str, Model], made: Path) -> dict[str, Any]:
    """What video.json says of the `models` and the teacher; the clip is written into `made`."""
    import torch

    from models.flicker import camera_path, moved, steps_of
    from models.spread import spread
    from models.torch_setup import prepare_torch

    prepare_torch(1)
    pictures, _ = read_pairs(folder / "pairs", "test")
    stills = np.asarray(pictures[spread(len(pictures), settings.photos)])
    without_teacher = ""
    if block.teacher.kind in KEEPING and not settings.costly_teachers:
        without_teacher = f"a {block.teacher.kind} teacher's pictures cost, and video.costly_teachers is false"
    else:
        models = models | {TEACHER: of_teacher(load_teacher(block.teacher.model_dump()))}
    found: dict[str, dict[str, float]] = {}
    clips = read_clips(settings, stills.shape[1])
    steps = [steps_of(frames) for frames in clips]
    each = len(stills) * (1 + 3 * settings.frames) + settings.clip_frames * max(1, len(clips))
    with torch.inference_mode(), progress("video", each * len(models), "pictures") as advance:
        shown = clips[0] if clips else to_bytes(moved(scale(stills[0]), camera_path(settings.clip_frames)))
        panels: dict[str, Pictures] = {}
        for whose, silent in models.items():
            model = counted(silent, advance)
            try:
                found[whose] = of_stills(settings, model, stills)
                outputs = [frame_by_frame(model, frames) for frames in clips or [shown]]
            except NoPicture:
                without_teacher = "the teacher did not make a picture of every frame"
                found.pop(whose, None)
                continue
            if clips:
                found[whose]["clips"] = of_clips(outputs, steps)
            panels[whose] = to_bytes(outputs[0])
    clip = {"of": "video" if clips else "still", "frames": len(shown)}
    clip |= write_clip(made, [panels[whose] for whose in SHOWN if whose in panels])
    return {"without_teacher": without_teacher, "clips": len(clips), "clip": clip} | beside_teacher(found)


def counted(model: Model, advance: Callable[[int], None]) -> Model:
    """The same model, telling of every picture it makes."""

    def run(pictures: Pictures) -> Floats:
        output = model(pictures)
        advance(len(pictures))
        return output

    return run


def read_clips(settings: Video, side: int) -> list[Pictures]:
    """Of the first videos in the folder that hold enough, consecutive frames from the beginning: (T,S,S,3) each."""
    root, clips = Path(settings.clips), list[Pictures]()
    if not root.is_dir():
        raise UserError(f"video.clips: there is no folder {root}: make it or change the key in params.yaml")
    for path in (path for path in walk(root) if path.suffix.lower() in SUFFIXES):
        if len(clips) == settings.max_clips:
            break
        try:
            # So many frames a second that it takes every one.
            frames = list(islice(sample_frames(path, 1e6, sys.maxsize), settings.clip_frames))
        except Unfit as error:
            print(f"video: {path} is left out: {error}", file=sys.stderr)
            continue
        if len(frames) < settings.clip_frames:
            print(
                f"video: {path} is left out: it has {len(frames)} frames, not {settings.clip_frames}", file=sys.stderr
            )
            continue
        clips.append(np.stack([centre_square(pixels, side) for _, pixels in frames]))
    return clips


def of_stills(settings: Video, model: Model, stills: Pictures) -> dict[str, float]:
    """Flicker of each kind that stills can show, in levels of 255."""
    from models.flicker import camera_path, jitter_path, under_motion, under_noise

    paths = {"camera": camera_path(settings.frames), "jitter": jitter_path(settings.frames)}
    found = under_motion(model, stills, paths)
    return {
        "camera": found["camera"],
        "noise": under_noise(model, stills, settings.frames, settings.noise),
        "jitter": found["jitter"],
    }


def of_clips(outputs: list[Floats], steps: list[Any]) -> float:
    """Flicker over all videos in levels of 255, each weighing the same."""
    from models.flicker import between_frames

    each = [between_frames(frames, motion) for frames, motion in zip(outputs, steps, strict=True)]
    return float(np.sqrt(np.mean(np.square(each))))


def frame_by_frame(model: Model, frames: Pictures) -> Floats:
    """(T,S,S,3) -> the same of a model that sees one frame after the other."""
    return np.concatenate([model(frame[None]) for frame in frames])


def beside_teacher(found: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Levels by kind and whose; and the student's over the teacher's, None without a teacher."""
    flicker = {
        kind: {whose: round(found[whose][kind], DIGITS) if whose in found else None for whose in (TEACHER, *found)}
        for kind in found[PHONE]
    }
    ratios = {
        kind: {whose: over(one[whose], one[TEACHER]) for whose in (FLOAT, PHONE)} for kind, one in flicker.items()
    }
    return {"flicker": flicker, "over_teacher": ratios}


def over(student: float | None, teacher: float | None) -> float | None:
    """The ratio of two flickers in levels of 255, both raised to FLOOR; None where one is not known."""
    from models.metrics import floored_ratio

    if student is None or teacher is None:
        return None
    return round(floored_ratio(student, teacher, FLOOR), DIGITS)


def write_clip(folder: Path, panels: list[Pictures]) -> dict[str, int]:
    """clip.webp (a loop) and clip.png (its first frame) with the panels side by side; returns their size in pixels."""
    gap = np.full((*panels[0].shape[:2], GAP, 3), 255, np.uint8)
    parts = [part for panel in panels for part in (gap, panel)][1:]
    frames = np.concatenate(parts, axis=2)
    write_bytes(folder / "clip.png", png(frames[0]))
    write_bytes(folder / "clip.webp", animated(frames))
    return {"width": frames.shape[2], "height": frames.shape[1], "panels": len(panels)}


def animated(frames: Pictures) -> bytes:
    """(T,H,W,3) as a WebP that plays in a loop, within MAX_CLIP_BYTES if any quality reaches that."""
    from PIL import Image

    first, *rest = (Image.fromarray(frame) for frame in frames)
    for quality in QUALITIES:
        buffer = io.BytesIO()
        options: dict[str, Any] = {"duration": FRAME_MS, "loop": 0, "quality": quality, "method": 4}
        first.save(buffer, format="WEBP", save_all=True, append_images=rest, **options)
        if buffer.tell() <= MAX_CLIP_BYTES:
            break
    return buffer.getvalue()


if __name__ == "__main__":
    student_main("video", video)
