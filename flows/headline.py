"""What a run came to, in a few lines: all of it is in bundle/manifest.json."""

from models.errors import UserError
from tasks.manifest import MANIFEST, LabelQuality, Manifest, ModelFile, Quality, read_manifest
from tasks.stage import STUDENTS

Rows = list[tuple[str, str]]


def headline(student: str) -> Rows:
    """(what, figure) rows about one student's bundle; UserError when there is none or it is of another version."""
    folder = STUDENTS / student
    manifest = read_manifest(folder / "bundle" / MANIFEST)
    shown = manifest.phone
    return [
        ("report", f"{folder}/report/index.html"),
        ("bundle", f"{folder}/bundle"),
        ("MLflow", "make ui"),
        ("quality", _quality(manifest, shown)),
        ("latency", _latency(shown)),
        ("size", f"{shown.file}: {shown.bytes / 2**20:.2f} MiB"),
        ("gate", ("passed: " if manifest.gate.passed else "FAILED: ") + manifest.gate.reason),
    ]


def _figure(value: float | None, form: str) -> str:
    return "not measured" if value is None else format(value, form)


def _quality(manifest: Manifest, shown: ModelFile) -> str:
    own = shown.quality
    if isinstance(own, LabelQuality):
        return _label_quality(manifest, own)
    against = [
        f"{name.replace('_', ' ')} {_figure(found.explained_effect, '.2f')}"
        for name, found in manifest.baselines.items()
        if isinstance(found, Quality)
    ]
    return (
        f"explained effect {_figure(own.explained_effect, '.2f')} of the teacher's ({', '.join(against)}), "
        f"PSNR {_figure(own.psnr_db, '.1f')} dB, sharpness {_figure(own.sharpness_ratio, '.2f')}, "
        f"chroma {_figure(own.chroma_ratio, '.2f')}; {manifest.test_samples} test pictures"
    )


def _label_quality(manifest: Manifest, own: LabelQuality) -> str:
    against = [
        f"{name.replace('_', ' ')} {_figure(found.accuracy, '.3f')}"
        for name, found in manifest.baselines.items()
        if isinstance(found, LabelQuality)
    ]
    return (
        f"accuracy {_figure(own.accuracy, '.3f')} ({', '.join(against)}), worst class "
        f"{_figure(own.worst_class, '.3f')}, agrees with its teacher on {_figure(own.agreement, '.1%')}, calibration "
        f"error {_figure(own.ece, '.3f')}; {manifest.test_samples} test examples"
    )


def _latency(shown: ModelFile) -> str:
    rows = [
        f"{_ms(row.p50_ms)} ms (p90 {_ms(row.p90_ms)}) on {row.threads} thread{'s' * (row.threads > 1)}"
        for row in shown.latency
    ]
    return f"{shown.file}: {', '.join(rows) or 'not measured'}"


def _ms(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def as_text(student: str, rows: Rows) -> str:
    """The rows for a terminal, one a line."""
    return "\n".join([f"{student}:", *(f"  {what:<8}{figure}" for what, figure in rows)])


def as_markdown(student: str, rows: Rows) -> str:
    """The rows as a table for Prefect's page of the run."""
    cells = [f"| {what} | {figure.replace('|', '/')} |" for what, figure in rows]
    return "\n".join([f"# {student}", "", "| what | figure |", "|---|---|", *cells])


def try_headline(student: str) -> Rows:
    """The rows, or one that says why there are none."""
    try:
        return headline(student)
    except UserError as error:
        return [("bundle", f"unreadable: {error}")]
