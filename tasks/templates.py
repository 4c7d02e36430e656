"""Pages from Jinja templates beside the code, autoescaped, as names, origins and licences are other people's text."""

from pathlib import Path
from typing import Any


def render(template: Path, **values: Any) -> str:
    """The page as text; what it includes lies beside it or here, and a value that it misses is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(**values)
