"""A teacher from diffusers: any image-to-image pipeline, from the hub at a pinned revision or from a folder.

What is said to the pipeline (prompt, strength, guidance_scale, num_inference_steps, ...) is the block's `call`, by
the pipeline's own names; each pair brings the seed of its noise. Pipelines that begin from text alone are loaded as
their image-to-image counterpart; a ControlNet is given the picture, or its edges.
Raise its number in models/teachers/digests.py when the output changes.
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from models.teachers.digests import teacher_digest
from models.teachers.folders import refuse_pickles
from models.teachers.pinned import places
from models.teachers.sizes import enlarged, resized

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL import Image

# What the teacher says itself.
OWN = ("image", "control_image", "generator", "output_type", "return_dict", "num_images_per_prompt")
PER_PICTURE = ("prompt", "prompt_2", "prompt_3", "negative_prompt", "negative_prompt_2", "negative_prompt_3")


class DiffusionTeacher:
    """The `diffusers` teacher; on a GPU if there is one, else on one thread, as every worker has a core of its own."""

    def __init__(
        self,
        *,
        name: str,
        version: int,
        call: Mapping[str, Any],
        scheduler: str,
        size: int,
        dtype: str,
        control: Mapping[str, Any] | None = None,
        **model: Any,
    ) -> None:
        import torch

        from models.torch_setup import make_torchvision_importable

        make_torchvision_importable()
        from diffusers.utils import logging

        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        self.name = f"{name} v{version}"
        self.call, self.size, self.control = dict(call), size, control
        decisive = {"call": call, "scheduler": scheduler, "size": size, "dtype": dtype, "control": control, **model}
        settings = {"kind": "diffusers", **decisive}
        self.digest = teacher_digest(settings)
        folders = {place.key: place.check(self.name) for place in places(settings)}
        for folder in folders.values():
            refuse_pickles(folder, self.name)
        networks = {}
        if control:
            networks["controlnet"] = _load_control(folders["control.model"], getattr(torch, dtype), self.name)
        self.pipeline = _load(folders["model"], getattr(torch, dtype), self.name, networks)
        self.takes = inspect.signature(self.pipeline.__call__).parameters
        self._check_call()
        if scheduler:
            self.pipeline.scheduler = _scheduler(scheduler, self.pipeline.scheduler.config, self.name)
        self._place()

    def __call__(self, inputs: npt.NDArray[np.uint8], seeds: Sequence[int]) -> npt.NDArray[np.float32]:
        """(B,H,W,3) uint8 RGB -> (B,H,W,3) float32 in [0,1]; NaN where the pipeline's safety checker refuses a picture.

        The batch is worked on as one. Which others a picture shares it with may change the last bits, as the kernels
        add in another order.
        """
        import torch
        from PIL import Image

        if self.pipeline.device.type == "cpu":
            torch.set_num_threads(1)
        pictures = [Image.fromarray(enlarged(picture, self.size)) for picture in inputs]
        said = {key: [value] * len(inputs) if key in PER_PICTURE else value for key, value in self.call.items()}
        if "control_image" in self.takes:
            said["control_image"] = [self._condition(picture) for picture in pictures]
        noise = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        with torch.inference_mode():
            made = self.pipeline(image=pictures, generator=noise, output_type="np", **said)
        values = np.asarray(made.images, dtype=np.float32)
        for place, refused in enumerate(getattr(made, "nsfw_content_detected", None) or ()):
            if refused:
                values[place] = np.nan
        return np.stack([resized(picture, inputs.shape[1:3]) for picture in values])

    def _condition(self, picture: "Image.Image") -> "Image.Image":
        """What a ControlNet sees: the picture, or its edges (Canny 1986) in white on black."""
        from PIL import Image
        from skimage import feature

        if not self.control or self.control["shows"] == "picture":
            return picture
        edges = feature.canny(np.asarray(picture.convert("L"), dtype=np.float64) / 255, sigma=1.5)
        return Image.fromarray(edges.astype(np.uint8) * 255).convert("RGB")

    def _check_call(self) -> None:
        for key in self.call:
            if key not in self.takes or key in OWN:
                known = sorted(set(self.takes) - set(OWN) - {"kwargs", "args"})
                raise UserError(
                    f"teacher {self.name}: {type(self.pipeline).__name__} takes no {key!r} in its call; it takes: "
                    + ", ".join(known)
                )
        if "image" not in self.takes:
            raise UserError(
                f"teacher {self.name}: {type(self.pipeline).__name__} takes no image: use an image-to-image pipeline"
            )

    def _place(self) -> None:
        """Onto the GPU, in the memory layout its convolutions like best."""
        import torch

        pipeline = self.pipeline
        pipeline.set_progress_bar_config(disable=True)
        network = getattr(pipeline, "unet", None)
        if network is not None:
            network.to(memory_format=torch.channels_last)
        if torch.cuda.is_available():
            pipeline.to("cuda")
            if network is not None:
                pipeline.unet = torch.compile(network)


def _load(folder: Path, dtype: Any, name: str, networks: Mapping[str, Any]) -> "DiffusionPipeline":
    """The image-to-image pipeline in a folder; it may name classes of diffusers and transformers, no others."""
    import diffusers
    from diffusers import DiffusionPipeline

    try:
        wanted = json.loads((folder / "model_index.json").read_text())["_class_name"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"teacher {name}: {folder} holds no pipeline of diffusers (model_index.json)") from None
    found = _own(wanted) or getattr(diffusers, str(wanted), None)
    if not (isinstance(found, type) and issubclass(found, DiffusionPipeline)):
        raise UserError(f"teacher {name}: its pipeline {wanted!r} is not one of diffusers: no code of a model is run")
    # The second imports every pipeline there is.
    loader = diffusers.AutoPipelineForImage2Image if networks or _begins_from_text(found) else found
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "local_files_only": True, **networks}
    try:
        return loader.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"teacher {name}: diffusers cannot load it: {_line(error)}") from None


def _own(wanted: str) -> Any:
    """A pipeline of this project's by its name, or None."""
    if wanted != "RestylePipeline":
        return None
    from models.teachers.restyler import RestylePipeline

    return RestylePipeline


def _begins_from_text(pipeline: Any) -> bool:
    """Whether it takes no picture, or only one for its ControlNet."""
    takes, made_of = (inspect.signature(what).parameters for what in (pipeline.__call__, pipeline.__init__))
    return "image" not in takes or ("controlnet" in made_of and "control_image" not in takes)


def _load_control(folder: Path, dtype: Any, name: str) -> Any:
    from diffusers import ControlNetModel

    try:
        return ControlNetModel.from_pretrained(folder, dtype=dtype, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"teacher {name}: diffusers cannot load its ControlNet: {_line(error)}") from None


def _scheduler(wanted: str, config: Any, name: str) -> Any:
    """A scheduler of diffusers by its class's name, with the settings of the one that is replaced."""
    import diffusers
    from diffusers import SchedulerMixin

    found = getattr(diffusers, wanted, None)
    if not (isinstance(found, type) and issubclass(found, SchedulerMixin)):
        raise UserError(f"teacher {name}: diffusers has no scheduler {wanted!r}")
    return found.from_config(config)  # type: ignore[attr-defined]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
