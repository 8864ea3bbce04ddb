"""The headers of consumed messages, which strangers wrote."""

from __future__ import annotations

from reviewmesh.kafka.record import FORWARDED_FROM, MAX_HEADERS, Headers, headers_of


class Message:
    def __init__(self, headers: Headers | None) -> None:
        self._headers = headers

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return None if self._headers is None else list(self._headers)

    def topic(self) -> str:
        return "reviews.raw"

    def partition(self) -> int:
        return 0

    offset = partition


def test_headers_come_as_they_are() -> None:
    headers: Headers = (("a", b"1"), ("a", None), ("", b""))
    assert headers_of(Message(headers)) == headers
    assert headers_of(Message(None)) == ()


def test_of_very_many_the_last_are_kept_which_the_mesh_writes() -> None:
    many: Headers = tuple((f"h{number}", b"") for number in range(5 * MAX_HEADERS))
    kept = headers_of(Message((*many, (FORWARDED_FROM, b"reviews.raw/1/2"))))
    assert len(kept) == MAX_HEADERS
    assert kept[-1] == (FORWARDED_FROM, b"reviews.raw/1/2")
