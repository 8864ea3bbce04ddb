"""Errors of the connection that httpx does not wrap."""

from __future__ import annotations

import ssl

import httpx
import pytest

from reviewmesh.avro.http_client import HttpClient


def test_a_client_certificate_refused_after_the_handshake_is_an_http_error() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] certificate required")

    served = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    with pytest.raises(httpx.ReadError, match="certificate required"):
        HttpClient(served, 60, 1_000).send("GET", "http://registry.invalid", None, {})
