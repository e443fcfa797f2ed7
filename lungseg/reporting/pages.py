"""Pages as HTML, from the jinja2 templates in `templates/`: each is one file that needs no network and no other file.

`frame.html.jinja` is the frame of every page (head, style, security policy, disclaimer, contents) and
`macros.html.jinja` holds tables, figures and the like; a page extends the one and imports the other.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from lungseg.reporting.chart_files import to_svg
from lungseg.reporting.formatting import digits_of, format_images, format_interval

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """Fill in a template of `templates/`: text is escaped, only `markupsafe.Markup` is taken as HTML.

    Raises:
        jinja2.UndefinedError: The template speaks of something that was not given.
    """
    return _environment().get_template(template).render(values)


def sentence(words: str) -> str:
    """Words as a sentence: a capital first letter, and a full stop."""
    return f"{words[:1].upper()}{words[1:]}."


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("lungseg.reporting")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )

    def source(name: str) -> Markup:
        # style.css and script.js are full of braces: they are put into the page as they are, not as templates
        return Markup(loader.get_source(environment, name)[0])

    environment.globals["source"] = source
    environment.filters |= {
        "digits": digits_of,
        "heading": lambda name, headings: headings.get(name, name.replace("_", " ")),
        "images": format_images,
        "interval": format_interval,
        "sentence": sentence,
        "svg": to_svg,
    }
    return environment
