"""The sender: the only code that writes file bytes to a connection.

It counts what the kernel accepted against what the answer promised, and cuts the connection on any shortfall: the
framework would keep it open, and the next answer's bytes would become file content at the client. A cut in the middle
of a declared Content-Length is what tells every client that its copy is not whole (RFC 9112 §8).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import Protocol

from aiohttp import web

from gateway.delivery.allowance import Allowance, AllowanceEndedError, granted_beyond
from gateway.delivery.client import Client
from gateway.delivery.pace import Pace
from gateway.delivery.transfer import Transfer
from gateway.delivery.watch import ClientStalledError, reset
from gateway.http.evaluate import Span, Verdict
from gateway.storage import StorageError

SMALL_BYTES = 64 * 1024
"""Up to here an answer is read first and leaves with its header in one write."""


class Body(Protocol):
    """What gives the bytes of a representation: those of a file, or of an archive of many."""

    async def open(self, first: Span, *, at_once: bool) -> None:
        """Be ready to give the bytes of ``first``; ``at_once`` reads them on the way, if they are of one part.

        Raises:
            StorageError: they cannot be had.
        """
        ...

    async def read(self, span: Span) -> bytes:
        """All bytes of a span of up to `SMALL_BYTES`.

        Raises:
            StorageError: they cannot be had.
        """
        ...

    async def send(self, span: Span, client: Client) -> None:
        """Send the whole span; the transfer counts what was sent, whatever happens.

        Raises:
            StorageError, ConnectionError, ClientStalledError, AllowanceEndedError: see these.
        """
        ...


class Sender:
    """Sends one answer of the bytes of ``content``: never more of them than ``allowance`` grants, if there is one."""

    def __init__(
        self,
        request: web.Request,
        content: Body,
        verdict: Verdict,
        transfer: Transfer,
        *,
        pace: Pace,
        allowance: Allowance | None,
    ) -> None:
        self._request = request
        self._content = content
        self._verdict = verdict
        self._transfer = transfer
        self._pace = pace
        self._allowance = allowance

    async def send(self, response: web.StreamResponse) -> None:
        """Send ``response``, whose header promises the verdict's bytes, and those bytes.

        When it returns, the transfer says what was sent; if that is not all, the connection is cut.

        Raises:
            StorageError: the bytes could not be read and nothing was sent: the answer can still be an error.
            AllowanceEndedError: no byte may be sent, and nothing was.
        """
        try:
            await self._wait_for_the_first_byte()
        except ConnectionError as error:
            self._transfer.problem = error
            self._cut(response)
            return
        small = self._verdict.length <= SMALL_BYTES
        at_hand = await self._open(small=small)
        try:
            answering = Client.answering(self._request, response, self._transfer, self._pace, allowance=self._allowance)
            async with answering as client:
                if small and client.room(self._transfer.promised) == self._transfer.promised:
                    await self._send_small(client, response, at_hand)
                else:
                    await self._send_large(client, response, at_hand)
            self._transfer.finished = True
        except (StorageError, ConnectionError, ClientStalledError, AllowanceEndedError) as error:
            self._transfer.problem = error
            self._cut(response)
        except BaseException:
            self._cut(response)
            raise

    async def _wait_for_the_first_byte(self) -> None:
        """Wait until it may be sent: with the header the answer can no more be an error, and a storage would idle."""
        if self._allowance is None or not self._transfer.promised:
            return
        if self._request.transport is None:
            raise ConnectionResetError("the client is gone")
        await granted_beyond(0, self._allowance, self._request.transport)

    async def _open(self, *, small: bool) -> Mapping[Span, bytes]:
        """Have the first bytes ready; those of all parts at hand, if the answer is small."""
        parts = self._verdict.parts
        first = next((part for part in parts if isinstance(part, Span)), None)
        if first is None:
            return {}
        await self._content.open(first, at_once=small and len(parts) == 1)
        if not small:
            return {}
        return {part: await self._content.read(part) for part in parts if isinstance(part, Span)}

    async def _send_small(self, client: Client, response: web.StreamResponse, at_hand: Mapping[Span, bytes]) -> None:
        body = b"".join([at_hand[part] if isinstance(part, Span) else part.data for part in self._verdict.parts])
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

    async def _send_large(self, client: Client, response: web.StreamResponse, at_hand: Mapping[Span, bytes]) -> None:
        """Send part by part, as an answer that is large, or small and not allowed at once."""
        with client.full_segments():
            client.send_headers()
            for part in self._verdict.parts:
                if not isinstance(part, Span):
                    await client.frame(part.data)
                elif part in at_hand:
                    await client.write(at_hand[part])
                else:
                    await self._content.send(part, client)
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
