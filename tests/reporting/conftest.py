"""A made-up evaluation for the tests of the report."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import make_evaluation

from lungseg.reporting.chart_files import Chart
from lungseg.reporting.evaluation_charts import evaluation_charts
from lungseg.reporting.evaluation_files import Content, read_content
from lungseg.reporting.report_run import evaluation_page


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a made-up evaluation of 12 images. Not to be changed by a test."""
    return make_evaluation(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="session")
def content(evaluation: Path) -> Content:
    """What its report is made from."""
    return read_content(evaluation)


@pytest.fixture(scope="session")
def charts(content: Content) -> dict[str, list[Chart]]:
    """Its charts."""
    return evaluation_charts(content)


@pytest.fixture(scope="session")
def page(content: Content, charts: dict[str, list[Chart]], evaluation: Path) -> str:
    """Its page."""
    return evaluation_page(content, charts, evaluation)
