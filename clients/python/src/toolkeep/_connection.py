"""One connection: lines out, lines in, replies matched by their ids.

A connection is used until it ends and never repaired; whoever needs another makes one. Several requests may be under way at
once, and their replies come in any order.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
from collections.abc import Callable, Mapping
from typing import NoReturn, cast

from ._errors import ConnectionLost, DaemonUnreachable, ProtocolError, Refused, RequestTooLarge
from ._model import JsonObject, JsonValue, Malformed, Progress, Refusal, an_object, text

REQUEST_MAX_BYTES = 4 * 1024 * 1024
"""Longest line that the daemon takes, its newline not counted."""
REPLY_MAX_BYTES = 16 * 1024 * 1024
"""Longest line that is taken from the daemon: four of what one may be, so that only nonsense is refused."""
DEPTH_MAX = 64
"""Levels of objects and arrays of a line that the daemon reads."""
IN_FLIGHT_MAX = 60
"""Requests under way at once; the next one waits here. The daemon takes 64: the rest is for cancelling."""
_CLOSE_S = 2.0
"""How long a closing connection waits for its last bytes."""

_LOG = logging.getLogger("toolkeep")

OnProgress = Callable[[Progress], None]


class _Pending:
    """A request whose reply has not come."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self.reply: asyncio.Future[JsonObject] = asyncio.get_running_loop().create_future()
        self.on_progress = on_progress


class Connection:
    """A connection that was made."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._ids = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._places = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._ended: Exception | None = None
        self._answered = False
        self._written: set[int] = set()
        self._reading = asyncio.create_task(self._read(), name="toolkeep: replies")

    @classmethod
    async def open(cls, path: str) -> Connection:
        """Connect to the socket at ``path``."""
        try:
            reader, writer = await asyncio.open_unix_connection(path, limit=REPLY_MAX_BYTES)
        except OSError as error:
            reason = error.strerror or str(error)
            raise DaemonUnreachable(f"no daemon answers at `{path}`: {reason}; is `toolkeep serve` running?") from error
        return cls(reader, writer)

    @property
    def is_open(self) -> bool:
        return self._ended is None

    def next_id(self) -> int:
        """A number that no other request of this connection has."""
        return next(self._ids)

    async def request(
        self,
        method: str,
        params: Mapping[str, JsonValue],
        *,
        request: int | None = None,
        on_progress: OnProgress | None = None,
        ahead: bool = False,
    ) -> JsonObject:
        """Ask, and wait for the result.

        ``ahead`` goes before whoever waits for a place. A caller that is cancelled leaves its request under way, and its place
        is free when the daemon has answered: it counts what it was asked, not who still waits for it.
        """
        number = self.next_id() if request is None else request
        line = encode({"jsonrpc": "2.0", "id": number, "method": method, "params": dict(params)})
        if not ahead:
            await self._places.acquire()
        if self._ended is not None:
            if not ahead:
                self._places.release()
            raise _again(self._ended)
        pending = self._pending[number] = _Pending(on_progress)
        if not ahead:
            pending.reply.add_done_callback(lambda _: self._places.release())
        return await self._exchange(number, line, pending)

    async def _exchange(self, number: int, line: bytes, pending: _Pending) -> JsonObject:
        self._written.add(number)
        self._writer.write(line)
        try:
            # Why it cannot be written, the reader says: the daemon may have said something before it closed.
            with contextlib.suppress(OSError):
                await self._writer.drain()
            # A caller that goes away does not take the reply's place with it: the reply still comes and is dropped.
            return await asyncio.shield(pending.reply)
        except asyncio.CancelledError:
            pending.on_progress = None
            pending.reply.add_done_callback(_heard)
            raise
        finally:
            self._written.discard(number)

    def has_sent(self, request: int) -> bool:
        """Whether a request that is not over was written; one that waits for a place was not."""
        return request in self._written

    async def _read(self) -> None:
        try:
            while True:
                try:
                    line = await self._reader.readuntil(b"\n")
                except asyncio.IncompleteReadError as error:
                    cut = "in the middle of a line" if error.partial else "before it answered"
                    return self._end(ConnectionLost(f"the daemon closed the connection {cut}"))
                except asyncio.LimitOverrunError:
                    return self._end(ProtocolError(f"a line of the daemon is longer than {REPLY_MAX_BYTES} bytes"))
                self._take(line)
        except OSError as error:
            self._end(ConnectionLost(f"the connection broke: {error}"))
        except (Malformed, ProtocolError) as error:
            self._end(ProtocolError(f"what the daemon said is not the protocol: {error}"))

    def _take(self, line: bytes) -> None:
        message = decode(line)
        if message.get("jsonrpc") != "2.0":
            raise ProtocolError("a message is not JSON-RPC 2.0")
        if "method" in message:
            return self._note(text(message, "method"), an_object(message.get("params"), "`params`"))
        number, error = message.get("id"), message.get("error")
        if number is None and error is not None:
            # It is about the connection, which ends now: too many connections, or a peer that nobody knows. Once anything
            # was answered, what is under way may have been done, and is not what was refused.
            reason = _refused(an_object(error, "`error`"))
            return self._end(ConnectionLost(f"the daemon ended the connection: {reason}") if self._answered else reason)
        pending = self._pending.get(number) if isinstance(number, int) else None
        if pending is None or not isinstance(number, int):
            raise ProtocolError(f"nobody asked with the id {number!r}")
        # What cannot be read is an end of the connection, and whoever asked hears of that as well.
        refused = None if error is None else _refused(an_object(error, "`error`"))
        result = {} if error is not None else an_object(message.get("result"), "`result`")
        del self._pending[number]
        self._answered = True
        if refused is not None:
            pending.reply.set_exception(refused)
        else:
            pending.reply.set_result(result)

    def _note(self, method: str, params: JsonObject) -> None:
        number = params.get("request")
        pending = self._pending.get(number) if isinstance(number, int) else None
        # Notes of a kind that a later daemon adds, and of requests that nobody waits for, are not for us.
        if method != "call.progress" or pending is None or pending.on_progress is None:
            return
        try:
            pending.on_progress(Progress.read(params))
        except Malformed:
            raise
        except Exception:
            _LOG.exception("a callback for progress failed; its call goes on")

    def _end(self, reason: Exception) -> None:
        if self._ended is None:
            self._ended = reason
            self._writer.close()
        waiting, self._pending = self._pending, {}
        for pending in waiting.values():
            if not pending.reply.done():
                # An exception of its own for each: one that is raised twice would carry two tracebacks.
                pending.reply.set_exception(_again(reason))

    async def close(self) -> None:
        """Close. What is still under way is cancelled by the daemon, but for commits."""
        self._end(ConnectionLost("the client was closed"))
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(self._writer.wait_closed(), _CLOSE_S)


def _again(reason: Exception) -> Exception:
    if isinstance(reason, Refused):
        return Refused(reason.refusal, reason.number)
    return type(reason)(*reason.args)


def _heard(reply: asyncio.Future[JsonObject]) -> None:
    """An error that nobody waits for any more is not worth a warning."""
    if not reply.cancelled():
        reply.exception()


def _refused(error: JsonObject) -> Refused:
    data = error.get("data")
    number = error.get("code")
    if not isinstance(data, dict):
        raise Malformed("an error has no `data`")
    return Refused(Refusal.read(data), number if isinstance(number, int) else None)


def encode(message: JsonObject) -> bytes:
    """One line.

    Raises ``ValueError`` for what is not JSON or what the daemon does not read (NaN, a lone surrogate, integers beyond 64 bits,
    names that are no texts, more than 64 levels) and ``RequestTooLarge``.
    """
    _check(message, 1)
    try:
        line = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise ValueError("a text of the request is not Unicode: it holds a lone surrogate") from error
    if len(line) > REQUEST_MAX_BYTES:
        message_text = f"the request has {len(line)} bytes; a line has at most {REQUEST_MAX_BYTES}"
        raise RequestTooLarge(f"{message_text}: send large data as a file of a workspace")
    return line + b"\n"


def _check(value: object, level: int) -> None:
    """Refuse what the daemon would not read: it could not say whose request it was."""
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError(f"{value} has more than 64 bits: write it as a text, if the tool takes one")
    if not isinstance(value, (Mapping, list, tuple)):
        return
    if level > DEPTH_MAX:
        raise ValueError(f"the request is nested deeper than {DEPTH_MAX} levels")
    if isinstance(value, Mapping):
        for name, inner in cast("Mapping[object, object]", value).items():
            if not isinstance(name, str):
                raise ValueError(f"the name {name!r} in the request is no text")
            _check(inner, level + 1)
    else:
        for inner in cast("list[object]", value):
            _check(inner, level + 1)


def _constant(word: str) -> NoReturn:
    raise ProtocolError(f"`{word}` is not JSON")


def decode(line: bytes) -> JsonObject:
    """The one object of a line."""
    try:
        return an_object(json.loads(line, parse_constant=_constant), "a line")
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a line is not JSON: {error}") from error
