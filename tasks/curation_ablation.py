"""How much quality each rule of curation buys: students trained on pairs with known faults, with each rule left out.

Reads data/students/NAME/raw. Faults (tasks/planted_faults.py) are planted into a share of the training pairs. One small
student is trained on the pairs without faults, one on all of them, one on what all rules leave, and one each on what
the rules leave without one of them, or without several that find the same faults; all with the student's own recipe,
for STEPS steps from scratch, on the same seeds. The explained effect is that on the test pairs, in which nothing is
planted. May be killed and run again: what is finished is kept in data/.work/NAME/curation-ablation.

Prints a Markdown table. After a few hundred steps chance moves it by several
hundredths (docs/curation.md): compare several seeds.

Command: python -m tasks.curation_ablation --student NAME [--steps 300] [--share 0.3] [--pairs 1200] [--seeds 0]
    [--only structure+background cast ...]
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from models.errors import UserError
from tasks.curate_params import Curate, Limits
from tasks.curation_check import measured_one_by_one, plant, read_pairs
from tasks.curation_rules import SCORES, bounds, judge
from tasks.files import read_json, sha256_json, write_json
from tasks.pair_facts import compare
from tasks.params import Params, load_params
from tasks.pictures import Pixels
from tasks.raw import Shard
from tasks.records import Verdict
from tasks.stage import guarded, work_folder
from tasks.student_params import Student

if TYPE_CHECKING:
    from torch import nn

NOTHING_PLANTED, NO_RULES, ALL_RULES = "nothing planted", "faults, no rules", "faults, all rules"


def without(settings: Curate, rules: Sequence[str]) -> Curate:
    """The settings with these rules off; a UserError for one that is none."""
    unknown = [rule for rule in rules if rule not in SCORES]
    if unknown:
        raise UserError(f"no rule {unknown[0]!r}; there are: {', '.join(SCORES)}")
    limits = Limits.model_validate({**settings.limits.model_dump(), **dict.fromkeys(rules)})
    return settings.model_copy(update={"limits": limits})


def train(params: Params, block: Student, shard: Shard, rows: Sequence[int], folder: Path) -> "nn.Module":
    """A student trained on these rows of the shard."""
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    from models.batches import Batches
    from models.students import build_student
    from models.training import begin, run
    from models.validation import on_pairs
    from tasks.learning import make_recipe, make_terms
    from tasks.progress import progress
    from tasks.taught import batching

    set_seed(block.train.seed)
    student = build_student(block.architecture.model_dump(), block.pairs.size)
    steps = block.train.steps
    recipe = replace(make_recipe(params, block), validate_every=steps, checkpoint_every=steps)
    batches = Batches(shard.inputs[rows], shard.targets[rows], **batching(block))
    check = on_pairs(of_split(shard, "val"))
    folder.mkdir(parents=True, exist_ok=True)
    training = begin(student, recipe, make_terms(block, student))
    with progress("curation-ablation", steps, "steps") as advance:
        checkpoint = folder / "checkpoint.safetensors"
        return run(training, batches, check, recipe, Accelerator(), checkpoint, lambda *_: advance(1))


def of_split(shard: Shard, split: str) -> tuple[Pixels, Pixels]:
    """Inputs and targets of a split."""
    rows = [row for row, pair in enumerate(shard.pairs) if pair.split == split]
    return shard.inputs[rows], shard.targets[rows]


def explained(student: "nn.Module", shard: Shard) -> float:
    """The effect that a student explains, on the test pairs."""
    import torch

    from tasks.quality import TORCH, measure_all, of_torch, pooled

    with torch.inference_mode():
        columns = measure_all({TORCH: of_torch(student)}, *of_split(shard, "test"), {})
    return float(pooled(columns[TORCH])["explained_effect"])


def variants(
    clean: Shard, params: Params, share: float, only: Sequence[str]
) -> dict[str, tuple[Shard, list[int], int]]:
    """By name: the pairs, the rows that a student is trained on, and how many of these have a fault."""
    settings = params.curate
    measured, spoilt, planted = plant(clean, measured_one_by_one(clean, settings), settings, share, seed=0)
    faulty = Shard(pairs=clean.pairs, inputs=clean.inputs, targets=spoilt)
    facts = compare([measured], settings)
    asked = {NO_RULES: list(SCORES), ALL_RULES: []} | {f"without {rules}": rules.split("+") for rules in only}
    found = {
        NOTHING_PLANTED: (clean, taught(clean, judge(facts, bounds(facts, without(settings, list(SCORES))), {})), 0)
    }
    for name, rules in asked.items():
        verdicts = judge(facts, bounds(facts, without(settings, rules)), {})
        rows = taught(clean, verdicts)
        found[name] = (faulty, rows, sum(clean.pairs[row].id in planted for row in rows))
    return found


def taught(shard: Shard, verdicts: Sequence[Verdict]) -> list[int]:
    """The rows of the training pairs that were kept."""
    kept = {verdict.pair for verdict in verdicts if not verdict.rule}
    return [row for row, pair in enumerate(shard.pairs) if pair.split == "train" and pair.id in kept]


def measured_student(params: Params, block: Student, shard: Shard, rows: list[int], folder: Path) -> dict[str, Any]:
    """A trained student's explained effect; from `folder` if it was measured before."""
    path = folder / "explained.json"
    if not path.exists():
        student = train(params, block, shard, rows, folder)
        write_json(path, {"explained_effect": explained(student, shard), "pairs": len(rows)})
        (folder / "checkpoint.safetensors").unlink()
    found: dict[str, Any] = read_json(path)
    return found


def table(rows: Mapping[str, tuple[int, int, list[float]]]) -> list[str]:
    """Markdown: per variant its training pairs, the faults among them, and the explained effect."""
    base = mean(rows[ALL_RULES][2])
    lines = ["| trained on | pairs | faulty | explained effect | to all rules |", "|---|---:|---:|---:|---:|"]
    for name, (pairs, faulty, found) in rows.items():
        seeds = f" ({', '.join(f'{one:.3f}' for one in found)})" if len(found) > 1 else ""
        lines.append(f"| {name} | {pairs} | {faulty} | {mean(found):.3f}{seeds} | {mean(found) - base:+.3f} |")
    return lines


def ablate(params: Params, name: str, asked: argparse.Namespace) -> list[str]:
    """Train and measure them all."""
    from models.torch_setup import prepare_torch

    prepare_torch(params.train.threads)
    block = params.student(name)
    clean = read_pairs(name, params, asked.pairs)
    rows: dict[str, tuple[int, int, list[float]]] = {}
    only = list(SCORES) if asked.only is None else asked.only
    for label, (shard, kept, faulty) in variants(clean, params, asked.share, only).items():
        found = []
        for seed in asked.seeds:
            print(f"curation-ablation: {label}, seed {seed}", file=sys.stderr)
            settings = block.train.model_copy(update={"steps": asked.steps, "seed": seed})
            one = block.model_copy(update={"train": settings})
            what = [one.model_dump(), asked.share, [clean.pairs[row].id for row in kept], shard is clean]
            folder = work_folder(name) / "curation-ablation" / sha256_json(what)[:16]
            found.append(measured_student(params, one, shard, kept, folder)["explained_effect"])
        rows[label] = (len(kept), faulty, found)
    about = f"{name}: faults in {asked.share:.0%} of the training pairs, {asked.steps} steps, seeds {asked.seeds}"
    return [about, "", *table(rows)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tasks.curation_ablation")
    parser.add_argument("--student", required=True, help="a name under `students:` in params.yaml, generated")
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    parser.add_argument("--share", type=float, default=0.3, help="of the training pairs that get a fault")
    parser.add_argument("--pairs", type=int, default=1200, help="at most so many, evenly over all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="*", help="the rules that are left out in turn, several at once joined by +")
    options = parser.parse_args()
    guarded(
        "curation-ablation",
        lambda: print("\n".join(ablate(load_params(), options.student, options))),
        options.student,
    )
