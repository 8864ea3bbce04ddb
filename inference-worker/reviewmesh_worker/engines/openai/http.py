"""The HTTP client for endpoints that strangers run: it goes nowhere else, and reads a bounded body.

A redirect would send the text to a host that nobody named, perhaps in another region; it comes
back as an error with its status. A body is counted as it is unpacked, because a small one may be
of any size then.
"""

from __future__ import annotations

from typing import Any, Final

import httpx2

LARGEST_ANSWER: Final = 16 * 1024 * 1024
LARGEST_FILE: Final = 512 * 1024 * 1024
"""Of the answers to a whole batch."""
_COMPLETIONS: Final = "/chat/completions"
# They are those of the body as it came.
_OF_THE_BODY: Final = ("content-encoding", "content-length", "transfer-encoding")


class TooLarge(httpx2.DecodingError):
    """The body is larger than any sound answer."""


class StrangersClient(httpx2.AsyncClient):
    """Proxies from the environment are used, as by any client."""

    def __init__(self, connections: int | None = None) -> None:
        """At most so many connections; without a number, as many as there are requests."""
        limits = httpx2.Limits(max_connections=connections)
        super().__init__(limits=limits, follow_redirects=False)

    async def send(
        self, request: httpx2.Request, *, stream: bool = False, **more: Any
    ) -> httpx2.Response:
        """Raises TooLarge."""
        response = await super().send(request, stream=True, **more)
        if stream:
            return response
        is_completion = request.url.path.endswith(_COMPLETIONS)
        try:
            content = await _read(response, LARGEST_ANSWER if is_completion else LARGEST_FILE)
        finally:
            await response.aclose()
        headers = [
            (name, value)
            for name, value in response.headers.multi_items()
            if name.lower() not in _OF_THE_BODY
        ]
        return httpx2.Response(
            response.status_code,
            headers=headers,
            content=content,
            request=request,
            extensions=response.extensions,
        )


async def _read(response: httpx2.Response, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > most:
            raise TooLarge(f"expected a body of at most {most:,} bytes")
        parts.append(part)
    return b"".join(parts)
