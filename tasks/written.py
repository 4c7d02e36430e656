"""Command: texts for a data set, which a language model writes and another judges and labels.

generate -> judge -> filter -> deduplicate, by the block `written.NAME` of params.yaml. It is no stage of DVC:
it costs money, and wants a key and a network. Every answer is kept (models/teachers/chat.py): killed, or stopped by its
cap, it goes on where it was and ends with the same bytes; a smaller `per_class` makes do with what is paid for, as all
classes are written and judged side by side.
Reads data/datasets/NAME, whose held-out sides no text may be near, unless `apart_from` is [].
Writes data/written/NAME: examples.jsonl and rejected.jsonl (Text of tasks/written_rules.py, with the reasons),
yield.json (by class and rule, and how varied the texts are), written.json (what it is, by whom, what it cost).

Command: python -m tasks.written --dataset NAME
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table

from models.errors import UserError
from models.teachers import answers_folder
from models.teachers.chat import Chat
from models.teachers.chat_classifier import ChatClassifier
from tasks import written_prompts
from tasks.chat_params import Chat as ChatSettings
from tasks.chat_params import Written
from tasks.files import (
    check_sha256,
    read_json,
    read_jsonl,
    replacing_folder,
    sha256_file,
    sha256_json,
    write_json,
    write_jsonl,
)
from tasks.near_texts import NearTexts
from tasks.params import load_params
from tasks.progress import progress
from tasks.stage import WORK, failure_note, guarded, locked
from tasks.written_prompts import Order, ask_judge, ask_writer, orders
from tasks.written_rules import (
    RULES,
    Text,
    by_judge,
    by_labels,
    by_leak,
    by_length,
    count_yield,
    rejected,
    without_twins,
)

WRITTEN, DATASETS = Path("data/written"), Path("data/datasets")
Item = TypeVar("Item")
Result = TypeVar("Result")


class Author:
    """Writes, judges and labels the texts of one data set, and knows how far it is."""

    def __init__(self, name: str, settings: Written) -> None:
        self.name, self.settings, self.names = name, settings, list(settings.classes)
        self.writer = chat(settings.writer)
        self.judge = self.writer if settings.judge == settings.writer else chat(settings.judge)
        self.labeller = ChatClassifier(self.judge, classes=settings.classes, **settings.labels.model_dump())
        self.done = {"written": 0, "judged": 0}

    def texts(self) -> list[Text]:
        """All texts, kept and rejected, by class and number."""
        settings = self.settings
        held_out, origins = apart_from(self.name, settings)
        asked = orders(settings)
        answers = self._each(self.writer, "writing", lambda order: ask_writer(self.writer, settings, order), asked)
        texts = [text for order, answer in zip(asked, answers, strict=True) for text in self._read(order, answer)]
        self.done["written"] = len(texts)
        texts = [by_length(text, settings.keep) if not text.rule else text for text in texts]
        texts = [by_leak(text, held_out, origins, settings.keep) if not text.rule else text for text in texts]
        texts = self._assessed(texts)
        return without_twins(sorted(texts, key=lambda text: (text.label, text.id)), settings.keep)

    def _read(self, order: Order, answer: list[str] | str) -> list[Text]:
        """The texts of a call; of one that gave none, a line that says why."""
        call = f"{self.names[order.label]}-{order.number:05d}"
        none = Text(id=call, text="", label=order.label, topic=order.topic, style=order.style, length=order.length)
        if isinstance(answer, str):
            return [rejected(none, "unreadable", answer)]
        return [replace(none, id=f"{call}-{row:02d}", text=text) for row, text in enumerate(answer)]

    def _assessed(self, texts: list[Text]) -> list[Text]:
        """Judge and label what no rule has rejected, each to its end: what a cap leaves is then of use."""
        rows = [row for row, text in enumerate(texts) if not text.rule]
        found = list(texts)
        answers = self._each(self.judge, "judging", lambda row: self._assess(texts[row]), rows, "judged")
        for row, text in zip(rows, answers, strict=True):
            found[row] = text
        return found

    def _assess(self, text: Text) -> Text:
        settings = self.settings
        opinion = ask_judge(self.judge, settings, text.text, text.label)
        text = by_judge(text, opinion, settings.keep, settings.style.language)
        if text.rule:
            return text
        labels = self.labeller.label(text.text)
        return by_labels(text, labels, self.names, settings.keep)

    def _each(
        self, chat: Chat, what: str, work: Callable[[Item], Result], items: Sequence[Item], counted: str = ""
    ) -> list[Result]:
        found = []
        with progress(f"written {self.name}: {what}", len(items), "calls" if not counted else "texts") as advance:
            for one in chat.each(work, items):
                found.append(one)
                advance(1, f"{chat.ledger.cost:.2f} spent")
                if counted:
                    self.done[counted] += 1
        return found

    def close(self) -> None:
        """Let the connections go."""
        self.writer.close()
        self.judge.close()


def chat(settings: ChatSettings) -> Chat:
    """The model that a block of params.yaml describes."""
    return Chat(**settings.model_dump(), store=answers_folder())


def apart_from(name: str, settings: Written) -> tuple[NearTexts, list[str]]:
    """The held-out texts to stay apart from, and what to call each; UserError where they do not fit the block."""
    if not settings.apart_from:
        return NearTexts([]), []
    folder = DATASETS / name
    if not (folder / "dataset.json").is_file():
        raise UserError(
            f"written {name}: no {folder / 'dataset.json'}: make the data set first, or set written.{name}.apart_from "
            "to [] where there is none to stay apart from"
        )
    known = read_json(folder / "dataset.json")
    if known["kind"] != "texts":
        raise UserError(f"written {name}: {folder} holds {known['kind']}, not texts: name another data set")
    if list(settings.classes) != known["classes"]:
        raise UserError(
            f"written {name}: {folder} has the classes {', '.join(known['classes'])}, written.{name}.classes has "
            f"{', '.join(settings.classes)}: name the same, in the same order"
        )
    texts, origins = [], []
    for split in settings.apart_from:
        file = f"{split}.texts.jsonl"
        if file in known["files"]:
            check_sha256(folder / file, known["files"][file], f"written {name}")
            lines = [line["text"] for line in read_jsonl(folder / file)]
            texts += lines
            origins += [f"{split} example {row}" for row in range(len(lines))]
    return NearTexts(texts), origins


def written(name: str, settings: Written) -> None:
    """Write data/written/NAME; a UserError at a cap says how far it came."""
    author = Author(name, settings)
    try:
        texts = author.texts()
    except UserError as error:
        how_far = ", ".join(f"{count} {what}" for what, count in author.done.items())
        raise type(error)(
            f"{error} (texts of {name} so far: {how_far}; a lower per_class makes do with those judged)"
        ) from None
    finally:
        author.close()
    counts = count_yield(texts, author.names)
    empty = [one for one, count in counts["classes"].items() if not count["kept"]]
    if empty:
        took = counts["classes"][empty[0]]["rejected"]
        rule = max(RULES, key=lambda one: took[one])
        raise UserError(
            f"written {name}: no text of class {empty[0]} is left; rule {rule} took {took[rule]} ({RULES[rule]}): "
            f"loosen written.{name}.keep, or change the prompts"
        )
    with replacing_folder(WRITTEN / name) as folder:
        write_jsonl(folder / "examples.jsonl", [text.to_json() for text in texts if not text.rule])
        write_jsonl(folder / "rejected.jsonl", [text.to_json() for text in texts if text.rule])
        write_json(folder / "yield.json", counts)
        write_json(folder / "written.json", describe(folder, author, counts))
    Console().print(yield_table(counts, f"written: yield of {name}"))
    spent = {one.name: one.ledger.cost for one in (author.writer, author.judge)}
    told = ", ".join(f"{who} {cost:.4f}" for who, cost in spent.items())
    print(
        f"written {name}: {counts['all']['kept']} texts in {WRITTEN / name}; spent over all runs: {told}",
        file=sys.stderr,
    )


def describe(folder: Path, author: Author, counts: Any) -> dict[str, Any]:
    """written.json: nothing in it hangs on when or where it was made, nor on calls whose answers were lost."""
    settings = author.settings
    spending = {"base_url", "key_variable", "timeout_s", "parallel", "calls_per_minute", "max_calls", "max_cost"}
    own = settings.model_dump(exclude={"writer": spending, "judge": spending})
    files = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
    bills = {one.name: one.bill() for one in (author.writer, author.judge)}
    prompts = [written_prompts.CODE_VERSION, written_prompts.WRITE, written_prompts.JUDGE]
    return {
        "schema": "understudy-written/1",
        "classes": author.names,
        "counts": {one: count["kept"] for one, count in counts["classes"].items()},
        "teacher": {"writer": author.writer.name, "judge": author.judge.name, "labeller": author.labeller.digest},
        "cost": bills,
        "settings": own,
        "files": files,
        "digest": sha256_json([own, prompts, author.labeller.digest, files]),
    }


def yield_table(counts: Any, title: str) -> Table:
    """The yield: a row per rule, a column per class."""
    table = Table(title=title)
    table.add_column("rule")
    columns = {**counts["classes"], "all": counts["all"]}
    for column in columns:
        table.add_column(column, justify="right")
    for row in ("written", "kept"):
        table.add_row(row, *(str(count[row]) for count in columns.values()))
    for rule in RULES:
        table.add_row(rule, *(str(count["rejected"][rule]) for count in columns.values()))
    for figure in ("distinct_2", "nearest_median"):
        cells = [count["diversity"]["kept"][figure] for count in columns.values()]
        table.add_row(f"{figure} of kept", *("" if cell is None else f"{cell:.2f}" for cell in cells))
    return table


def main() -> None:
    """Entry point of the command."""
    parser = argparse.ArgumentParser(prog="python -m tasks.written")
    parser.add_argument("--dataset", required=True, help="a name under `written:` in params.yaml")
    name = parser.parse_args().dataset

    def work() -> None:
        blocks = load_params().written
        if name not in blocks:
            raise UserError(
                f"no data set {name!r} under `written` in params.yaml; there are: {', '.join(blocks) or 'none'}"
            )
        failure_note("written", None).unlink(missing_ok=True)
        with locked(WORK / f"written-{name}.lock"):
            written(name, blocks[name])

    guarded("written", work)


if __name__ == "__main__":
    main()
