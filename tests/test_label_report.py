"""The report of a classifier: figures, tables, escaping, accessibility, for pictures, texts and without labels."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_results import PHONE, digits, results, told
from PIL import Image

from tasks.classification.charts import calibration_svg
from tasks.classification.quality_report import FIGURES, confused, mimicry_words
from tasks.classification.report import render, write_report

EVIL = "<script>alert(1)</script> & a very good film"


class Page(HTMLParser):
    """What a page holds: ids, tags with their attributes, and the text of each table by id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.table = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.table = dict(attrs).get("id") or ""
            self.tables[self.table] = []
        if tag == "tr":
            self.tables[self.table].append([])
        if tag in ("td", "th"):
            self.tables[self.table][-1].append("")

    def handle_data(self, data: str) -> None:
        if self.tables.get(self.table) and self.tables[self.table][-1]:
            self.tables[self.table][-1][-1] += data.strip("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.table = ""


def texts(labelled: bool = True) -> Any:
    labels = np.random.default_rng(5).integers(0, 2, 120)
    work, models = results([f"{EVIL} {row}" for row in range(120)], labels, ["bad", "<b>good</b>"], labelled, noise=4.0)
    return told(work, models, size=None, name="films")


def test_the_report_of_pictures_is_whole(tmp_path: Path) -> None:
    found = told(*digits(), size=8)
    write_report(tmp_path, found)
    text = (tmp_path / "index.html").read_text()
    page = Page(text)
    for tag, attributes in page.tags:
        if tag == "img":
            assert (tmp_path / str(attributes["src"])).is_file() and attributes["alt"]
        assert not str(attributes.get("src", attributes.get("href", ""))).startswith(("http", "//"))
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    links = [str(attributes["href"])[1:] for tag, attributes in page.tags if tag == "a"]
    assert set(links) <= set(ids)
    assert all(attributes.get("scope") for tag, attributes in page.tags if tag == "th")
    with Image.open(tmp_path / "images" / f"example-{found.quality['worst'][0]['row']}.png") as shown:
        assert shown.size == (192, 192)
    assert "ensemble of &lt;2&gt; networks" in text


def test_the_quality_table_tells_every_contestant() -> None:
    found = told(*digits(), size=8)
    rows = Page(render(found)).tables["quality-table"]
    assert [row[0] for row in rows[1:]] == [
        *("Student, torch", "student.fp32.tflite", PHONE, "student.fp32.onnx", "student.int8.onnx"),
        *("Teacher", f"Always “{found.quality['commonest']}”"),
    ]
    assert len(rows[0]) == 1 + len(FIGURES)
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name[PHONE][0] == f"{found.quality['files'][PHONE]['accuracy']:.3f}"
    assert by_name["Teacher"][5] == "100%"


def test_confusion_and_classes_are_tables_with_numbers() -> None:
    found = told(*digits(), size=8)
    page = Page(render(found))
    rows = [[int(cell) for cell in row[1:]] for row in page.tables["confusion-table"][1:]]
    assert rows == found.quality["confusion"]
    assert len(page.tables["class-table"]) == 11
    first = confused(found.quality)[0]
    assert first["count"] == max(
        count for row, counts in enumerate(rows) for column, count in enumerate(counts) if row != column
    )


def test_the_words_count_what_became_of_the_teachers_errors() -> None:
    found = told(*digits(), size=8)
    counts = found.quality["mimicry"]
    words = " ".join(mimicry_words(found.quality))
    assert f"The teacher is wrong on {counts['teacher_errors']} labelled examples. Of these it repeats" in words
    assert f"corrects {counts['corrected']}" in words and f"it breaks {counts['broken']}." in words
    few = found.quality | {"mimicry": counts | {"teacher_errors": 1, "copied": 1, "corrected": 0}}
    assert "wrong on 1 labelled example." in " ".join(mimicry_words(few))
    assert "the gate does not judge what is copied" in " ".join(mimicry_words(few))


def test_texts_are_escaped(tmp_path: Path) -> None:
    write_report(tmp_path, texts())
    text = (tmp_path / "index.html").read_text()
    assert "<script>" not in text and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; a very good film" in text
    assert "<b>good" not in text
    rows = Page(text).tables["example-table"]
    assert len(rows) > 1 and rows[1][0].startswith(EVIL)
    assert "Latency of one text" in text and not list((tmp_path / "images").glob("*.png"))


@pytest.mark.parametrize("of", ["pictures", "texts"])
def test_without_labels_the_page_says_so(of: str, tmp_path: Path) -> None:
    write_report(tmp_path, told(*digits(labelled=False), size=8) if of == "pictures" else texts(labelled=False))
    text = (tmp_path / "index.html").read_text()
    assert "No test example has a label" in text and 'data-figure="accuracy">0' not in text
    assert "Calibration</h2>" not in text and not (tmp_path / "images" / "calibration.svg").exists()
    assert "at odds with the teacher" in text and "None" not in text


def test_of_many_classes_the_worst_are_drawn_and_all_are_told() -> None:
    labels = np.arange(300) % 100
    work, models = results(
        np.zeros((300, 4, 4, 3), np.uint8), labels, [f"class {one}" for one in range(100)], labelled=True
    )
    text = render(told(work, models, size=4))
    page = Page(text)
    assert "confusion-table" not in page.tables and len(page.tables["class-table"]) == 101
    assert "the worst 20 of 100" in text and "No class has the five test examples" in text


def test_nothing_wrong_leaves_no_examples() -> None:
    labels = np.arange(60) % 3
    work, models = results(np.zeros((60, 4, 4, 3), np.uint8), labels, ["a", "b", "c"])
    sure = (20 * np.eye(3)[labels]).astype(np.float32)
    found = told(work, dict.fromkeys(models, lambda inputs: sure[: len(inputs)]), size=4)
    text = render(found)
    assert not found.quality["worst"] and "No class is taken for another." in text and "Worst examples" not in text


def test_charts_are_the_same_bytes_every_time() -> None:
    bins = told(*digits(), size=8).quality["calibration"]
    assert calibration_svg(bins) == calibration_svg(bins)
    assert "currentColor" in calibration_svg(bins)
