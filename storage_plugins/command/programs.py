"""Runs an operator's programs: with an end, with bounds, and without leaving anything of them behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from gateway.storage import CopyUnavailableError
from gateway.text import escaped

MOST_BYTES = 4 * 1024 * 1024
"""Of what a program may answer."""
_ERROR_BYTES = 4096
"""Of the end of stderr that are kept."""
_ERROR_LINES = 5
_ERROR_CHARACTERS = 1000
_DRAIN_SECONDS = 1.0
"""That what a program wrote may take to come once it has ended: a child that it left behind may keep the pipes open."""
_DYING_SECONDS = 5.0
"""That a program is waited for after SIGKILL."""
_HANDED_DOWN = ("PATH", "LANG")


class ProgramError(CopyUnavailableError):
    """A program could not be started, did not end in time, or says that it failed."""


class Programs:
    """Starts programs, each in a process group of its own, so that whatever they start ends with them.

    They see ``PATH`` and ``LANG`` of this process and the variables that are set for them, nothing else.
    """

    def __init__(self, environment: Mapping[str, str], *, most: int, grace: float = 2.0) -> None:
        """Start nothing yet.

        Args:
            environment: variables for the programs.
            most: programs at the same time; others wait for their turn.
            grace: seconds between SIGTERM and SIGKILL.
        """
        inherited = {name: os.environ[name] for name in _HANDED_DOWN if name in os.environ}
        self._environment = {**inherited, **environment}
        self._turns = asyncio.Semaphore(most)
        self._grace = grace
        self._running: set[_Run] = set()

    async def run(self, arguments: Sequence[str], question: bytes, *, seconds: float) -> bytes:
        """What a program writes to stdout when it is given ``question`` on stdin.

        The time counts from its turn. A program that is cancelled, or answers too much or too late, is ended with its
        whole group.

        Raises:
            ProgramError: see this; the message tells the end of stderr.
        """
        async with self._turns:
            with _as_program_errors(arguments[0]):
                run = await self._start(arguments)
            self._running.add(run)
            try:
                async with asyncio.timeout(seconds):
                    return await run.answer(question)
            except TimeoutError:
                raise ProgramError(f"{run.name}: did not end within {seconds:g} s{run.complaint()}") from None
            finally:
                ending = asyncio.ensure_future(run.end(self._grace))
                ending.add_done_callback(lambda _: self._running.discard(run))
                await _finished(ending)

    async def close(self) -> None:
        """End whatever still runs, at once."""
        await asyncio.gather(*(run.end(0) for run in self._running))

    async def _start(self, arguments: Sequence[str]) -> _Run:
        starting = asyncio.ensure_future(
            asyncio.get_running_loop().subprocess_exec(
                lambda: _Run(arguments[0]),
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment,
                cwd="/",
                start_new_session=True,
            )
        )
        try:
            _, run = await asyncio.shield(starting)
        except asyncio.CancelledError:
            await _finished(asyncio.ensure_future(self._end_unwanted(starting)))
            raise
        return run

    async def _end_unwanted(self, starting: asyncio.Future[tuple[asyncio.SubprocessTransport, _Run]]) -> None:
        """End what was being started for a caller that was cancelled."""
        with contextlib.suppress(OSError):
            _, run = await starting
            await run.end(self._grace)


class _Run(asyncio.SubprocessProtocol):
    """A program that runs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._transport: asyncio.SubprocessTransport | None = None
        loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[None] = loop.create_future()
        self._drained: asyncio.Future[None] = loop.create_future()
        self._too_much: asyncio.Future[None] = loop.create_future()
        self._open = {1, 2}
        self._output, self._errors = bytearray(), bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self._errors += data
            del self._errors[:-_ERROR_BYTES]
        elif len(self._output) + len(data) <= MOST_BYTES:
            self._output += data
        elif not self._too_much.done():
            self._too_much.set_result(None)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002 - of the protocol
        self._open.discard(fd)
        if not self._open and not self._drained.done():
            self._drained.set_result(None)

    def process_exited(self) -> None:
        if not self._exited.done():
            self._exited.set_result(None)

    async def answer(self, question: bytes) -> bytes:
        """Give it the question, and take what it answers.

        Raises:
            ProgramError: it failed, or answers too much.
        """
        transport = self._started()
        stdin = cast("asyncio.WriteTransport", transport.get_pipe_transport(0))
        stdin.write(question)
        stdin.close()
        await asyncio.wait((self._exited, self._too_much), return_when=asyncio.FIRST_COMPLETED)
        if not self._too_much.done():
            await asyncio.wait((self._drained, self._too_much), timeout=_DRAIN_SECONDS, return_when="FIRST_COMPLETED")
        if self._too_much.done():
            raise ProgramError(f"{self.name}: answers more than {MOST_BYTES} bytes")
        status = transport.get_returncode()
        if status:
            how = f"ended by {_signal_name(-status)}" if status < 0 else f"exit status {status}"
            raise ProgramError(f"{self.name}: {how}{self.complaint()}")
        return bytes(self._output)

    async def end(self, grace: float) -> None:
        """See that nothing of it is left that was not meant to be: after its own end its children may go on."""
        if not self._exited.done():
            if grace:
                self._signal(signal.SIGTERM)
                await asyncio.wait((self._exited,), timeout=grace)
            self._signal(signal.SIGKILL)  # To those that outlive it, too.
            # One that waits for a disk or a network file system does not even die of that before its call is over.
            await asyncio.wait((self._exited,), timeout=_DYING_SECONDS)
        self._started().close()

    def complaint(self) -> str:
        """The end of what it wrote to stderr, for a message; empty if there is nothing."""
        lines = [line.strip() for line in self._errors.decode(errors="replace").splitlines() if line.strip()]
        text = " / ".join(lines[-_ERROR_LINES:])[-_ERROR_CHARACTERS:]
        return f": {escaped(text, _ERROR_CHARACTERS)}" if text else ""

    def _started(self) -> asyncio.SubprocessTransport:
        if self._transport is None:
            raise RuntimeError("it does not run")
        return self._transport

    def _signal(self, number: int) -> None:
        """To the whole group, whose number is that of the process."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._started().get_pid(), number)


async def _finished(task: asyncio.Future[Any]) -> None:
    """Wait until ``task`` is done, however often that is cancelled meanwhile; then be cancelled."""
    cancelled = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()


@contextlib.contextmanager
def _as_program_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ProgramError(f"{name}: cannot be started: {reason}") from error


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
