"""The frozen evaluation panel: inputs that are on the test side for good, whatever seed, shares and sources become.

Reads and writes data/panel.json, which is under version control: it goes from one teacher version to the next, so that
their students are measured on the same pictures. Commands: tasks/panel.py. Kept by tasks/ingest.py, checked again by
tasks/splits.py, measured by tasks/panel_quality.py.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import UserError
from tasks.files import read_json, sha256_json, write_json
from tasks.records import Record, SplitName

PANEL = Path("data/panel.json")
SCHEMA = "understudy-panel/1"
SHA256 = re.compile(r"[0-9a-f]{64}")
HASH = re.compile(r"[0-9a-f]{16}")
NAMED = 3  # inputs that a line names


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelInput(Record):
    """One frozen input: by what it is, not by where it lies; its file may be renamed."""

    origin: str  # where it came from when it was frozen, for people
    file: str  # sha256 of the file; all frames of a video have one
    digest: str  # Input.digest
    hashes: tuple[str, str]  # perceptual hashes of the picture and of its mirror image, 16 hex digits each

    @property
    def hash_bits(self) -> tuple[int, int]:
        """The hashes as tasks.pictures.groups takes them."""
        plain, mirrored = self.hashes
        return int(plain, 16), int(mirrored, 16)


def read_panel(path: Path = PANEL) -> list[PanelInput]:
    """The frozen inputs; none where there is no file. A UserError where it is not as `write_panel` leaves it."""
    if not path.exists():
        return []
    value = read_json(path)
    try:
        if value.keys() != {"schema", "inputs"} or value["schema"] != SCHEMA:
            raise ValueError(f"not a panel of schema {SCHEMA}")
        panel = [_checked(one) for one in value["inputs"]]
        if len({one.digest for one in panel}) < len(panel):
            raise ValueError("an input is named twice")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: {error}: restore it (git checkout {path}), it is what results are compared on"
        ) from None
    return panel


def _checked(value: Mapping[str, Any]) -> PanelInput:
    plain, mirrored = value["hashes"]
    one = PanelInput.from_json({**value, "hashes": (plain, mirrored)})
    if not all(SHA256.fullmatch(text) for text in (one.file, one.digest)) or not all(map(HASH.fullmatch, one.hashes)):
        raise ValueError(f"{one.origin}: its digests or hashes are not hex digits of the right length")
    return one


def write_panel(panel: Sequence[PanelInput], path: Path = PANEL) -> None:
    """Write the panel, by origin."""
    inputs = [one.to_json() for one in sorted(panel, key=lambda one: (one.origin, one.digest))]
    write_json(path, {"schema": SCHEMA, "inputs": inputs})


def panel_digest(panel: Sequence[PanelInput]) -> str:
    """What the panel is, wherever its files lie."""
    return sha256_json(sorted(one.digest for one in panel))


def check_present(panel: Sequence[PanelInput], digests: Collection[str], files: Collection[str]) -> None:
    """Refuse sources without a panel input; `digests` and `files` are those of all usable pictures found."""
    missing = [one for one in panel if one.digest not in digests]
    if not missing:
        return
    first = missing[0]
    names = ", ".join(one.origin for one in missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
    if first.file in files:
        raise UserError(
            f"{len(missing)} of {len(panel)} panel inputs come out as other pictures than were frozen ({names}): set "
            "ingest.max_side and frames_per_second back to what they were, or give the input up with "
            f"`python -m tasks.panel drop {first.origin}`"
        )
    raise UserError(
        f"{len(missing)} of {len(panel)} inputs of the frozen panel are not among the sources ({names}): put the files "
        f"back, or give the input up with `python -m tasks.panel drop {first.origin}`"
    )


def check_not_taught(panel: Sequence[PanelInput], taught: Mapping[str, SplitName], what: str, remedy: str) -> None:
    """Refuse pairs (input digest -> side) that would train or validate on a panel input."""
    for one in panel:
        side = taught.get(one.digest, "test")
        if side != "test":
            raise UserError(f"{what}: {one.origin} of the frozen panel is on the {side} side: {remedy}")
