"""Every page is made of the one base, and DVC knows of it."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from jinja2 import UndefinedError

from tasks.pareto import page
from tasks.templates import render

TASKS = Path(render.__code__.co_filename).parent
PAGES = sorted(path for path in TASKS.glob("*.html") if not path.name.startswith("report_") and path.stem != "page")


class Outline(HTMLParser):
    """The tags of a page with their attributes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_has_no_head_of_its_own(path: Path) -> None:
    text = path.read_text()
    assert '{% extends "page.html" %}' in text
    assert not any(tag in text for tag in ("<head", "<style", "<main", "<body"))


def test_a_page_begins_with_a_way_past_its_navigation_and_tables_scroll() -> None:
    row = {"front": True, "cells": ["a <b>", "int8"]}
    text = page("One & two", "about", ["student", "precision"], [row], "note", {})
    assert text.startswith('<!doctype html>\n<html lang="en">') and "<title>One &amp; two</title>" in text
    tags = Outline(text).tags
    names = [tag for tag, _ in tags]
    skip = tags[names.index("body") + 1]
    assert skip == ("a", {"class": "skip", "href": "#content"})
    assert names.count("main") == names.count("h1") == 1 and tags[names.index("main")][1]["id"] == "content"
    region = tags[names.index("table") - 1][1]
    assert region["tabindex"] == "0" and region["role"] == "region" and region["aria-label"]
    assert "a &lt;b&gt;" in text and ("th", {"scope": "row"}) in tags


def test_a_page_without_a_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="told"):
        render(TASKS / "trace.html")


def test_what_makes_a_page_depends_on_the_base(repository: Path) -> None:
    stages = yaml.safe_load((repository / "dvc.yaml").read_text())["stages"]
    named = {f"tasks/{path.name}" for path in PAGES}
    using = [one for one in (entry.get("do", entry)["deps"] for entry in stages.values()) if named & set(one)]
    assert len(using) == 3 and all("tasks/page.html" in one for one in using)
