"""docker/compose.yaml as data: its services, and what one of them runs with secrets and addresses filled in."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

VARIABLE = re.compile(r"\$\{(\w+)([^}]*)\}")


def services(repository: Path) -> dict[str, dict[str, Any]]:
    """Name -> the service as written, its anchors followed."""
    found: dict[str, dict[str, Any]] = yaml.safe_load((repository / "docker" / "compose.yaml").read_text())["services"]
    return found


def filled(text: str, values: Mapping[str, str]) -> str:
    """The text with the variables of .env in it; keys of `values` that are no names are pieces of text to replace."""
    pieces = re.compile("|".join(re.escape(key) for key in values if not key.isidentifier()))
    return VARIABLE.sub(lambda found: values[found[1]], pieces.sub(lambda found: values[found[0]], text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A service outside a container."""

    command: list[str]
    environment: dict[str, str]
    health: str  # the address its health check asks, "" if it has none

    @classmethod
    def of(cls, service: Mapping[str, Any], values: Mapping[str, str]) -> Self:
        """With `values` as in `filled`."""
        return cls(
            command=[filled(word, values) for word in service["command"]],
            environment={key: filled(text, values) for key, text in service.get("environment", {}).items()},
            health=filled(service["healthcheck"]["test"][-1], values) if "healthcheck" in service else "",
        )
