"""tasks/report.py and tasks/charts.py: structure, figures, escaping, and the page in a real Chromium."""

import shutil
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectors import LATENCY, a_detector, no_detector
from evidences import good
from PIL import Image

from tasks import charts, quality_report, report, speed_report
from tasks.files import write_json
from tasks.records import Input

SIZE = 64
FILES = [
    ("student.fp32.tflite", "litert", "fp32", 3_961_000),
    ("student.int8.tflite", "litert", "int8", 1_235_000),
    ("student.fp32.onnx", "onnx", "fp32", 3_980_000),
    ("student.int8.onnx", "onnx", "int8", 1_310_000),
]
P50_MS = {"student.fp32.tflite": 6.0, "student.int8.tflite": 4.8, "student.fp32.onnx": 5.8, "student.int8.onnx": 8.2}
MACHINE = {"cpu": "Example CPU @ 2.00GHz", "cores": 2, "architecture": "x86_64", "os": "Debian, Linux 6.1"}
MACHINE |= {"python": "3.11.9", "litert": "2.3.0", "onnxruntime": "1.31.1"}
FINDINGS = [
    {
        "kind": "fallback",
        "op": op,
        "layer": "encoder.bn1.act",
        "file": file,
        "instead": "ReLU6, exact in int8",
        "why": "",
    }
    for op, file in (("HARD_SWISH", "litert int8"), ("HARD_SWISH", "litert fp32"), ("MUL", "litert fp32"))
]
FILE_ROWS = [
    {"file": file, "runtime": runtime, "precision": precision, "bytes": size, "sha256": f"{size:064x}"}
    for file, runtime, precision, size in FILES
]
RUNTIMES = ("litert", "onnx")
LICENCE = "CC0 (NASA, via scikit-image)"
CURATION = {
    "rules": {
        "cast": {"rejected": 0, "objected": 0, "judged": 200, "limit": 13.0, "how": "the least", "says": "tinted"},
        "identity": {
            "rejected": 0,
            "objected": 0,
            "judged": 0,
            "limit": None,
            "how": "no pair has it",
            "says": "other",
        },
        "near-duplicate": {"rejected": 6, "objected": 6, "judged": 200, "limit": None, "how": ""},
    },
    "pairs": 200,
    "rejected": 6,
    "decisions": {"keep": 1, "drop": 2, "stale": 0},
    "notes": ["identity judged none of 200 pairs: no face was found in any input"],
}


def figures(effect: float) -> dict[str, float]:
    """The six figures of one contestant."""
    return {
        "psnr_db": 12 + 8 * effect,
        "ssim": 0.4 + effect / 3,
        "ms_ssim": 0.5 + effect / 3,
        "explained_effect": effect,
        "sharpness_ratio": 0.93,
        "chroma_ratio": 0.91,
    }


def make_quality(count: int = 12) -> dict[str, Any]:
    """quality.json as tasks/evaluate.py writes it."""
    files = {name: figures(0.716 + index / 1000) for index, (name, *_) in enumerate(FILES)}
    for name in ("student.int8.tflite", "student.int8.onnx"):
        files[name] |= {"psnr_to_float_db": 46.21, "worst_psnr_to_float_db": 42.87}
    samples = [
        {
            "row": row,
            "pair": f"{row:064x}",
            "input": f"{row // 2:064x}",
            **{key: figures(0.8 - row / 50)[key] for key in ("explained_effect", "psnr_db", "ssim", "ms_ssim")},
        }
        for row in range(count)
    ]
    return {
        "test_samples": count,
        "test_photos": count // 2,
        "student": figures(0.7184),
        "explained_effect_interval": {"low": 0.66, "high": 0.77, "level": 0.95, "photos": 6, "resamples": 2000},
        "baselines": {"identity": figures(0.0), "colour_affine": figures(0.312)},
        "files": files,
        "evidence": good(structure_kept=0.613).to_json(),
        "per_sample_of": FILES[0][0],
        "per_sample": samples,
    }


def make_curve(steps: int = 1200) -> list[dict[str, Any]]:
    """curve.jsonl: a loss line every ten steps, a validation line every 200."""
    rng = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        fall = 0.25 * (step / 10) ** -0.3 * rng.uniform(0.85, 1.15)
        losses = {"pixel": fall, "structure": 2.1 * fall, "gradient": 0.4 * fall, "chroma": 0.6 * fall}
        lines.append({"step": step, "loss": 2.5 * fall, "losses": losses})
        if step % 200 == 0:
            lines.append({"step": step, "val_l1": fall, "val_explained_effect": 0.72 - 30 / step})
    return lines


VARIANTS = [
    {
        "student": student,
        "precision": "int8",
        "parameters": parameters,
        "mmac": 134.2,
        "bytes": 1_100_000,
        "front": front,
    }
    | {"litert_ms": ms, "litert_2_threads_ms": 0.6 * ms, "onnx_ms": ms, "explained_effect": explained, "seeds": 1}
    | {"sharpness_ratio": 0.98, "ms_ssim": 0.9, "psnr_db": 24.0, "explained_effect_sd": None}
    for student, parameters, ms, explained, front in (
        ("whole", 981_452, 2.0, 0.703, True),
        ("pruned 0.5", 260_000, 1.1, 0.612, True),
        ("rank 0.7", 700_000, 2.1, 0.69, False),
    )
]


VIDEO = {
    "without_teacher": "",
    "clips": 1,
    "clip": {"of": "video", "frames": 24, "panels": 3, "width": 784, "height": 256},
    "flicker": {
        "camera": {"input": 0.0, "teacher": 5.0, "float": 6.5, "phone": 7.1},
        "noise": {"input": 2.96, "teacher": 1.4, "float": 1.0, "phone": 1.3},
        "jitter": {"input": 0.0, "teacher": 5.1, "float": 7.3, "phone": 7.5},
        "clips": {"input": 0.8, "teacher": 1.5, "float": 1.1, "phone": 1.4},
    },
    "over_teacher": {
        kind: {"float": 1.0, "phone": ratio}
        for kind, ratio in (("camera", 1.42), ("noise", 0.929), ("jitter", 1.47), ("clips", 0.933))
    },
}


def make_evidence(name: str = "oil", licence: str = LICENCE, **changes: Any) -> report.Evidence:
    """All that a report tells, made up but of the right shape."""
    inputs = [
        Input(
            digest=f"{index:064x}",
            origin=f"library:scikit-image/photo-{index}.png",
            licence=licence,
            width=512,
            height=512,
            clip="",
            group=f"g{index}",
            split="test" if index < 3 else "train",
        )
        for index in range(9)
    ]
    losses = {"pixel": 1.0, "structure": 0.5, "gradient": 1.0, "chroma": 0.5}
    runs = [
        {"file": file, "runtime": runtime, "precision": precision, "threads": threads, "runs": 50, "peak_mib": 41.2}
        | {"p50_ms": P50_MS[file] / threads**0.8, "p90_ms": P50_MS[file] * 1.15, "p99_ms": P50_MS[file] * 1.6}
        for file, runtime, precision, _ in FILES
        for threads in (1, 2)
    ]
    evidence: dict[str, Any] = {
        "name": name,
        "quality": make_quality(),
        "benchmark": {"machine": MACHINE, "files": runs},
        "exported": {
            "files": FILE_ROWS,
            "sizes": [
                {
                    "size": size,
                    "parity": {one: {"max_abs": 1e-06, "psnr_db": 99.0, "worst_psnr_db": 97.5} for one in RUNTIMES},
                }
                for size in (256, 320)
            ],
        },
        "student": {
            "architecture": {"encoder": "mobilenetv4_conv_small_050", "decoder_channels": [96, 64, 48, 32]},
            "size": 256,
            "parameters": 981_452,
            "weights_sha256": "ab" * 32,
            "init": "scratch",
            "train": {"steps": 1200, "batch_size": 16, "crop": 128, "learning_rate": 0.003, "losses": losses},
        },
        "pairs": {
            "digest": "cd" * 32,
            "teacher": "ef" * 32,
            "teacher_name": "oil-painter",
            "teacher_version": 1,
            "counts": {"train": 160, "val": 12, "test": 12},
        },
        "yields": {
            split: {"pairs": count, "kept": count - 3, "broken": 0, "no-op": 1, "duplicate": 0, "near-duplicate": 2}
            for split, count in (("train", 168), ("val", 16), ("test", 16))
        },
        "curation": CURATION,
        "curve": make_curve(),
        "exportability": {"figures": {"partitions": 1, "mega_macs": 134.2}, "findings": FINDINGS},
        "variants": {"steps": 300, "rows": VARIANTS},
        "video": VIDEO,
        "clip": {name: name.encode() for name in ("clip.webp", "clip.png")},
        "failures": {},
        "detector": a_detector("cd" * 32, "ab" * 32) | {"latency": LATENCY},
        "clusters": {},
        "slider": b"",
        "inputs": inputs,
    }
    return report.Evidence(**(evidence | changes))


def make_panels(row: int, size: int = SIZE) -> dict[str, np.ndarray]:
    """Four flat pictures that differ."""
    shade = np.full((size, size, 3), 20 * row % 255, np.uint8)
    return {panel: shade + np.uint8(10 * index) for index, panel in enumerate(report.PANELS)}


def with_targets(benchmark: Mapping[str, Any]) -> dict[str, Any]:
    """A benchmark with a browser, a board that ran hot, a phone that did not answer, and two frame budgets."""
    first = dict(benchmark["files"][0])
    browser = first | {"file": FILES[2][0], "target": "browser", "provider": "wasm", "peak_mib": None, "p90_ms": 60.0}
    board = first | {"file": FILES[1][0], "target": "ssh", "p50_ms": 30.0, "peak_mib": None}
    state = {
        "temperatures_c": {"cpu": 51.0},
        "frequencies_mhz": [1800.0, 2400.0],
        "load_1min": 0.5,
        "governors": ["ondemand"],
    }
    hot = state | {"temperatures_c": {"cpu": 82.5}, "frequencies_mhz": [1200.0, 1000.0]}
    energy = {"joules_per_picture": None, "reason": "no energy counter"}
    slow = {"file": FILES[1][0], "seconds": 120.0, "first_p50_ms": 30.0, "last_p50_ms": 54.0, "last_over_first": 1.8}
    nothing: dict[str, str] = {}
    targets = [
        {
            "target": "local",
            "machine": MACHINE,
            "not_measured": nothing,
            "before": {"not_readable": ["governors"]},
            "after": {},
        },
        {"target": "ssh", "machine": {"cpu": "Cortex-A76"}, "not_measured": {FILES[0][0]: "no <runtime>"}}
        | {"before": state, "after": hot, "sustained": slow | {"energy": energy}},
        {"target": "browser", "machine": {"browser": "Chromium 156"}, "not_measured": nothing},
        {"target": "adb", "failed": "no Android device answers"},
    ]
    frames = []
    for target, network in (("browser", 41.0), ("local", 6.0)):
        parts = {"decode": 4.0, "resize": 1.0, "network": network, "composite": 3.0}
        steps = [{"step": step, "with": "x", "p50_ms": ms, "p90_ms": ms * 1.2} for step, ms in parts.items()]
        whole = sum(parts.values())
        frame = {"target": target, "file": FILES[1][0], "threads": 1, "frames": 60, "width": 1280, "height": 720}
        verdict = {"fits": whole < 33, "stops": None if whole < 33 else "network", "budget_ms": 33.0}
        frames.append(frame | verdict | {"steps": steps, "total": {"p50_ms": whole, "p90_ms": whole * 1.2}})
    return dict(benchmark) | {"files": [*benchmark["files"], browser, board], "targets": targets, "frames": frames}


BANDS = {"best": [0, 1], "median": [5, 6], "worst": [11, 10]}


class Page(HTMLParser):
    """Tags with attributes, and the text of every element that carries data-figure, by table row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: dict[str, dict[str, str]] = {}
        self.text = ""
        self._row, self._figure, self._in = "", "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        self._in = tag
        if tag == "tr":
            self._row = ""
        self._figure = found.get("data-figure") or ""

    def handle_data(self, data: str) -> None:
        if self._in not in ("script", "style"):
            self.text += data
        if self._in == "th" and not self._row:
            self._row = data.strip()
        elif self._figure and data.strip():
            self.cells.setdefault(self._row, {})[self._figure] = data.strip()
            self._figure = ""

    def named(self, tag: str) -> list[Mapping[str, str | None]]:
        """The attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on disk, with its quality.json."""
    folder = tmp_path_factory.mktemp("report")
    evidence = make_evidence()
    evidence = make_evidence(benchmark=with_targets(evidence.benchmark))
    write_json(folder / "quality.json", evidence.quality)
    report.write_report(folder, evidence, BANDS, make_panels)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    """Its page, parsed."""
    return Page((folder / "index.html").read_text())


def test_every_picture_exists_and_says_what_it_is(folder: Path, page: Page) -> None:
    pictures = [image for image in page.named("img") if "src" in image]
    assert len(pictures) == 6 * 4 + 2 + 1 + 1 + 1
    for image in pictures:
        assert (folder / str(image["src"])).is_file(), image
        assert image["alt"], image
        assert image["width"] and image["height"], "without them the page jumps while it loads"
    assert len({image["alt"] for image in pictures}) == len(pictures)
    for link in page.named("a"):
        target = str(link["href"])
        assert target.startswith("#") or (folder / target).is_file()


def test_the_page_needs_no_network(folder: Path, page: Page) -> None:
    text = (folder / "index.html").read_text()
    assert "http://" not in text and "https://" not in text
    assert not page.named("link")[1:] and page.named("link")[0]["href"] == "data:,"
    assert not any("src" in script for script in page.named("script"))
    assert "@import" not in text and "url(" not in text
    for svg in (folder / "images").glob("*.svg"):
        assert "<image" not in svg.read_text() and "currentColor" in svg.read_text()


def test_anchors_lead_somewhere(page: Page) -> None:
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {str(link["href"])[1:] for link in page.named("a") if str(link["href"]).startswith("#")} <= ids


def test_the_table_shows_what_quality_json_says(page: Page) -> None:
    quality = make_quality()
    rows = {"Student, torch": quality["student"], **quality["files"]}
    rows |= {quality_report.BASELINES[name]: found for name, found in quality["baselines"].items()}
    for label, expected in rows.items():
        for name, (_, shape, _, _) in quality_report.FIGURES.items():
            shown = shape.format(expected[name]) if name in expected else quality_report.ABSENT
            assert page.cells[label][name] == shown, (label, name)


def test_the_headline_is_of_the_file_a_phone_would_run(page: Page) -> None:
    assert page.cells[""]["explained_effect"] == "0.717"
    assert "4.8 ms" in page.text and "1.18 MiB" in page.text and "colour map alone 0.312" in page.text


def test_flicker_stands_beside_the_teachers(folder: Path, page: Page) -> None:
    told = {"input": "0.00", "teacher": "5.00", "float": "6.50", "phone": "7.10", "over_teacher": "1.42"}
    assert page.cells["Camera motion"] == told
    kinds = ["Camera motion", "Sensor noise", "Crop jitter", "Videos"]
    assert [name for name in page.cells if name in kinds] == kinds
    (clip,) = (image for image in page.named("img") if image.get("src") == "images/clip.webp")
    assert clip["alt"] == "A clip of 24 frames: input, teacher and student side by side"
    (still,) = page.named("source")
    assert still == {"srcset": "images/clip.png", "media": "(prefers-reduced-motion: reduce)"}
    assert "The teacher was left out" not in page.text and "the beginning of a video" in page.text


def test_flicker_without_a_teacher_says_why_and_without_the_stage_there_is_no_section() -> None:
    flicker = {kind: levels | {"teacher": None} for kind, levels in VIDEO["flicker"].items() if kind != "clips"}
    ratios = {kind: {"float": None, "phone": None} for kind in flicker}
    clip = VIDEO["clip"] | {"of": "still", "panels": 2}
    alone = VIDEO | {"flicker": flicker, "over_teacher": ratios, "clip": clip, "without_teacher": "it <costs>"}
    page = Page(report.render(make_evidence(video=alone), {}))
    assert "The teacher was left out: it <costs>." in page.text
    assert page.cells["Crop jitter"]["teacher"] == page.cells["Crop jitter"]["over_teacher"] == quality_report.ABSENT
    assert "Videos" not in page.cells and "a test picture under the camera motion" in page.text
    left_out = VIDEO | {"flicker": {}, "over_teacher": {}, "clip": None, "without_teacher": "video.photos is 0"}
    bare = report.render(make_evidence(video=left_out), {})
    assert 'id="video"' not in bare and 'href="#video"' not in bare and "clip.webp" not in bare


def test_clusters_are_shown_by_what_is_typical_of_them(tmp_path: Path) -> None:
    quality = make_quality()
    part = {"name": "cluster 2", "samples": 20, "error": 0.2, "change": 1.0}
    quality["evidence"]["slices"] = [*quality["evidence"]["slices"], part]
    report.write_report(tmp_path, make_evidence(quality=quality, clusters={"cluster 2": b"png"}), BANDS, make_panels)
    assert (tmp_path / "images/cluster-2.png").read_bytes() == b"png"
    text = (tmp_path / "index.html").read_text()
    assert 'src="images/cluster-2.png"' in text and 'alt="Inputs that are typical of cluster 2"' in text
    assert "cluster 2 · 20 pictures" in text and "0.800" in text


def test_a_slider_and_what_was_forgotten_are_told_where_there_are_any(tmp_path: Path) -> None:
    plain = report.render(make_evidence(), {})
    assert 'id="slider"' not in plain and 'id="forgetting"' not in plain
    evidence = make_evidence()
    control = {"identity_levels": 0.25, "monotone": 0.97, "explained_effect": {"0.5": 0.713, "1": 0.74}}
    control["sliders"] = {"student.strength.int8.tflite": {"explained_effect": {"0.5": 0.71}}}
    control["files"] = {"student.at-0.5.int8.tflite": {"strength": 0.5, "explained_effect": 0.702}}
    replay = {"share": 0.25, "count": 160, "before": 0.8, "after": 0.75, "forgetting": 0.05}
    evidence = make_evidence(
        slider=b"strip",
        quality={**evidence.quality, "control": control},
        student={**evidence.student, "replay": replay},
    )
    report.write_report(tmp_path, evidence, BANDS, make_panels)
    assert (tmp_path / "images/slider.png").read_bytes() == b"strip"
    text = (tmp_path / "index.html").read_text()
    assert 'href="#slider"' in text and 'id="slider"' in text
    for told in (
        "0.25 levels of 255",
        "0.713",
        "student.at-0.5.int8.tflite",
        "0.5, built in",
        "0.702",
        "0.050 was forgotten",
    ):
        assert told in " ".join(text.split())


def test_kid_is_told_with_its_deviation() -> None:
    evidence = make_evidence()
    quality = {**evidence.quality, "student": {**evidence.quality["student"], "kid": 16.149, "kid_sd": 119.04}}
    cells = report.contestants(quality, FILES[0][0])[0]["cells"]
    assert cells["kid"] == "16.1 ± 119" and "±" not in cells["psnr_db"]


def test_what_limits_a_student_and_where_it_fails_are_told(tmp_path: Path) -> None:
    assert 'id="limits"' not in report.render(make_evidence(), {})
    evidence = make_evidence()
    parts = {"quantisation": 0.004, "data": 0.21, "rest": 0.05}
    shortfall = {"phone": 0.736, "float": 0.74, "training": 0.95, "parts": parts, "limited_by": "data"}
    shortfall |= {"teacher_to_itself": 0.9, "asked_again": 12}
    rows = [
        {"pair": "a" * 64, "rule": "unusual", "reason": "greyer (9 deviations)", "student": "greyer (8 deviations)"},
        {"pair": "b" * 64, "rule": "", "reason": "", "student": "<i>smoother (7 deviations)"},
    ]
    rows = [row | {"copied": bool(row["rule"]), "invented": not row["rule"]} for row in rows]
    failures = {"tested": 30, "known": 1, "copied": 1, "invented": 1, "why_not": "", "rows": rows}
    panels = {panel: np.zeros((8, 8, 3), np.uint8) for panel in report.PANELS}
    quality = {**evidence.quality, "shortfall": shortfall, "failures": failures}
    report.write_report(tmp_path, make_evidence(quality=quality, failures={0: panels, 1: panels}), BANDS, make_panels)
    text = " ".join((tmp_path / "index.html").read_text().split())
    for told in (
        "with another seed reach 0.900 of it (12 pairs asked twice)",
        "Most is lost to <strong>data: unseen inputs</strong>",
        "width:21.0%",
        "More inputs like those",
        "unusual for an input of its kind 1 time; the student copied 1 of these",
        "Teacher, unusual: greyer (9 deviations). Student: greyer (8 deviations) (copied).",
        "The teacher does nothing unusual here. Student: &lt;i&gt;smoother (7 deviations) (its own).",
    ):
        assert told in text
    assert (tmp_path / "images/failure-1-int8.png").exists()
    quality["failures"] = failures | {"why_not": "12 training pairs do not show", "rows": []}
    assert "Nothing could be judged: 12 training pairs" in report.render(make_evidence(quality=quality), {})


def test_weak_spots_come_worst_first() -> None:
    parts = {
        "slices": [
            {"name": "dark", "samples": 4, "error": 0.5, "change": 1.0},
            {"name": "bright", "samples": 4, "error": 0.25, "change": 1.0},
            {"name": "grey", "samples": 0, "error": 0.0, "change": 0.0},
        ],
        "photos": [
            {"name": "g1", "count": 4, "error": 1.5, "change": 1.0},
            {"name": "0123456789abcdef", "count": 4, "error": 0.0, "change": 1.0},
        ],
    }
    rows = report.part_rows(parts, make_evidence().inputs)
    assert [(row["name"], row["samples"], row["explained_effect"], row["bar"]) for row in rows] == [
        ("library:scikit-image/photo-1.png", 4, -0.5, 0.0),
        ("dark", 4, 0.5, 50.0),
        ("bright", 4, 0.75, 75.0),
        ("0123456789ab", 4, 1.0, 100.0),
    ]


def test_the_page_shows_weak_spots_flicker_structure_and_interval(page: Page) -> None:
    assert page.cells[""]["flicker"] == "6.0"
    for words in ("dark · 20 pictures", "Structure kept: 0.613", "Flicker: 6.00 levels", "Interval: 0.660 to 0.770"):
        assert words in page.text, words


def test_the_page_tells_what_int8_costs_and_what_stays_in_float(page: Page) -> None:
    assert "Quantisation" not in page.text  # exported before it was recorded
    evidence = make_evidence()
    pair = {"psnr_db": 43.33, "worst_psnr_db": 39.93}
    kept = {"high": ["stem", "decoder.3"], "all_int8": pair, "to_float": pair | {"psnr_db": 45.78}}
    files = [
        file | kept | {"budget_held": "onnx" not in file["file"]} if file["precision"] == "int8" else file
        for file in evidence.exported["files"]
    ]
    costs = [
        {"block": "decoder.3", "cost_db": 5.0, "worst_cost_db": 1.9},
        {"block": "stem", "cost_db": 0.5, "worst_cost_db": 3.2},
        {"block": "body", "cost_db": -0.1, "worst_cost_db": 0.0},
    ]
    told = Page(report.render(make_evidence(exported={"files": files, "sensitivity": costs}), {}))
    for words in ("43.3 / 39.9", "45.8 / 39.9", "stem, decoder.3", "not held", "5.00 / 1.90", "0.50 / 3.20"):
        assert words in told.text, words
    assert [row["bar"] for row in report.cost_rows({"sensitivity": costs})] == [100.0, 10.0]
    assert report.cost_rows({}) == []


def test_the_page_shows_every_target_and_what_failed(page: Page) -> None:
    for words in (
        "not measured: no Android device answers",
        "student.fp32.tflite not measured (no <runtime>)",
        "student.fp32.onnx · 1 thread · browser, wasm",
        "temperature 51 to 82.5°C; frequency 2400 to 1200 MHz; load 0.5 to 0.5; governor ondemand",
        "54.00 ms at the end, 1.80 times as long",
        "energy unknown: no energy counter",
        "A video frame at 720p",
        "14.0 ms, fits",
        "49.0 ms, does not fit: network",
        "41.0 (49.2)",
        "stopped by network",
    ):
        assert words in " ".join(page.text.split()), words
    bars = [attributes for tag, attributes in page.tags if (attributes.get("class") or "").startswith("step-")]
    assert len(bars) == 2 * 4 + 4


def test_bars_and_marks_stay_within_their_track() -> None:
    rows = speed_report.frame_rows(with_targets(make_evidence().benchmark))
    assert [row["target"] for row in rows] == ["local", "browser"]
    for row in rows:
        assert sum(step["bar"] for step in row["steps"]) <= 100 and 0 < row["budget_mark"] <= 100


def test_lineage_names_every_digest(page: Page) -> None:
    evidence = make_evidence()
    digests = [evidence.pairs["teacher"], evidence.pairs["digest"], evidence.student["weights_sha256"]]
    digests += [file["sha256"] for file in evidence.exported["files"]]
    for digest in digests:
        assert digest in page.text
    assert LICENCE in page.text and "near-duplicate" in page.text


def test_hostile_text_stays_text() -> None:
    hostile = "<script>alert(1)</script>\"' onerror=x"
    evidence = make_evidence(name=hostile, licence="</td><img src=x onerror=alert(2)>")
    evidence.pairs["teacher_name"] = "{{ 7 * 7 }}<b>"  # type: ignore[index]
    page = Page(report.render(evidence, {}))
    assert hostile in page.text and "</td><img src=x onerror=alert(2)>" in page.text and "{{ 7 * 7 }}<b>" in page.text
    assert len(page.named("script")) == 1
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)


def test_obstacles_are_told_once_a_layer() -> None:
    [row] = report.obstacle_rows(FINDINGS)
    assert (row["layer"], row["operations"], row["kind"]) == ("encoder.bn1.act", "HARD_SWISH, MUL", "fallback")
    page = report.render(make_evidence(), {})
    assert "encoder.bn1.act" in page and "ReLU6, exact in int8" in page and "97.5" in page
    bare = report.render(
        make_evidence(exportability={"figures": {}, "findings": []}, exported={"files": FILE_ROWS}), {}
    )
    assert "Use instead" not in bare and "Sizes and parity" not in bare


def test_the_same_evidence_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "quality.json", make_quality())
    evidence = make_evidence(benchmark=with_targets(make_evidence().benchmark))
    report.write_report(tmp_path, evidence, BANDS, make_panels)
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_a_report_without_int8_interval_or_validation(tmp_path: Path) -> None:
    evidence = make_evidence()
    quality = dict(evidence.quality) | {"explained_effect_interval": None, "files": {}}
    quality["files"] = {FILES[0][0]: figures(0.7)}
    quality["evidence"] = good(flicker=None, structure_kept=None, photos=(), slices=()).to_json()
    exported = {"files": evidence.exported["files"][:1]}
    curve = [line for line in evidence.curve if "loss" in line][:1]
    none = {"steps": 0, "rows": []}
    left_out = {"video": VIDEO | {"flicker": {}, "clip": None}, "clip": {}}
    bare = make_evidence(quality=quality, exported=exported, curve=curve, variants=none, **left_out)
    panels = {panel: picture for panel, picture in make_panels(0).items() if panel != "int8"}
    report.write_report(tmp_path, bare, {"best": [0]}, lambda row: panels)
    page = Page((tmp_path / "index.html").read_text())
    assert "95" not in page.cells[""].values() and len(page.named("img")) == 3 + 2 + 1 + 1
    assert "Variants" not in page.text and not (tmp_path / "images/variants.png").exists()


def test_variants_are_told_with_their_front(folder: Path, page: Page) -> None:
    [table] = [one for one in page.named("table") if one.get("id") == "variant-table"]
    assert table is not None and "for the same 300 steps more" in " ".join(page.text.split())
    for words in ("whole", "pruned 0.5", "0.612"):
        assert words in page.text
    with Image.open(folder / "images/variants.png") as picture:
        assert picture.size == (1290, 660)


def test_the_sample_sheet_has_a_row_for_each_band(folder: Path) -> None:
    with Image.open(folder / "samples.png") as sheet:
        assert sheet.width > 4 * SIZE and sheet.height > 3 * SIZE
        assert sheet.getpixel((84 + 5, 36 + 5)) == (0, 0, 0)


def test_frames_of_a_clip_are_one_origin() -> None:
    common = {"licence": "x", "width": 8, "height": 8, "group": "g", "split": "train"}
    frames = [Input(digest=str(i), origin=f"folder:a.mp4#{i}.0", clip="c", **common) for i in range(3)]
    photo = Input(digest="p", origin="folder:odd#name.png", clip="", **common)
    rows = report.origin_rows([*frames, photo])
    assert [(row["origin"], row["inputs"]) for row in rows] == [("folder:a.mp4", 3), ("folder:odd#name.png", 1)]


def test_smoothing_keeps_length_and_level() -> None:
    for count in (1, 2, 5, 40):
        assert charts.smooth([2.0] * count) == pytest.approx([2.0] * count)


def test_chromium_opens_the_page_without_an_error(folder: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the dev extra)")
    problems: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for width in (390, 1280):
            tab = browser.new_page(viewport={"width": width, "height": 900})
            tab.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
            tab.on("pageerror", lambda error: problems.append(str(error)))
            tab.on("requestfailed", lambda request: problems.append(request.url))
            tab.goto((folder / "index.html").as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
            check_enlarging(tab)
        browser.close()
    assert not problems


def check_enlarging(tab: Any) -> None:
    """Open a picture by keyboard, walk on with an arrow, close with Escape; the focus follows."""
    tab.locator(".shot").first.focus()
    tab.keyboard.press("Enter")
    assert tab.locator("dialog").is_visible()
    assert tab.locator("#zoom-title").inner_text() == "Best 1: Input"
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#zoom-title").inner_text() == "Best 1: Teacher"
    assert tab.evaluate("document.querySelector('dialog img').decode().then(() => true)")
    tab.keyboard.press("Escape")
    assert not tab.locator("dialog").is_visible()
    # The dialog tells that it has closed a task later.
    tab.wait_for_function("document.activeElement.getAttribute('href') === 'images/best-1-teacher.png'", timeout=10_000)


def test_curation_is_told_by_rule_with_its_limit_and_what_it_could_not_judge() -> None:
    page = report.render(make_evidence(), {})
    section = page[page.index('<h2 id="curation">') : page.index('<h2 id="lineage">')]
    assert "identity judged none of 200 pairs: no face was found in any input." in section
    assert '<tr><th scope="row">near-duplicate</th><td>2</td><td>2</td><td>2</td>' in section
    assert "13.000 (the least)" in section
    assert "People decided to keep 1 pairs and to drop 2." in section


def test_what_lies_outside_is_told(folder: Path, page: Page) -> None:
    """Each shifted set with its figures, the worst first, and the chart of scores with a mark for every picture."""
    from tasks.detector_report import WORDS, detector_rows

    evidence = make_evidence()
    rows = detector_rows(evidence.detector)
    assert rows[0]["name"] == "Line art and print" and rows[-1]["name"] == "Night"
    names = [row["name"] for row in rows]
    assert [name for name in page.cells if name in names] == names and len(names) == len(WORDS) - 1
    assert (
        page.cells["Night"] | {"auroc": "1.000", "fades": "90%", "interval": quality_report.ABSENT}
        == page.cells["Night"]
    )
    text = (folder / "index.html").read_text()
    assert "8 photos cannot vouch for such a rate" in text and "25&thinsp;%" in text
    svg = (folder / "images/detector.svg").read_text()
    assert "currentColor" in svg and report.scores_svg(evidence.detector) == svg


def test_a_report_without_a_detector_says_why(tmp_path: Path) -> None:
    none = no_detector("cd" * 32, "ab" * 32, left_out=False, without="three photos <are> too few") | {"latency": None}
    report.write_report(tmp_path, make_evidence(detector=none), {"best": [0]}, make_panels)
    text = (tmp_path / "index.html").read_text()
    assert "There is no detector: three photos &lt;are&gt; too few." in text
    assert not (tmp_path / "images/detector.svg").exists() and "outside-table" not in text
