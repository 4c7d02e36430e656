"""Task kinds: which functions are the stages of a student, by the `task` of its block in params.yaml.

A student of pictures is made by the modules that the stages are named for; what others need is in a package of theirs.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from models.errors import UserError

PICTURES = "image-to-image"
PACKAGES = {"image-classification": "tasks.classification", "text-classification": "tasks.classification"}


def stage_of(task: str, stage: str) -> Callable[[Any, str, Any], None]:
    """The function of a stage for a kind of task, (params, name, block); UserError where it has no such stage."""
    try:
        module = import_module(f"{PACKAGES[task]}.{stage}")
    except ModuleNotFoundError as error:
        if error.name != f"{PACKAGES[task]}.{stage}":
            raise
        raise UserError(f"{task} has no stage {stage}") from None
    found: Callable[[Any, str, Any], None] = getattr(module, stage)
    return found


def facts_of(task: str) -> Mapping[str, Callable[..., Any]]:
    """What MLflow is told of each stage of a kind of task, (params, name, block) -> StageFacts."""
    module = import_module("tasks.facts" if task == PICTURES else f"{PACKAGES[task]}.facts")
    facts: Mapping[str, Callable[..., Any]] = module.FACTS
    return facts
