"""A page as one HTML file that needs nothing else: pictures, style and script stand in it.

Every text is escaped by the template engine (autoescape), or by `charts` within a plot, and what turns a line round or
cannot be seen is written out (visible_text). The Content-Security-Policy names the style and the script by their hashes
and lets nothing be fetched, so that a name that got through as markup could still run and load nothing.
"""

import base64
import hashlib
from importlib import resources

from auvtool.report import charts
from auvtool.report.page import Page, Picture, number
from auvtool.visible_text import visible

_FILES = resources.files("auvtool.report")


def render_html(page: Page) -> str:
    """The text of the file; equal pages give equal text."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    # Ours, and put in as they are; charts escape what they are given.
    style, script = (Markup(_text(name)) for name in ("page.css", "page.js"))  # noqa: S704
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,  # not Markup, which is done
    )
    environment.filters["number"] = number
    environment.filters["drawn"] = Markup  # of `charts`
    template = environment.from_string(_text("page.html"))
    return template.render(
        page=page,
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        charts=charts,
        picture=_picture,
        data_uri=_data_uri,
        third_names=("small", "middle", "large"),
    )


def _picture(one: Picture) -> str:
    return charts.picture(one, as_uri=_data_uri(one.image))


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def _hash(text: str) -> str:
    """As the policy names an element: of exactly what stands between its tags."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def _text(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")
