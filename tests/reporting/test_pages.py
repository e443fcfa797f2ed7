"""The frame of every page, and the pieces that pages are made of."""

from __future__ import annotations

import fnmatch
import tomllib
from pathlib import Path

import jinja2
import pytest

from lungseg.reporting import pages

ROOT = Path(__file__).parents[2]
PAGE = """
{% extends "frame.html.jinja" %}{% from "macros.html.jinja" import section, table %}
{% set contents = [("a", "First part")] %}
{% block main %}{% call section("a", "First") %}{{ table(["", "v"], [["n", words]], "c") }}{% endcall %}{% endblock %}
"""


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The template `page` beside those of the package."""
    loader = jinja2.ChoiceLoader([jinja2.DictLoader({"page": PAGE}), pages._environment().loader])
    monkeypatch.setattr(pages._environment(), "loader", loader)


@pytest.mark.usefixtures("page")
def test_words_are_escaped_and_the_frame_has_policy_disclaimer_and_contents() -> None:
    text = pages.render("page", title="<b>&", words="</td><script>")
    assert "<h1>&lt;b&gt;&amp;</h1>" in text and "<td>&lt;/td&gt;&lt;script&gt;</td>" in text and "<script" not in text
    assert (
        "default-src 'none'" in text
        and text.count(">Research software, not a medical device.") == 2
        and "--paper: #fff" in text
    )
    assert '<a href="#a">First part</a>' in text and '<section id="a">' in text


@pytest.mark.usefixtures("page")
def test_an_interval_may_break_before_its_ends() -> None:
    text = pages.render("page", title="", words="0.5 [0.4, 0.6]")
    assert '<td>0.5 <span class="ends">[0.4, 0.6]</span></td>' in text


@pytest.mark.usefixtures("page")
def test_what_a_template_speaks_of_must_be_given() -> None:
    with pytest.raises(jinja2.UndefinedError, match="'words' is undefined"):
        pages.render("page", title="")


def test_every_template_is_in_the_wheel() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["lungseg"]
    for path in (ROOT / "lungseg/reporting/templates").iterdir():
        assert any(fnmatch.fnmatch(str(path.relative_to(ROOT / "lungseg")), pattern) for pattern in patterns), path
