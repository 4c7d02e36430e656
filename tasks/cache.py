"""What a dvc.lock names against what DVC's cache really holds: DVC trusts its cache, and hands back rotten bytes.

Reads DVC's cache, files/md5/AB/CDEF... below its folder (`dvc cache dir`); removes objects from it that are not what
they are called, so that DVC makes them again. (`dvc checkout` puts corrupt bytes in place with exit code 0.)
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

MD5 = re.compile(r"^[0-9a-f]{32}(\.dir)?$")
FOLDER = ".dir"  # ends the name of an object that lists a folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An output, or a file of one, that the cache cannot give back."""

    name: str  # the path in the checkout
    object: Path  # in the cache
    state: Literal["missing", "corrupt"]

    def __str__(self) -> str:
        return f"{self.name} is {self.state} in DVC's cache ({self.object})"


def check_outputs(lock: Mapping[str, Any], cache: Path) -> list[str]:
    """A line for every output of a parsed dvc.lock that is missing or corrupt in the cache; none if all is well.

    Reads every byte (0.4 GB/s). Outputs that DVC does not keep in its cache (`cache: false`) cannot be told
    from missing ones by the lock alone; dvc.yaml has none.
    """
    return [str(finding) for finding in _findings(lock, cache)]


def drop_corrupt(lock: Mapping[str, Any], cache: Path) -> list[str]:
    """Remove the corrupt objects, so that the next run makes them again; returns the paths that they stood for."""
    found = [finding for finding in _findings(lock, cache) if finding.state == "corrupt"]
    for finding in found:
        finding.object.unlink(missing_ok=True)
    return [finding.name for finding in found]


def _findings(lock: Mapping[str, Any], cache: Path) -> Iterator[Finding]:
    seen: set[str] = set()
    for stage in (lock.get("stages") or {}).values():
        for out in stage.get("outs", ()):
            yield from _output(out["path"], str(out.get("md5", "")), cache, seen)


def _output(name: str, md5: str, cache: Path, seen: set[str]) -> Iterator[Finding]:
    """The output itself, and the files in it if it is a folder; each object is read once."""
    if md5 in seen:
        return
    seen.add(md5)
    if not MD5.match(md5):  # nothing that could be a file in the cache, and no path may be made from it
        yield Finding(name=name, object=cache / "files" / "md5", state="missing")
        return
    place = cache / "files" / "md5" / md5[:2] / md5[2:]
    state = _state(place, md5)
    if state is not None:
        yield Finding(name=name, object=place, state=state)
    elif md5.endswith(FOLDER):
        for member in json.loads(place.read_bytes()):
            yield from _output(f"{name}/{member['relpath']}", str(member["md5"]), cache, seen)


def _state(place: Path, md5: str) -> Literal["missing", "corrupt"] | None:
    with suppress(FileNotFoundError), place.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        return None if found == md5.removesuffix(FOLDER) else "corrupt"
    return "missing"
