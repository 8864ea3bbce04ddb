"""HTTP requests with a deadline for the whole answer.

httpx bounds each read only: with a server that writes a byte a second it would wait for ever.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import Any

import httpx


class HttpClient:
    """May be called from any thread; the requests run in a thread of this client."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        within_s: float,
        at_most: int,
        before_each: Callable[[], None] = lambda: None,
    ) -> None:
        """`at_most`: bytes of an answer that are read. `before_each`: called before a request."""
        self._before_each = before_each
        self._client = client
        self._within_s = within_s
        self._at_most = at_most
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    def send(
        self, method: str, url: str, content: str | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Status and body; longer than `at_most` where not all of it was read.

        Raises httpx.HTTPError, also after the deadline.
        """
        self._before_each()
        request = self._send(method, url, content, headers)
        return asyncio.run_coroutine_threadsafe(request, self._running_loop()).result()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._loop.run_forever, name="http client", daemon=True
                ).start()
            return self._loop

    async def _send(
        self, method: str, url: str, content: Any, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        try:
            async with (
                asyncio.timeout(self._within_s),
                self._client.stream(method, url, content=content, headers=headers) as response,
            ):
                read = bytearray()
                async for part in response.aiter_bytes():
                    read += part
                    if len(read) > self._at_most:
                        break
                return response.status_code, bytes(read)
        except TimeoutError as error:
            raise httpx.ReadTimeout(f"no whole answer within {self._within_s:g} s") from error
        except ssl.SSLError as error:
            # With TLS 1.3 a server refuses a client's certificate after the handshake, in the
            # answer; httpx passes that error on as it is.
            raise httpx.ReadError(str(error)) from error
