"""Target `browser`: ONNX files in headless Chromium, by ONNX Runtime's WebAssembly and, where there is one, WebGPU.

Chromium is the system's, driven by Playwright; the pages come from loopback (tasks/browser_server.py). There is one
page for each number of threads, and the pages take turns. A time is that of `session.run` as an app calls it: with the
copy of the picture into the runtime's memory and of the result out of it. Outputs on validation pictures are compared
with those of ONNX Runtime, LiteRT and torch here (tasks/target_parity.py); a file that computes something else is not
timed.
"""

import base64
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from models.errors import UserError
from models.runtimes import OF_TOKENS
from tasks.browser_server import Site, as_json, pages, runtime_files, runtime_version, serving
from tasks.clip import CODEC, HEIGHT, WIDTH, make_clip
from tasks.frame_budget import frame_row
from tasks.machine_state import cpu_model, state
from tasks.target import Images, Job, Json, Measured, all_or_reason, file_row, judged_file
from tasks.target_parity import beyond, compare, made_here, parity_here
from tasks.timing import percentiles, slowing

NAMES = ("chromium", "chromium-browser", "google-chrome")
START_S, CALL_S, ANSWER_S = 60, 180, 0.1
TURN = 5  # runs that a page makes before the next page has its turn
STEPS = {
    "decode": "WebCodecs H.264, in software",
    "resize": "2D canvas in memory",
    "network": "ONNX Runtime, WebAssembly",
    "composite": "2D canvas in memory: enlarged, masked by a soft oval, drawn over the frame",
}


class Tab:
    """A page for one provider and number of threads."""

    def __init__(self, browser: Any, origin: str, provider: str, threads: int) -> None:
        self.provider, self.threads = provider, threads
        self.page = browser.new_page()
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        with told():
            self.page.goto(f"{origin}/page.html?provider={provider}&threads={threads}", timeout=1000 * START_S)
            try:
                self.page.wait_for_function("() => window.ready", timeout=1000 * START_S)
            except Exception:
                if self.problems:
                    raise UserError(f"the page did not start: {self.problems[0]:.160}") from None
                raise

    def call(self, name: str, *words: Any, seconds: float = CALL_S) -> Any:
        """What a function of page.js gives; a UserError with its error, or where the browser is gone or hangs."""
        with told():
            self.page.evaluate("([name, words]) => window.start(name, words)", [name, list(words)])
            waiting = {"timeout": 1000 * seconds, "polling": 1000 * ANSWER_S}
            self.page.wait_for_function("() => window.answer !== null", **waiting)
            answer = self.page.evaluate("() => window.answer")
        if "error" in answer:
            raise UserError(" ".join(answer["error"].split())[:200])
        return answer["value"]


@contextmanager
def told() -> Iterator[None]:
    """Playwright's errors as one line each."""
    from playwright.sync_api import Error, TimeoutError

    try:
        yield
    except TimeoutError:
        raise UserError("the browser did not answer in time") from None
    except Error as error:
        lines = str(error).strip().splitlines() or [""]
        raise UserError(f"the browser went away in the middle ({lines[0]:.120})") from None


@contextmanager
def chromium() -> Iterator[Any]:
    """The system's Chromium, headless; a UserError where it, or Playwright, is missing or it cannot start."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise UserError("playwright is not installed: pip install -c constraints.txt '.[dev]'") from None
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        raise UserError("no Chromium on this machine: install it (apt-get install chromium)")
    # Unsafe only says that the flag is no default on Linux yet. No name is looked up: everything is on loopback.
    words = ["--enable-unsafe-webgpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        words.append("--no-sandbox")  # Chromium refuses to start as root with it
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=found, args=words, timeout=1000 * START_S)
        except Error as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise UserError(f"Chromium at {found} cannot start ({(lines or ['no reason given'])[0]:.120})") from None
        try:
            yield browser
        finally:
            with suppress(Error):  # it may be gone already
                browser.close()


def measure_browser(job: Job, target: str) -> Measured:
    """Every ONNX file on every number of threads in WebAssembly, and the float ones once in WebGPU."""
    files = [one for one in job.files if one["runtime"] == "onnx"]
    if not files:
        raise UserError("there is no ONNX file, which is what a browser runs")
    if any(one.get("gives") == OF_TOKENS for one in files):
        raise UserError("text classifiers are not timed in a browser so far")
    site = site_of(job, files)
    before = state()
    with serving(site) as origin, chromium() as browser:
        tabs = [Tab(browser, origin, "wasm", threads) for threads in job.threads]
        about = told_of(browser, tabs)
        parities, failed = open_files(job, files, tabs)
        files = [one for one in files if one["file"] not in failed]
        all_or_reason(failed, files)
        rows = time_files(job, files, tabs, target, parities)
        judged = judged_file(files, target)
        frames = [frames_of(job, judged, tab) for tab in tabs if job.frames and job.pictures]
        if job.sustained_s > 0:
            about["sustained"] = sustained_run(job, judged, tabs[0])
        if about["machine"]["webgpu"]:
            rows += on_webgpu(job, files, browser, origin, target, about)
    about |= {"before": before, "after": state()}
    return Measured(files=rows, about=about, not_measured=failed, frames=frames)


def site_of(job: Job, files: Sequence[Json]) -> Site:
    """All that is served: page, runtime, models, pictures and the clip."""
    site = pages() | runtime_files()
    site |= {f"/models/{one['file']}": (job.exported / one["file"]).read_bytes() for one in files}
    site["/pictures.bin"] = b"".join(one.transpose(0, 3, 1, 2).tobytes() for one in job.pictures)
    if job.frames and job.pictures:
        packets = make_clip(job.pictures, job.frames)
        clip = {"width": WIDTH, "height": HEIGHT, "codec": CODEC, "lengths": [len(packet) for packet in packets]}
        site |= {"/clip.bin": b"".join(packets), "/clip.json": as_json(clip)}
    return site


def told_of(browser: Any, tabs: Sequence[Tab]) -> dict[str, Any]:
    """The browser as a machine, and whether it has WebGPU."""
    about = tabs[0].call("about")
    if max(tab.threads for tab in tabs) > 1 and not about["isolated"]:
        raise UserError("the browser does not let pages share memory between threads (not cross-origin isolated)")
    machine = {
        "cpu": cpu_model(),
        "browser": f"Chromium {browser.version}",
        "onnxruntime_web": runtime_version(),
        "cores": about["cores"],
        "webgpu": None if about["software"] else about["webgpu"],
    }
    if about["webgpu"] and about["software"]:
        # Minutes for a picture, and it says nothing of a graphics processor.
        machine["webgpu_note"] = f"not measured: in software only ({about['webgpu']})"
    elif not about["webgpu"]:
        machine["webgpu_note"] = f"absent: {about['webgpu_absent']}"
    return {"machine": machine}


def open_files(job: Job, files: Sequence[Json], tabs: Sequence[Tab]) -> tuple[dict[str, Any], dict[str, str]]:
    """Open every file in every page; the parity of each, and why those are left out that fail or differ."""
    parities: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for one in files:
        try:
            sizes = [tab.call("open", one["file"], one.get("gives", "picture")) for tab in tabs]
            if job.pictures and sizes[0] == job.pictures[0].shape[1]:
                parities[one["file"]] = agreement(job, one, tabs[0])
        except UserError as error:
            if "browser" in str(error):  # gone, and not the file's fault
                raise
            failed[one["file"]] = str(error)
    return parities, failed


def agreement(job: Job, file: Json, tab: Tab) -> dict[str, Any]:
    """Parity of a file's outputs in the browser; a UserError where they lie beyond the tolerances."""
    raw: Images = np.frombuffer(base64.b64decode(tab.call("outputs", file["file"])), np.float32)
    size = job.pictures[0].shape[1]
    of_logits = file.get("gives") == "logits"
    outputs = raw.reshape(len(job.pictures), -1) if of_logits else raw.reshape(-1, 3, size, size).transpose(0, 2, 3, 1)
    found: dict[str, Any] = dict(parity_here(job, file, outputs))
    wrong = beyond(file["precision"], found, "ONNX Runtime's here")
    for name, expected in references(job, file):
        found[name] = compare(job, outputs, expected)
        wrong = wrong or beyond(file["precision"], found[name], f"{name}'s")
    if wrong:
        raise UserError(wrong)
    return found


def references(job: Job, file: Json) -> Iterator[tuple[str, list[Images]]]:
    """What LiteRT makes of the pictures here in the same precision, and of float32 torch, where they are there."""
    for one in job.files:
        if (one["runtime"], one["precision"]) == ("litert", file["precision"]):
            yield "litert", made_here(job, one)
    student = job.exported.parent / "student"
    if file["precision"] == "fp32" and (student / "student.json").is_file() and file.get("gives") != "logits":
        from models.students import load_student
        from tasks.parity import torch_function

        run = torch_function(load_student(student))
        yield "torch", [run(picture) for picture in job.pictures]


def time_files(
    job: Job, files: Sequence[Json], tabs: Sequence[Tab], target: str, parities: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows of every file in every page; the pages take turns."""
    names = [one["file"] for one in files]
    taken: dict[tuple[str, int], list[float]] = {}
    for tab in tabs:
        tab.call("warm", names, job.warmup)
    for begun in range(0, job.runs, TURN):
        for at, tab in enumerate(tabs):
            for name, times in tab.call("time", names, min(TURN, job.runs - begun)).items():
                taken.setdefault((name, at), []).extend(times)
    return [
        file_row(
            one,
            target,
            tab.threads,
            percentiles(taken[one["file"], at])
            | {"peak_mib": None, "runs": job.runs, "provider": tab.provider, "parity": parities.get(one["file"])},
        )
        for one in files
        for at, tab in enumerate(tabs)
    ]


def on_webgpu(
    job: Job, files: Sequence[Json], browser: Any, origin: str, target: str, about: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows of the float files in WebGPU; what it cannot do is noted, as WebAssembly is what the target is judged by."""
    floats = [one for one in files if one["precision"] != "int8"]
    try:
        tab = Tab(browser, origin, "webgpu", 1)
        parities, failed = open_files(job, floats, [tab])
        if failed:
            about["webgpu_not_measured"] = failed
        return time_files(job, [one for one in floats if one["file"] not in failed], [tab], target, parities)
    except UserError as error:
        about["machine"]["webgpu_note"] = f"not measured: {error}"
        return []


def sustained_run(job: Job, file: Json, tab: Tab) -> dict[str, Any]:
    """The judged file for as long as is asked."""
    found = tab.call("sustain", file["file"], job.sustained_s, seconds=CALL_S + job.sustained_s)
    energy = {"joules_per_picture": None, "reason": "not read for a browser"}
    return {"file": file["file"], "threads": tab.threads, **slowing(found["times"], found["ends"]), "energy": energy}


def frames_of(job: Job, file: Json, tab: Tab) -> dict[str, Any]:
    """The frame budget in one page."""
    return frame_row(file, tab.threads, tab.call("frames", file["file"], job.frames), STEPS)
