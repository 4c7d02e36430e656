"""Search for a better student under a budget of latency: encoder, widths, depth, decoder and weights of the losses.

Reads pairs/ of data/students/NAME and a space (tasks/search.yaml); the block's own architecture is the first trial. A
trial is refused before any training where its files are not what section `exportability` asks, or its untrained int8
file is slower on the gate's target than --max-p90-ms; it is pruned by successive halving while it trains (from
scratch, as tasks/architectures.py does), and scored on the validation pairs. Writes data/students/NAME/search:
search.json, front.png, samples.png, index.html and params.block.yaml, what to put into params.yaml (--write does).
Every trial is a run in MLflow. May be killed and run again: all that was done is kept in data/.work/NAME/search-KEY.

    python -m tasks.search --student NAME [--trials 20] [--minutes 600] [--steps 600] [--max-p90-ms 5] [--write]
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import TryAgain, UserError
from tasks.files import sha256_file, sha256_json, write_bytes
from tasks.params import load_params
from tasks.search_result import excesses, publish, rows_of
from tasks.search_space import SPACE, Point, architecture_of, losses_of, read_space
from tasks.search_study import OWN, Pruned, Rungs, Work, cut_off, end, ended, first_rung, limit, open_study, point_of
from tasks.search_trial import cost_of, learned, score
from tasks.stage import STUDENTS, guarded, locked, work_folder
from tasks.student_params import Student
from tasks.taught import check_pairs

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

    from models.training import Line, Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a search was asked for."""

    space: Path = SPACE
    trials: int | None = None  # in all, those of earlier runs too; the space's, where it is None
    minutes: float | None = None  # of this run; no trial is begun after
    steps: int | None = None  # of a trial's training; the space's
    max_p90_ms: float | None = None  # the gate's
    seed: int = 0
    write: bool = False


def prepare(name: str, asked: Asked) -> Work:
    """Check what is asked and name the study by everything that decides its result, but for how long it goes on."""
    from models.losses import check_losses
    from models.torch_setup import prepare_torch
    from tasks.learning import CODE, digests

    given = {"trials": asked.trials, "minutes": asked.minutes, "steps": asked.steps, "max-p90-ms": asked.max_p90_ms}
    for option, value in given.items():
        if value is not None and value <= 0:
            raise UserError(f"--{option} must be more than 0")
    params = load_params()
    block = params.student(name)
    check_losses(block.train.losses)
    prepare_torch(params.train.threads)
    space = read_space(asked.space)
    gate = block.gate.model_copy(update={"max_p90_ms": asked.max_p90_ms or block.gate.max_p90_ms})
    train = block.train.model_copy(update={"steps": asked.steps or space.steps})
    block = block.model_copy(update={"gate": gate, "train": train})
    limits = {"target", "max_p90_ms", "min_sharpness_ratio", "max_sharpness_ratio", "min_chroma_ratio"}
    decides = block.model_dump(include={"architecture": True, "train": True, "gate": limits})
    decides["space"] = space.model_dump(exclude={"trials", "steps"})
    decides |= {"pairs": check_pairs(STUDENTS / name / "pairs", block)["digest"], "seed": asked.seed}
    decides |= {"exportability": params.exportability.model_dump(), "threads": params.train.threads}
    decides |= {"code": digests(CODE), "search": sha256_file(Path(__file__).with_name("search_space.py"))}
    key = sha256_json(decides)[:16]
    folder = work_folder(name) / f"search-{key}"
    others = [path.name for path in work_folder(name).glob("search-*") if path.is_dir() and path != folder]
    if others and not folder.exists():
        say(f"a new study: space, pairs, budget, block or code are not those of {', '.join(others)}, which are kept")
    return Work(params=params, name=name, block=block, space=space, seed=asked.seed, key=key, folder=folder)


def search(name: str, asked: Asked) -> None:
    """The command: see the module's docstring. UserError where no trial keeps to budget and limits."""
    with locked(work_folder(name) / "search.lock"):
        work = prepare(name, asked)
        study = open_study(work)
        until = time.monotonic() + 60 * asked.minutes if asked.minutes is not None else None
        while trial := next_trial(study, work, asked.trials or work.space.trials, until):
            run_trial(trial, work)
            told_in_mlflow(study, work)
        told = told_in_mlflow(study, work)
        publish(study, work, write=asked.write)
        if told:
            raise TryAgain(told)


def next_trial(study: "Study", work: Work, count: int, until: float | None) -> "Trial | None":
    """A trial that was cut off, or a new one; None where there were as many as asked for, or the time is up."""
    trial = cut_off(study)
    if trial:
        say(f"going on with trial {trial.number}")
        return trial
    for checkpoint in work.folder.glob("*.safetensors"):  # of a trial that ended
        checkpoint.unlink()
    done = len(ended(study))
    if done >= count:
        return None
    if until is not None and time.monotonic() >= until:
        say(f"time is up after {done} trials; run again to go on")
        return None
    return study.ask()


def run_trial(trial: "Trial", work: Work) -> None:
    """One trial from where it is to its end: cheap things first, and each remembered as soon as it is known."""
    point = point_of(trial, work)
    try:
        block = block_at(point, work.block)
    except UserError as error:
        refuse(trial, "architecture", 1.0, str(error))
        return
    trial.set_user_attr("architecture", block.architecture.model_dump())
    trial.set_user_attr("losses", block.train.losses)
    say(f"trial {trial.number}: {block.architecture.encoder}, decoder {block.architecture.decoder_channels}")
    if repeats(trial):
        return
    cost = known_cost(trial) or cost_of(work.params, block, work.folder, is_own=trial.user_attrs.get(OWN, False))
    if "refused" in cost:
        trial.set_user_attr("cost", cost)
        refuse(trial, "architecture", 1.0, cost["refused"])
        return
    cost = beside_first(cost, trial.study)
    trial.set_user_attr("cost", cost)
    budget = block.gate.max_p90_ms
    told = f"p90 {cost['p90_ms']:.3g} ms, {cost['over_reference']:.2f} of the block's own"
    limit(trial, "latency", cost["p90_ms"] / budget - 1)
    if cost["p90_ms"] > budget:
        refuse(trial, "latency", 0.0, f"{told}, is over the budget of {budget:g} ms on {block.gate.target}")
        return
    say(f"trial {trial.number}: {told}")
    train_trial(trial, work, block)


def block_at(point: Point | None, own: Student) -> Student:
    """The block with the architecture and losses of a point; as it is where there is none."""
    if point is None:
        return own
    train = own.train.model_copy(update={"losses": losses_of(point, own.train.losses)})
    return own.model_copy(update={"architecture": architecture_of(point, own.architecture), "train": train})


def train_trial(trial: "Trial", work: Work, block: Student) -> None:
    """Train, prune or score; a training that diverges is refused."""
    rungs = Rungs(trial, block.train.steps)
    path = work.folder / f"trial-{trial.number}.safetensors"

    def watch(training: "Training", line: "Line") -> None:
        rungs.report(training.curve)

    try:
        every = first_rung(block.train.steps, work.space.halving)
        student, curve = learned(work.params, work.name, block, path, every=every, watch=watch)
        rungs.report(curve)
    except Pruned as pruned:
        settle(trial, "pruned", str(pruned), None)
        return
    except UserError as error:
        refuse(trial, "training", 1.0, str(error))
        return
    figures, pictures = score(work.name, student)
    write_bytes(work.folder / f"trial-{trial.number}.npy", pictures)
    trial.set_user_attr("quality", figures)
    beyond = excesses(figures, block.gate)
    for name, (excess, _) in beyond.items():
        limit(trial, name, excess)
    reasons = [told for excess, told in beyond.values() if excess > 0]
    settle(trial, "outside" if reasons else "finished", "; ".join(reasons), figures["explained_effect"])


def refuse(trial: "Trial", name: str, excess: float, reason: str) -> None:
    """End a trial that cannot be had or is too slow; the sampler keeps away from where it lies."""
    if excess:
        limit(trial, name, excess)
    settle(trial, "refused", reason, None)


def settle(trial: "Trial", state: str, reason: str, value: float | None) -> None:
    """End a trial: state is finished, outside (of a limit of quality), pruned or refused."""
    trial.set_user_attr("state", state)
    trial.set_user_attr("reason", reason)
    effect = "" if value is None else f": explained effect {value:.3f}"
    say(f"trial {trial.number} {state}{effect}{f' ({reason})' if reason else ''}")
    end(trial, value)


def repeats(trial: "Trial") -> bool:
    """Whether an earlier trial was the same; then this one ends as that one did, at no cost."""
    mine = trial.user_attrs
    for one in ended(trial.study):
        if all(one.user_attrs.get(key) == mine[key] for key in ("architecture", "losses")):
            copy_trial(one, trial)
            return True
    return False


def copy_trial(one: "FrozenTrial", trial: "Trial") -> None:
    """End a trial as another did."""
    for key in ("cost", "quality"):
        if key in one.user_attrs:
            trial.set_user_attr(key, one.user_attrs[key])
    trial.set_user_attr("repeats", one.number)
    for name, excess in one.constraints.items():
        limit(trial, name, excess)
    settle(trial, one.user_attrs["state"], f"the same as trial {one.number}", one.value)


def known_cost(trial: "Trial") -> dict[str, Any] | None:
    """What this trial was measured to take before it was cut off, or another of the same architecture was."""
    trials = trial.study.get_trials(deepcopy=False)
    for one in [trials[trial.number], *trials]:
        if one.user_attrs.get("architecture") == trial.user_attrs["architecture"] and "cost" in one.user_attrs:
            return dict(one.user_attrs["cost"])
    return None


def beside_first(cost: dict[str, Any], study: "Study") -> dict[str, Any]:
    """A cost with its ratio to the reference, and the p90 that would have been measured when the search began.

    The ratio is that of the medians: on a machine with other work a p90 says as much about that.
    """
    if "over_reference" in cost:
        return cost
    costs = [one.user_attrs.get("cost", {}) for one in study.get_trials(deepcopy=False)]
    first = next((one for one in costs if "reference_p90_ms" in one), cost)
    ratio = cost["p50_ms"] / cost["reference_p50_ms"]
    told = {"over_reference": round(ratio, 4), "measured_p90_ms": cost["p90_ms"]}
    return cost | told | {"p90_ms": round(ratio * first["reference_p90_ms"], 4)}


def told_in_mlflow(study: "Study", work: Work) -> str:
    """Log the trials that are not in MLflow yet; a line where it does not answer, which does not end the search."""
    from tasks.search_tracking import log_search

    try:
        log_search(work.name, work.key, rows_of(study), {"steps": work.block.train.steps, "seed": work.seed})
    except TryAgain as error:
        return str(error)
    return ""


def say(line: str) -> None:
    """Show what is being done."""
    print(f"search: {line}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tasks.search")
    parser.add_argument("--student", required=True, help="a name under `students:` in params.yaml, curated")
    parser.add_argument("--space", type=Path, default=SPACE, help="a YAML file as tasks/search.yaml")
    parser.add_argument("--trials", type=int, help="in all, those of earlier runs too")
    parser.add_argument("--minutes", type=float, help="no trial is begun after so many")
    parser.add_argument("--steps", type=int, help="of a trial's training")
    parser.add_argument("--max-p90-ms", type=float, help="default: the gate's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="put the best into params.yaml")
    options = vars(parser.parse_args(arguments))
    name = options.pop("student")
    guarded("search", lambda: search(name, Asked(**options)), name)


if __name__ == "__main__":
    main()
