"""quarantine: the page in a real Chromium, from a file: filters, order, decisions as lines that the stage reads."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenes import scene
from test_curate import LIMITS, SIZE, record
from test_curation_rules import with_limits

from tasks.curation_rules import bounds, judge
from tasks.decisions import read_decisions
from tasks.pair_facts import Facts
from tasks.quarantine import Quarantine, borderline
from tasks.raw import Shard

SCORES = {"a": 0.2, "b": 0.9, "c": 0.6, "d": 0.4, "e": 0.1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The quarantine of five pairs, of which two are above the limit of `cast`; the thumbnail of one is lost."""
    settings = with_limits(cast=0.5).model_copy(update={"borderline": 1})
    facts = [
        Facts(
            pair=record(name, "train"),
            change=0.3,
            contrast=0.3,
            digest=name,
            hashes=(0xFFFF << 12 * row, 0xF0F0 << 12 * row),
            scores={"cast": score},
        )
        for row, (name, score) in enumerate(SCORES.items())
    ]
    limits = bounds(facts, settings)
    verdicts = judge(facts, limits, {})
    assert [name for name, (_, rule) in borderline(verdicts, limits).items() if rule == "cast"] == ["d"]
    pixels = np.stack([scene(row, SIZE, SIZE) for row in range(len(facts))])
    quarantine = Quarantine(tmp_path / "quarantine", "tiny", verdicts, limits)
    quarantine.take(Shard(pairs=[one.pair for one in facts], inputs=pixels, targets=255 - pixels))
    quarantine.close()
    (tmp_path / "quarantine" / "thumbs" / "c.jpg").write_bytes(b"no picture")
    return tmp_path / "quarantine"


@pytest.fixture
def page(folder: Path) -> Iterator[Any]:
    """The page, on a phone."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 375, "height": 800})
        troubles: list[str] = []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto((folder / "index.html").as_uri())
        yield page
        assert not troubles
        browser.close()


def test_the_page_offers_decisions_that_the_stage_reads(page: Any, tmp_path: Path) -> None:
    assert page.inner_text("#count") == "2 of 2 pairs"
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert [node.inner_text() for node in page.query_selector_all(".card summary")] == [
        "Scores · train pair b",  # the further above its limit, the earlier
        "Scores · train pair c",
    ]
    page.get_by_text("thumbs/c….jpg cannot be read").wait_for()
    keep = page.locator(".card").nth(0).get_by_role("button", name="Keep")
    keep.focus()
    page.keyboard.press("Enter")
    assert keep.get_attribute("aria-pressed") == "true"
    assert page.input_value("#lines") == ""
    assert "give your name" in page.inner_text("#said")
    page.select_option("#rule", "near cast")
    assert page.inner_text("#count") == "1 of 1 pairs"
    page.fill("#reason", 'tinted "too" much')
    page.locator(".card").nth(0).get_by_role("button", name="Drop").click()
    page.fill("#by", "ada")
    path = tmp_path / "tiny.jsonl"
    path.write_text(page.input_value("#lines"))
    assert all(json.loads(line)["by"] == "ada" for line in path.read_text().splitlines())
    found = read_decisions(path, record("a", "train").teacher, SCORES.keys())
    assert {pair: (one.decision, one.reason) for pair, one in found.by_pair.items()} == {
        "b": ("keep", "looked at it"),
        "d": ("drop", 'tinted "too" much'),
    }
    page.locator(".card").nth(0).get_by_role("button", name="Drop").click()  # once more takes it back
    assert len(page.input_value("#lines").splitlines()) == 1
    page.get_by_role("button", name="Forget all").click()
    assert page.input_value("#lines") == ""


def test_a_page_without_pairs_says_so(tmp_path: Path) -> None:
    Quarantine(tmp_path / "quarantine", "tiny", [], bounds([], LIMITS)).close()
    assert '"pairs": []' in (tmp_path / "quarantine" / "index.html").read_text()
