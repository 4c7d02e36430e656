"""What a convolutional teacher holds inside, by the names of its modules, for students that learn from that too.

An ONNX file names tensors; what comes after those asked for is cut off and not computed. A trained student has modules.
Other kinds (painter, diffusion, an API) have no features that belong to one place of a picture.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.errors import UserError
from models.features import Inner, module_features
from models.teachers.onnx_model import OnnxTeacher, read_pinned, start
from models.teachers.student import StudentTeacher


def inner_features(settings: Mapping[str, Any], paths: Sequence[str]) -> Inner:
    """The function (B,3,H,W) in [0,1] -> features (B,C,h,w), one a path, of the teacher of a `teacher:` block."""
    own = {key: value for key, value in settings.items() if key != "kind"}
    if settings["kind"] == "onnx":
        return _of_onnx(OnnxTeacher(**own), settings, paths)
    if settings["kind"] == "student":
        return _of_student(StudentTeacher(**own), paths)
    raise UserError(
        f"train.features: a {settings['kind']} teacher has no features to learn from, only onnx and student ones: "
        "set it to []"
    )


def _of_student(teacher: StudentTeacher, paths: Sequence[str]) -> Inner:
    found = module_features(teacher.student, paths)
    return lambda pictures, *_: found(pictures)  # a strength is the learning student's own


def _of_onnx(teacher: OnnxTeacher, settings: Mapping[str, Any], paths: Sequence[str]) -> Inner:
    import onnx
    from onnx.utils import Extractor

    data = read_pinned(Path(settings["path"]), settings["sha256"], teacher.name)
    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(data))
    known = {value.name for value in model.graph.value_info}
    for path in paths:
        if path not in known:
            near = ", ".join(get_close_matches(path, known, n=4, cutoff=0.0))
            raise UserError(f"train.features: teacher {teacher.name} has no tensor {path!r}; near: {near}")
    wanted = list(dict.fromkeys(paths))
    taken = teacher.session.get_inputs()[0].name
    session = start(
        Extractor(model).extract_model([taken], wanted).SerializeToString(),
        teacher.name,
        threads=torch.get_num_threads(),
    )
    channels_last = teacher.layout == "NHWC"

    def features(pictures: Tensor, *_: Tensor) -> list[Tensor]:
        values = pictures.detach().cpu().numpy()
        given = session.run(
            wanted, {taken: np.ascontiguousarray(values.transpose(0, 2, 3, 1) if channels_last else values)}
        )
        found = {name: torch.from_numpy(value).to(pictures.device) for name, value in zip(wanted, given, strict=True)}
        return [found[path].permute(0, 3, 1, 2) if channels_last else found[path] for path in paths]

    return features
