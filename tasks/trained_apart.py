"""Students taught apart from the train stage, for comparisons: of one student's pairs, by a block that was changed.

Kept in data/.work/NAME/apart under the digest of all that decides the result, so that what is killed goes on, and what
several comparisons ask for (tasks/recipes.py, tasks/architectures.py, tasks/ceiling.py) is trained once.
"""

import time
from pathlib import Path

from tasks.files import read_json, sha256_json, write_json
from tasks.params import Params
from tasks.stage import STUDENTS, work_folder
from tasks.student_params import Student

SCRATCH = "models/start/scratch"


def train_apart(params: Params, name: str, block: Student, share: float = 1.0) -> Path:
    """The folder with student/ and seconds.json of one block, which has its seed; made if it is not there yet.

    `share` is how much of the training pairs the student sees. Neither compress nor quantise_aware is followed.
    """
    from tasks.learning import CODE, digests, first, learn, make_recipe, publish, start_record
    from tasks.train import controlled

    start = start_record(Path(block.init), block)
    work = block.model_dump(include={"architecture", "train", "control"}) | {"init": start, "code": digests(CODE)}
    work |= {"pairs": read_json(STUDENTS / name / "pairs" / "pairs.json")["digest"], "share": share}
    folder = work_folder(name) / "apart" / sha256_json(work)[:16]
    if (folder / "student").is_dir():
        return folder
    begun, ranks = first(block)
    started = time.monotonic()
    checkpoint = folder / "checkpoint.safetensors"
    trained, curve = learn(name, block, begun, make_recipe(params, block), checkpoint, share=share)
    count = sum(parameter.numel() for parameter in trained.parameters())
    record = {"architecture": block.architecture.model_dump(), "size": block.pairs.size, "parameters": count}
    record |= {"ranks": ranks, **controlled(block)}
    write_json(folder / "seconds.json", round(time.monotonic() - started, 1))  # of the last go, if it was killed
    publish(folder / "student", trained, record, curve)
    checkpoint.unlink()
    return folder
