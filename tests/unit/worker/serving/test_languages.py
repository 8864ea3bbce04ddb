"""The language of a text, and what an answer in it says of the model."""

from __future__ import annotations

import pytest

from reviewmesh_worker.engines.interface import ItemResult, SentimentOutput
from reviewmesh_worker.serving.languages import language_of, measured_in
from reviewmesh_worker.serving.results import to_result


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Die Lieferung kam zwei Wochen zu spät und niemand hat sich gemeldet.", "de"),
        ("The parcel came two weeks late and nobody told me.", "en"),
        ("Paketet kom två veckor för sent och ingen hörde av sig.", "sv"),
        ("配達が早くて梱包も丁寧でした。", "ja"),
        ("พนักงานพูดจาไม่ดีและอาหารก็เย็นชืด จะไม่มาอีกแล้ว", "th"),
        ("", ""),
        ("👍👍👍", ""),
    ],
)
def test_a_language_is_detected(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    ("given", "language"),
    [
        ("pt-BR", "pt"),
        ("zh_Hans", "zh"),
        ("SV", "sv"),
        ("und", "en"),
        ("English", "en"),
        ("", "en"),
    ],
)
def test_a_language_that_is_given_stands_if_it_is_a_tag(given: str, language: str) -> None:
    assert language_of("The parcel came two weeks late and nobody told me.", given) == language


def test_a_language_is_measured_in_if_the_package_names_it() -> None:
    assert measured_in("sv", ("de", "sv")) is True
    assert measured_in("eu", ("de", "sv")) is False
    assert measured_in("", ("de", "sv")) is None
    assert measured_in("sv", ()) is None


def test_a_result_says_whether_the_model_was_made_for_the_language() -> None:
    answer = ItemResult(SentimentOutput("positive", {"positive": 1.0}))
    usage = to_result("1", answer, 5, language="eu", measured=False).usage
    assert (usage.language, usage.HasField("language_measured")) == ("eu", True)
    assert not usage.language_measured
    assert not to_result("1", answer, 5).usage.HasField("language_measured")
