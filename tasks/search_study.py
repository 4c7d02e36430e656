"""The study behind a search: which point is tried next, which trial goes on, what is remembered. All that Optuna is
asked; other modules know its types alone.

Everything lies in an SQLite database: what was told before a kill is there after it. Samplers are not kept but seeded
by the trial's number and the parameter's name, so a search that was killed draws what one that was not would have.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import UserError
from tasks.params import Params
from tasks.search_space import Factor, Halving, Point, Space, Steps, Whole, draw, own_point
from tasks.student_params import Student

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

NAME, OWN = "search", "own"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One search, all of it decided."""

    params: Params
    name: str
    block: Student  # with the steps and the budget that were asked for
    space: Space
    seed: int
    key: str
    folder: Path


class Pruned(Exception):
    """The trial is not among the best at its rung."""


def open_study(work: Work) -> "Study":
    """The study in the work's folder, made if there is none, with the block's own architecture as its first trial."""
    try:
        import optuna
    except ImportError:
        raise UserError("search needs Optuna: pip install -c constraints.txt -e '.[search]'") from None

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    work.folder.mkdir(parents=True, exist_ok=True)
    halving = work.space.halving
    study = optuna.create_study(
        storage=f"sqlite:///{(work.folder / 'study.db').absolute()}",
        study_name=NAME,
        load_if_exists=True,
        direction="maximize",
        pruner=optuna.pruners.SuccessiveHalvingPruner(
            min_resource=first_rung(work.block.train.steps, halving), reduction_factor=halving.reduction
        ),
    )
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(own_point(work.space, work.block) or {}, user_attrs={OWN: True})
    return study


def first_rung(steps: int, halving: Halving) -> int:
    """The steps to the first rung: with three rungs and a reduction of three a ninth, then a third, then all."""
    for _ in range(halving.rungs - 1):
        steps = math.ceil(steps / halving.reduction)
    return steps


def ended(study: "Study") -> "list[FrozenTrial]":
    """The trials that will not change any more, in their order."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def cut_off(study: "Study") -> "Trial | None":
    """A trial in the middle of which a run before this one was ended; it goes on under its number."""
    from optuna.trial import Trial, TrialState

    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return Trial(study, running[0]._trial_id) if running else None


class Seeded:
    """Draws a trial's values by TPE, each with a sampler of its own seed (tasks.search_space.Draw)."""

    def __init__(self, trial: "Trial", seed: int, random_trials: int) -> None:
        self.trial, self.seed, self.random_trials = trial, seed, random_trials

    def _seed(self, name: str) -> None:
        self.trial.study.sampler = sampler(self.seed, self.trial.number, name, self.random_trials)

    def choice(self, name: str, values: Sequence[str]) -> str:
        """One of some."""
        self._seed(name)
        return str(self.trial.suggest_categorical(name, list(values)))

    def whole(self, name: str, values: Whole) -> int:
        """A whole number."""
        self._seed(name)
        return self.trial.suggest_int(name, values.low, values.high, step=values.step)

    def steps(self, name: str, values: Steps) -> float:
        """A multiplier of some that are a step apart."""
        self._seed(name)
        return self.trial.suggest_float(name, values.low, values.high, step=values.step)

    def factor(self, name: str, values: Factor) -> float:
        """A multiplier, log-uniformly."""
        self._seed(name)
        return self.trial.suggest_float(name, values.low, values.high, log=True)


def sampler(seed: int, number: int, name: str, random_trials: int) -> "BaseSampler":
    """What draws one value of one trial; its state is gone afterwards."""
    from optuna.samplers import TPESampler

    digest = hashlib.sha256(json.dumps([seed, number, name]).encode()).digest()
    return TPESampler(seed=int.from_bytes(digest[:4], "big"), n_startup_trials=random_trials)


def point_of(trial: "Trial", work: Work) -> Point | None:
    """The point of a trial; None for the block's own architecture where that lies outside of the space."""
    if trial.user_attrs.get(OWN) and own_point(work.space, work.block) is None:
        return None
    return draw(work.space, work.block.train.losses, Seeded(trial, work.seed, work.space.random_trials))


def limit(trial: "Trial", name: str, excess: float) -> None:
    """Tell the sampler by how much a limit is broken; 0 or less where it is kept."""
    if name not in trial.constraints:  # a run that was killed may have told it
        trial.set_constraint(name, excess)


class Rungs:
    """Tells a trial's explained effects as it trains, those once that were told before a kill."""

    def __init__(self, trial: "Trial", steps: int) -> None:
        self.trial, self.steps = trial, steps
        self.told = set(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    def report(self, curve: Sequence[Mapping[str, Any]]) -> None:
        """Tell what of a curve is new; Pruned where the trial is not to go on."""
        for line in curve:
            effect, step = line.get("val_explained_effect"), line["step"]
            if effect is None or step in self.told:
                continue
            self.told.add(step)
            self.trial.report(effect, step)
            if step < self.steps and self.trial.should_prune():
                raise Pruned(f"not among the best after {step} steps: explained effect {effect:.3f}")


def end(trial: "Trial", value: float | None) -> None:
    """The trial's last word: its explained effect, or None where it was pruned or refused."""
    from optuna.trial import TrialState

    trial.study.tell(trial, value, state=TrialState.COMPLETE if value is not None else TrialState.PRUNED)
