"""What a search found: its trials as rows, the best of them, pictures and a page, and the block for params.yaml."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from models.errors import UserError
from models.spread import spread
from tasks.charts import Pictures, pareto_png, sample_sheet
from tasks.files import replacing_folder, write_bytes, write_json, write_text
from tasks.gate_params import Gate
from tasks.machine_state import machine
from tasks.params_text import write_params
from tasks.pareto import front, page
from tasks.search_study import OWN, Work, ended
from tasks.search_trial import SHOWN
from tasks.stage import STUDENTS

if TYPE_CHECKING:
    from optuna import Study


Row = dict[str, Any]
CLASSES = (0.5, 0.75, 1.0, 1.5)  # of latency, over that of the block's own architecture
HEADINGS = (
    *("trial", "state", "encoder", "decoder", "parameters", "MMAC", "KiB", "p90 ms", "over own"),
    *("explained effect", "sharpness", "chroma", "why"),
)
NOTE = (
    "A marked row is on the Pareto front: no other trial that keeps the limits is as fast and as good. Latency is of "
    "the untrained file on one thread: the p90 of the block's own architecture when the search began, times the ratio "
    "of medians timed in turn, so a machine that became slower meanwhile is reckoned out. Quality is of the float32 "
    "student on the validation pairs, after one training each: a seed is worth some 0.02."
)


def excesses(figures: Mapping[str, float], gate: Gate) -> dict[str, tuple[float, str]]:
    """By how much each limit of quality is broken (0 or less: kept), and that in words."""
    sharp, chroma = figures["sharpness_ratio"], figures["chroma_ratio"]
    least, most = gate.min_sharpness_ratio, gate.max_sharpness_ratio
    return {
        "sharpness": (max(least - sharp, sharp - most), f"sharpness {sharp:.2f} is not in {least:g} to {most:g}"),
        "chroma": (gate.min_chroma_ratio - chroma, f"chroma {chroma:.2f} is below {gate.min_chroma_ratio:g}"),
    }


def rows_of(study: "Study") -> list[Row]:
    """The trials that ended, in their order, with the Pareto front of those that keep every limit."""
    rows = []
    for one in ended(study):
        attrs = one.user_attrs
        row: Row = {"trial": one.number, "own": bool(attrs.get(OWN)), "point": one.params}
        row |= {key: attrs.get(key) for key in ("architecture", "losses", "cost", "quality", "state", "reason")}
        rungs = [{"step": step, "explained_effect": value} for step, value in one.intermediate_values.items()]
        rows.append(row | {"rungs": sorted(rungs, key=lambda rung: rung["step"]), "front": False})
    finished = [row for row in rows if row["state"] == "finished"]
    for row, mark in zip(finished, front([latency_and_effect(row) for row in finished]), strict=True):
        row["front"] = mark
    return rows


def latency_and_effect(row: Row) -> tuple[float, float]:
    """Where a trial that was scored lies."""
    return row["cost"]["p90_ms"], row["quality"]["explained_effect"]


def best(rows: Sequence[Row]) -> Row | None:
    """The trial of the greatest effect that keeps every limit; the fastest of such."""
    finished = [row for row in rows if row["state"] == "finished"]
    return max(finished, key=lambda row: (latency_and_effect(row)[1], -latency_and_effect(row)[0]), default=None)


def best_by_latency(rows: Sequence[Row]) -> dict[str, int]:
    """The best trial's number in each class of latency that has one, by the class's upper end over the block's own."""
    found = {}
    below = 0.0
    for most in (*CLASSES, float("inf")):
        inside = [row for row in rows if row["state"] == "finished" and below < row["cost"]["over_reference"] <= most]
        winner = best(inside)
        if winner:
            found["more" if most == float("inf") else f"{most:g}"] = int(winner["trial"])
        below = most
    return found


def publish(study: "Study", work: Work, *, write: bool) -> None:
    """Write data/students/NAME/search and, if asked, params.yaml; a UserError where nothing keeps every limit."""
    rows = rows_of(study)
    choice = best(rows)
    out = STUDENTS / work.name / "search"
    with replacing_folder(out) as made:
        write_result(made, rows, choice, work)
    if choice is None:
        raise UserError(f"{nothing(rows, work)}; all trials: {out / 'index.html'}")
    tell(rows, choice, out)
    if write and not choice["own"]:
        write_params(work.name, sections(choice, work))
        print("params.yaml has it now: understudy run makes it")


def write_result(made: Path, rows: Sequence[Row], choice: Row | None, work: Work) -> None:
    """The files of the result."""
    gate, steps = work.block.gate, work.block.train.steps
    where = gate.target.partition(":")[0]  # without an address
    about = {"student": work.name, "key": work.key, "steps": steps, "seed": work.seed, "machine": machine()}
    about |= {"target": where, "max_p90_ms": gate.max_p90_ms, "space": work.space.model_dump()}
    chosen = {"choice": choice and choice["trial"], "best_by_latency": best_by_latency(rows)}
    write_json(made / "search.json", {**about, **chosen, "trials": list(rows)})
    title = f"Search for {work.name}: {len(rows)} trials of {steps} steps"
    scored = [row for row in rows if row["quality"] and row["cost"]]
    if scored:
        label = f"latency, ms (p90 on {where}, one thread)"
        write_bytes(made / "front.png", pareto_png([dot(row, choice) for row in scored], title, label))
        write_bytes(made / "samples.png", samples(scored, choice, work))
    words = f"Budget {gate.max_p90_ms:g} ms on {where}; {machine()['cpu']}. {in_words(rows, choice)}"
    shown = [{"front": row["front"], "cells": cells(row)} for row in rows]
    captions = {"front": "Quality over latency", "samples": "Validation pictures, float32"} if scored else {}
    write_text(made / "index.html", page(title, words, HEADINGS, shown, NOTE, captions))
    if choice:
        write_text(made / "params.block.yaml", as_block(choice, work))


def dot(row: Row, choice: Row | None) -> Row:
    """A trial as tasks/charts.py draws one, the kinds told apart by colour."""
    kind = "choice" if row is choice else "the block's own" if row["own"] else "trial"
    latency, effect = latency_and_effect(row)
    kind = kind if row["state"] == "finished" else f"{kind}, outside a limit"
    place = {"litert_ms": latency, "explained_effect": effect}
    return {"student": str(row["trial"]), "precision": kind, "front": row["front"], **place}


def cells(row: Row) -> list[str]:
    """A row's values as the page shows them, by HEADINGS."""
    architecture, cost, quality = row["architecture"] or {}, row["cost"] or {}, row["quality"] or {}
    decoder = " ".join(map(str, architecture.get("decoder_channels", [])))
    shown = [f"{row['trial']}{' (own)' if row['own'] else ''}", row["state"], architecture.get("encoder", ""), decoder]
    shown += [f"{cost[key]:,}" if key in cost else "" for key in ("parameters", "mega_macs")]
    shown += [f"{cost['bytes'] / 1024:.0f}" if "bytes" in cost else ""]
    shown += [f"{cost[key]:.2f}" if key in cost else "" for key in ("p90_ms", "over_reference")]
    figures = ("explained_effect", "sharpness_ratio", "chroma_ratio")
    return [*shown, *(f"{quality[key]:.3f}" if quality else "" for key in figures), row["reason"]]


def samples(scored: Sequence[Row], choice: Row | None, work: Work) -> bytes:
    """A PNG of some validation pictures: input, teacher, and what the block's own and the choice make of them."""
    from tasks.quality import read_pairs

    inputs, targets = read_pairs(STUDENTS / work.name / "pairs", "val")
    rows = spread(len(inputs), SHOWN)
    columns: dict[str, Pictures] = {"input": inputs[rows], "teacher": targets[rows]}
    for row in scored:
        path = work.folder / f"trial-{row['trial']}.npy"
        if (row["own"] or row is choice) and path.exists():
            name = f"{row['trial']} ({'own' if row['own'] else 'choice'})"
            columns[name] = np.load(path, allow_pickle=False)
    sheet = {str(place + 1): {name: column[place] for name, column in columns.items()} for place in range(len(rows))}
    return sample_sheet(sheet, {name: name for name in columns})


def in_words(rows: Sequence[Row], choice: Row | None) -> str:
    """Whether the block's own architecture was beaten."""
    own = next((row for row in rows if row["own"]), None)
    if choice is None:
        return "No trial keeps every limit."
    effect = latency_and_effect(choice)[1]
    told = f"Trial {choice['trial']} is the best: explained effect {effect:.3f} at {choice['cost']['p90_ms']:.3g} ms"
    if choice is own:
        return f"{told}; it is the block's own architecture, which nothing has beaten."
    if own is None or not own["quality"]:
        return f"{told}; the block's own was {'not tried' if own is None else own['state']}."
    place = latency_and_effect(own)
    beside = "" if own["state"] == "finished" else f" ({own['reason']})"
    return f"{told}; the block's own has {place[1]:.3f} at {place[0]:.3g} ms{beside}."


def nothing(rows: Sequence[Row], work: Work) -> str:
    """Why there is no choice, with the trial that came nearest."""
    gate = work.block.gate
    if not rows:
        return "no trial has ended: give it more --minutes"
    scored = [row for row in rows if row["state"] == "outside"]
    if scored:
        near = max(scored, key=lambda row: latency_and_effect(row)[1])
        why = f"the best of them, trial {near['trial']}: {near['reason']}"
        return f"no trial of {len(rows)} keeps the gate's limits of quality ({why}): more --steps may"
    timed = [row for row in rows if row["cost"] and "p90_ms" in row["cost"]]
    if timed and all(row["cost"]["p90_ms"] > gate.max_p90_ms for row in timed):
        near = min(timed, key=lambda row: float(row["cost"]["p90_ms"]))
        why = f"the fastest, trial {near['trial']}, takes {near['cost']['p90_ms']:.3g} ms"
        return f"no trial of {len(rows)} keeps the budget of {gate.max_p90_ms:g} ms on {gate.target} ({why}): raise it"
    return f"no trial of {len(rows)} was finished (the last: {rows[-1]['reason']}): widen the space"


def tell(rows: Sequence[Row], choice: Row, out: Path) -> None:
    """Print the choice and the best of each class of latency."""
    print(in_words(rows, choice))
    by_number = {row["trial"]: row for row in rows}
    for most, number in best_by_latency(rows).items():
        latency, effect = latency_and_effect(by_number[number])
        where = f"up to {most} of" if most != "more" else f"more than {CLASSES[-1]:g} of"
        print(f"  {where} the own latency: trial {number}, explained effect {effect:.3f}, p90 {latency:.3g} ms")
    print(f"page {out / 'index.html'}, block for params.yaml {out / 'params.block.yaml'}")


def sections(choice: Row, work: Work) -> dict[str, Any]:
    """The sections of the student's block that the choice changes; the training keeps the block's own length."""
    kept = work.params.student(work.name).train.model_dump()
    return {"architecture": choice["architecture"], "train": kept | {"losses": choice["losses"]}}


def as_block(choice: Row, work: Work) -> str:
    """YAML to be pasted into the student's block, in place of its sections of these names."""
    head = f"# Trial {choice['trial']} of study {work.key}. In place of these sections of students.{work.name}:\n"
    return head + yaml.safe_dump(sections(choice, work), sort_keys=False, default_flow_style=None)
