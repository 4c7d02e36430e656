"""Freezes test inputs as the evaluation panel, shows it, checks it, and takes inputs out of it.

Reads data/inputs and the files it was made of; writes data/panel.json (tasks/panel_inputs.py), which is to be
committed: from then on ingest keeps these inputs on the test side, and every report says how a student does on them.

Commands: python -m tasks.panel freeze [--share 0.5 | --count 10] [--seed 0]
          python -m tasks.panel show
          python -m tasks.panel check
          python -m tasks.panel drop ORIGIN [ORIGIN ...]
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from models.errors import UserError
from tasks import pictures
from tasks.files import sha256_file
from tasks.ingest import INPUTS, find_sources
from tasks.panel_inputs import PANEL, PanelInput, check_not_taught, panel_digest, read_panel, write_panel
from tasks.params import Params, load_params
from tasks.records import Input, Verdict, read_records
from tasks.stage import STUDENTS, guarded


def draw_groups(groups: Sequence[str], count: int, seed: int) -> set[str]:
    """`count` of the groups, the same for a seed in any order."""
    names = sorted(set(groups))
    return {names[index] for index in np.random.default_rng(seed).permutation(len(names))[:count]}


def file_of(one: Input) -> str:
    """The origin of the file an input comes from; a frame's own ends in #SECONDS."""
    return one.origin.rpartition("#")[0] if one.clip else one.origin


def freeze(params: Params, share: float, count: int | None, seed: int) -> list[PanelInput]:
    """Write the panel: whole groups of test inputs. UserError where one is frozen already or nothing is to be had."""
    if read_panel():
        raise UserError(
            f"{PANEL} holds a panel already, and figures on another would not compare: keep it, or drop its inputs "
            "first (python -m tasks.panel show)"
        )
    test = [one for one in read_records(INPUTS / "inputs.jsonl", Input) if one.split == "test"]
    groups = [one.group for one in test]
    there = len(set(groups))
    wanted = round(share * there) if count is None else count
    if not 0 < wanted <= there:
        raise UserError(f"a panel of {wanted} photos or clips: data/inputs has 1 to {there} on the test side to freeze")
    chosen = draw_groups(groups, wanted, seed)
    paths = {source.origin: source.path for source in find_sources(params.ingest)}
    panel = [_frozen(one, paths.get(file_of(one))) for one in test if one.group in chosen]
    write_panel(panel)
    return panel


def _frozen(one: Input, path: Path | None) -> PanelInput:
    if path is None or not path.is_file():
        raise UserError(f"{one.origin} is in {INPUTS}, but its file is gone: run dvc repro ingest, then freeze")
    plain, mirrored = pictures.perceptual_hashes(pictures.read_input(INPUTS / "images", one.digest))
    file = sha256_file(path)
    if one.clip not in ("", file):
        raise UserError(f"{path} has changed since ingest read it: run dvc repro ingest, then freeze")
    hashes = (f"{plain:016x}", f"{mirrored:016x}")
    return PanelInput(origin=one.origin, file=file, digest=one.digest, hashes=hashes)


def drop(names: Sequence[str]) -> list[PanelInput]:
    """Take these origins (or the first digits of digests) out of the panel; returns what is left."""
    panel = read_panel()
    for name in names:
        found = [one for one in panel if one.origin == name or (len(name) >= 8 and one.digest.startswith(name))]
        if not found:
            raise UserError(
                f"no input {name} in {PANEL}; there are: {', '.join(one.origin for one in panel) or 'none'}"
            )
        panel = [one for one in panel if one not in found]
    write_panel(panel)
    return panel


def check() -> str:
    """Whether data/inputs and every student's pairs keep to the panel, in words; UserError where one does not."""
    panel = read_panel()
    if not panel:
        raise UserError(f"no panel is frozen in {PANEL}: python -m tasks.panel freeze")
    inputs = read_records(INPUTS / "inputs.jsonl", Input)
    sides = {one.digest: one.split for one in inputs}
    for one in panel:
        if one.digest not in sides:
            raise UserError(f"{one.origin} of the frozen panel is not in {INPUTS}: run dvc repro ingest")
    check_not_taught(panel, sides, str(INPUTS), "run dvc repro ingest")
    taught = sorted(STUDENTS.glob("*/pairs/kept.jsonl"))
    for kept in taught:
        pairs = {verdict.input: verdict.split for verdict in read_records(kept, Verdict)}
        name = kept.parent.parent.name
        check_not_taught(panel, pairs, str(kept), f"run dvc repro lineage@{name}, its student has been taught on it")
    return f"{len(panel)} inputs are on the test side of {INPUTS} and in no training pairs of {len(taught)} students"


def _words(panel: Sequence[PanelInput]) -> str:
    files = len({one.file for one in panel})
    return f"{len(panel)} inputs of {files} files, panel {panel_digest(panel)[:12]}"


def _show() -> str:
    panel = read_panel()
    if not panel:
        return f"panel: none is frozen in {PANEL}; python -m tasks.panel freeze"
    lines = [f"{one.digest[:12]}  file {one.file[:12]}  {one.origin}" for one in panel]
    return "\n".join([*lines, f"panel: {_words(panel)}"])


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tasks.panel")
    commands = parser.add_subparsers(dest="command", required=True)
    freezing = commands.add_parser("freeze", help="make test inputs the panel")
    many = freezing.add_mutually_exclusive_group()
    many.add_argument("--share", type=float, default=1.0, help="of the test side's photos and clips (default: all)")
    many.add_argument("--count", type=int, help="of them")
    freezing.add_argument("--seed", type=int, default=0)
    commands.add_parser("show", help="what is frozen")
    commands.add_parser("check", help="whether inputs and pairs keep to it")
    dropping = commands.add_parser("drop", help="take inputs out")
    dropping.add_argument("origins", nargs="+")
    asked = parser.parse_args()

    def froze() -> str:
        panel = freeze(load_params(), asked.share, asked.count, asked.seed)
        return f"panel: {_words(panel)} frozen in {PANEL}; commit it"

    answers: dict[str, Callable[[], str]] = {
        "freeze": froze,
        "show": _show,
        "check": lambda: f"panel: {check()}",
        "drop": lambda: f"panel: {_words(drop(asked.origins))} left in {PANEL}; commit it",
    }
    guarded("panel", lambda: print(answers[asked.command]()))


if __name__ == "__main__":
    main()
