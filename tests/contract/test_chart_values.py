"""The chart's schema and README are what the code and values.yaml say."""

from __future__ import annotations

import json

import yaml

from tests.contract import chart_values

SCHEMA = json.loads(chart_values.SCHEMA.read_text())


def test_settings_of_the_schema_are_those_of_the_code() -> None:
    assert chart_values.with_settings(SCHEMA) == SCHEMA, "run `make reference`"


def test_the_readme_is_up_to_date() -> None:
    assert chart_values.README.read_text() == chart_values.readme(), "run `make reference`"


def test_every_value_has_its_default_and_its_meaning() -> None:
    chart_values.compare(SCHEMA, yaml.safe_load((chart_values.CHART / "values.yaml").read_text()))
