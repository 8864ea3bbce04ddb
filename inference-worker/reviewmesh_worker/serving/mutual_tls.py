"""Mutual TLS of the gRPC server: only clients whose certificates hold an allowed name may call."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import grpc

from reviewmesh_kit.certificates import Certificate, CertificateFiles

NAMES = "x509_subject_alternative_name"
SHOWN_NAMES = 5
SHOWN_CHARACTERS = 300


def server_credentials(files: CertificateFiles) -> grpc.ServerCredentials:
    """Each new connection gets the certificate that the files hold then."""
    first = files.current()
    used = [first]

    def fetch() -> Any:
        """None: as before. gRPC calls it in each handshake."""
        found = files.current()
        if found is used[0]:
            return None
        used[0] = found
        return _configuration(found)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(first), fetch, require_client_authentication=True
    )


def _configuration(certificate: Certificate) -> Any:
    return grpc.ssl_server_certificate_configuration(
        [(certificate.key, certificate.chain)], root_certificates=certificate.ca
    )


class AllowedClients(grpc.aio.ServerInterceptor):
    """Refuses every call of other names, health checks included."""

    def __init__(self, names: Iterable[str]) -> None:
        self._allowed = frozenset(names)

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        handler = await continuation(details)
        if handler is None:
            return None
        if handler.response_streaming:

            async def stream(request: Any, context: Any) -> None:
                await self._check(context)
                inner = handler.stream_stream if handler.request_streaming else handler.unary_stream
                responses = inner(request, context)
                if not isinstance(responses, AsyncIterator):
                    # It writes them itself.
                    await responses
                    return
                async for response in responses:
                    await context.write(response)

            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return make(stream, handler.request_deserializer, handler.response_serializer)

        async def answer(request: Any, context: Any) -> Any:
            await self._check(context)
            inner = handler.stream_unary if handler.request_streaming else handler.unary_unary
            return await inner(request, context)

        make = (
            grpc.stream_unary_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return make(answer, handler.request_deserializer, handler.response_serializer)

    async def _check(self, context: Any) -> None:
        names = [name.decode(errors="replace") for name in context.auth_context().get(NAMES, ())]
        if self._allowed.isdisjoint(names):
            got = ", ".join(names[:SHOWN_NAMES])[:SHOWN_CHARACTERS] or "none"
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                "expected a certificate with a name of REVIEWMESH_WORKER__ALLOWED_CLIENTS among "
                f"its subject alternative names, got {got}",
            )


def is_loopback(host: str) -> bool:
    """Of a listener's address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
