"""Pages and Markdown from Jinja templates beside the code; names, origins and licences are other people's text."""

from pathlib import Path
from typing import Any


def render(template: Path, **values: Any) -> str:
    """The page as text, autoescaped; what it includes lies beside it or here, and a value it misses is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(**values)


def render_markdown(template: Path, **values: Any) -> str:
    """The document as text; filters: `figure(digits)` of a number that may be None, `plain` of anyone's text."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, trim_blocks=True, autoescape=False)
    environment.filters |= {"figure": _figure, "plain": _plain}
    return environment.from_string(template.read_text()).render(**values)


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _plain(text: str) -> str:
    """A file name or licence note as one line of Markdown text: it is the user's, and may hold anything."""
    line = " ".join(text.split())
    return "".join(f"\\{character}" if character in r"\`*_{}[]<>#|" else character for character in line)
