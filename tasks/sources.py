"""Where inputs come from: a folder of the user's, and the photographs that Python libraries ship.

Reads SOURCE.json files ({"origin": text, "licence": text}); each counts for its folder and those below it,
unless one nearer to the file says otherwise.
"""

import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from models.errors import UserError

SOURCE = "SOURCE.json"
NOT_INPUTS = frozenset({SOURCE, "README.md"})
UNSTATED = "not stated"

# The colour photographs each package carries, with the rights its own documentation states.
LIBRARIES: dict[str, tuple[str, str, dict[str, str]]] = {
    "scikit-image": (
        "skimage",
        "data",
        {
            "astronaut.png": "public domain, no known copyright restrictions (NASA Great Images)",
            "chelsea.png": "CC0 by the photographer (Stefan van der Walt)",
            "coffee.png": "CC0 by the photographer (Rachel Michetti)",
            "hubble_deep_field.jpg": "may be freely used in the public domain (NASA, HubbleSite)",
            "ihc.png": "no known copyright restrictions (Center for Microscopy And Molecular Imaging)",
            "motorcycle_left.png": "licence not stated; Middlebury 2014 stereo benchmark (Scharstein et al.)",
            "motorcycle_right.png": "licence not stated; Middlebury 2014 stereo benchmark (Scharstein et al.)",
            "retina.jpg": "CC0 1.0 (Mikael Haggstrom, WikiJournal of Medicine 2014)",
            "rocket.jpg": "public domain (SpaceX Photos)",
        },
    ),
    "scikit-learn": (
        "sklearn",
        "datasets/images",
        {
            "china.jpg": "CC BY 2.0 (danielbuechele, flickr)",
            "flower.jpg": "CC BY 2.0 (vultilion, flickr)",
        },
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file that may become inputs."""

    path: Path
    origin: str
    licence: str


def library_sources(name: str) -> list[Source]:
    """The photographs of one installed package; nothing is imported or downloaded."""
    package, below, licences = LIBRARIES[name]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"ingest.libraries: {name} is not installed: make env, or take it off the list")
    folder = Path(spec.submodule_search_locations[0]) / below
    sources = [
        Source(path=folder / file, origin=f"library:{name}/{file}", licence=licence)
        for file, licence in licences.items()
    ]
    for source in sources:
        if not source.path.is_file():
            raise UserError(f"{source.origin}: this version of {name} does not ship it: make env, or take {name} off")
    return sources


def read_licence(path: Path) -> str:
    """The licence note of a SOURCE.json; a UserError naming the file when it is not as documented."""
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): mend it or delete it") from None
    whole = isinstance(value, dict) and value.keys() == {"origin", "licence"}
    if not whole or not all(isinstance(text, str) and text.strip() for text in value.values()):
        raise UserError(f'{path} must be {{"origin": text, "licence": text}} and nothing else')
    return f"{value['licence']} ({value['origin']})"


def _children(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def walk(root: Path) -> Iterator[Path]:
    """Every entry below `root` that is no folder, by path; hidden names are left out.

    Links to folders are followed, but each real folder is visited once, under its own name if it lies
    below `root`; a link to a folder that contains `root` would lead around in a circle and is not followed.
    """
    real_root = root.resolve()
    visited = {real_root, *real_root.parents}
    folders, links, found = [root], list[Path](), list[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        if folder != root and folder.resolve() in visited:
            continue
        visited.add(folder.resolve())
        for path in _children(folder):
            if not path.is_dir():
                found.append(path)
            elif path.is_symlink():
                links.append(path)
            else:
                folders.append(path)
    yield from sorted(found)


def folder_sources(root: Path) -> list[Source]:
    """The files below the user's folder, each with the licence note that is nearest to it."""
    if not root.is_dir():
        raise UserError(f"ingest.folder: there is no folder {root}: make it or change the key in params.yaml")
    if not os.access(root, os.R_OK | os.X_OK):
        raise UserError(f"ingest.folder: {root} cannot be read: check its permissions")
    notes: dict[Path, str] = {}

    def note(folder: Path) -> str:
        if folder not in notes:
            above = UNSTATED if folder == root else note(folder.parent)
            notes[folder] = read_licence(folder / SOURCE) if (folder / SOURCE).is_file() else above
        return notes[folder]

    return [
        Source(path=path, origin=f"folder:{path.relative_to(root).as_posix()}", licence=note(path.parent))
        for path in walk(root)
        if path.name not in NOT_INPUTS
    ]
