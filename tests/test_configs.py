"""Every shipped config loads, differs from the defaults on purpose, and sets the knobs there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from lungseg.config.loading import dump_config, load_config

REPOSITORY = Path(__file__).parents[1]
CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_config_loads_and_survives_a_round_trip(path: Path, tmp_path: Path) -> None:
    config = load_config(path, [])
    again = tmp_path / "again.yaml"
    again.write_text(dump_config(config))
    assert load_config(again, []) == config


def test_the_three_promised_configs_are_there() -> None:
    assert {"demo.yaml", "covidqu.yaml", "covidqu_cpu.yaml"} <= {path.name for path in CONFIGS}
