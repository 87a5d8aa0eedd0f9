"""The sender: the only code that writes file bytes to a connection.

It counts what the kernel accepted against what the answer promised, and cuts the connection on any shortfall: the
framework would keep it open, and the next answer's bytes would become file content at the client. A cut in the middle
of a declared Content-Length is what tells every client that its copy is not whole (RFC 9112 §8).
"""

from __future__ import annotations

import contextlib
import socket

from aiohttp import web

from gateway.delivery.client import Client
from gateway.delivery.content import Content
from gateway.delivery.pace import Pace
from gateway.delivery.transfer import Transfer
from gateway.delivery.watch import ClientStalledError, reset
from gateway.http.evaluate import Span, Verdict
from gateway.storage import StorageError

SMALL_BYTES = 64 * 1024
"""Up to here an answer is read first and leaves with its header in one write."""


class Sender:
    """Sends one answer of the bytes of ``content``."""

    def __init__(
        self, request: web.Request, content: Content, verdict: Verdict, transfer: Transfer, *, pace: Pace
    ) -> None:
        self._request = request
        self._content = content
        self._verdict = verdict
        self._transfer = transfer
        self._pace = pace

    async def send(self, response: web.StreamResponse) -> None:
        """Send ``response``, whose header promises the verdict's bytes, and those bytes.

        When it returns, the transfer says what was sent; if that is not all, the connection is cut.

        Raises:
            StorageError: the bytes could not be read and nothing was sent: the answer can still be an error.
        """
        small = self._verdict.length <= SMALL_BYTES
        body = await self._open(small=small)
        try:
            async with Client.answering(self._request, response, self._transfer, self._pace) as client:
                if small:
                    await self._send_small(client, response, body)
                else:
                    await self._send_large(client, response)
            self._transfer.finished = True
        except (StorageError, ConnectionError, ClientStalledError) as error:
            self._transfer.problem = error
            self._cut(response)
        except BaseException:
            self._cut(response)
            raise

    async def _open(self, *, small: bool) -> bytes:
        """Have the first bytes at hand; all of the body, if it is small."""
        parts = self._verdict.parts
        first = next((part for part in parts if isinstance(part, Span)), None)
        if first is None:
            return b""
        await self._content.open(first, at_once=small and len(parts) == 1)
        if not small:
            return b""
        return b"".join([await self._content.read(part) if isinstance(part, Span) else part.data for part in parts])

    async def _send_small(self, client: Client, response: web.StreamResponse, body: bytes) -> None:
        # Not to wait in there, where no deadline holds.
        client.transport.set_write_buffer_limits(high=4 * SMALL_BYTES)
        try:
            await response.write_eof(body)
            await client.flush()
        finally:
            client.transport.set_write_buffer_limits()
            framing = self._verdict.length - self._transfer.promised
            accepted = max(len(body) - client.transport.get_write_buffer_size() - framing, 0)
            self._transfer.sent = min(accepted, self._transfer.promised)

    async def _send_large(self, client: Client, response: web.StreamResponse) -> None:
        with client.full_segments():
            client.send_headers()
            for part in self._verdict.parts:
                if isinstance(part, Span):
                    await self._content.send(part, client)
                else:
                    await client.frame(part.data)
            await client.flush()
        await response.write_eof()

    def _cut(self, response: web.StreamResponse) -> None:
        """End the connection so that the client sees a broken transfer, and so that nothing else can follow on it."""
        response.force_close()
        transport = self._request.transport
        if transport is None:
            return
        if isinstance(self._transfer.problem, ClientStalledError):
            reset(transport)
            return
        # A plain end, not a reset: what was sent arrives, and the client can resume from there.
        with contextlib.suppress(OSError):
            transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        transport.abort()
