"""The client: connections as they are needed, and the methods of the agent socket by their nouns."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType

from ._connection import Connection, OnProgress
from ._errors import CallError, ConnectionLost, DaemonUnreachable, NoReply, ProtocolError, Refused, of_reply
from ._model import JsonObject, JsonValue, Malformed, Progress, Refusal, Reply, Tool, maybe_number, number, objects, text
from ._retry import Retry
from ._work import Run, Transaction

_GRACE_S = 5.0
"""How long a call that was told to end may take to say how it ended."""
_CONNECT_S = 10.0
"""How long a daemon may take to let a client in: the system connects for one that is stopped, too."""
_WAIT_S = 30.0
"""One question to ``approvals.wait``: a wait that was given up holds its place at the daemon no longer than this."""
_NOTES_MAX = 64
"""Notes of one call that may wait to be read; the oldest are dropped, because they are only news."""

TokenSource = str | Callable[[], str]


class Client:
    """A client of one daemon, for one event loop.

    It connects when something is asked, and again when something is asked after the connection was lost. What was under way
    then ends as ``ConnectionLost``; nothing is sent a second time by itself.

    Args:
        socket: path of ``agent.sock``; without it ``$TOOLKEEP_AGENT_SOCKET``.
        token: what each connection shows first, or a function that is asked for it each time, for tokens that are renewed;
            without it ``$TOOLKEEP_TOKEN``, and without that the uid of this process counts.
        retry: when calls with an idempotency key are made again; ``None`` for never.
        timeout_s: how long calls may take unless they say otherwise; ``None`` for as long as the daemon takes.
    """

    def __init__(
        self,
        socket: str | os.PathLike[str] | None = None,
        *,
        token: TokenSource | None = None,
        retry: Retry | None = Retry(),
        timeout_s: float | None = None,
    ) -> None:
        path = socket if socket is not None else os.environ.get("TOOLKEEP_AGENT_SOCKET")
        if not path:
            raise ValueError("name the socket of the daemon, or set TOOLKEEP_AGENT_SOCKET")
        self._path = os.fspath(path)
        self._token: TokenSource | None = token if token is not None else os.environ.get("TOOLKEEP_TOKEN")
        self.retry = retry
        self.timeout_s = timeout_s
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._closed = False
        self.calls = Calls(self)
        self.tools = Tools(self)
        self.plans = Plans(self)
        self.approvals = Approvals(self)
        self.runs = Runs(self)
        self.transactions = Transactions(self)
        self.sessions = Sessions(self)

    async def __aenter__(self) -> Client:
        await self.connection()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close for good. Executions that are under way are cancelled, commits are not."""
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def connection(self) -> Connection:
        """The connection, made if there is none."""
        async with self._connecting:
            if self._closed:
                raise ConnectionLost("the client was closed")
            if self._connection is not None and self._connection.is_open:
                return self._connection
            lost, self._connection = self._connection, None
            if lost is not None:
                await lost.close()
            try:
                self._connection = await asyncio.wait_for(self._connect(), _CONNECT_S)
            except asyncio.TimeoutError:
                message = f"the daemon at `{self._path}` did not answer within {_CONNECT_S:.0f} s"
                raise DaemonUnreachable(message) from None
            return self._connection

    async def _connect(self) -> Connection:
        connection = await Connection.open(self._path)
        try:
            if self._token is not None:
                token = self._token if isinstance(self._token, str) else self._token()
                await connection.request("session.authenticate", {"token": token}, ahead=True)
            if self._closed:
                raise ConnectionLost("the client was closed")
        except BaseException:
            await connection.close()
            raise
        return connection

    async def request(self, method: str, params: Mapping[str, JsonValue] | None = None) -> JsonObject:
        """Any method of the agent socket, as ``docs/protocol.md`` lists them: its result."""
        asked = given(params or {})
        connection = await self.connection()
        try:
            return await connection.request(method, asked)
        except ConnectionLost as lost:
            raise ConnectionLost(str(lost), keyed=_is_keyed(asked)) from lost

    async def reply(self, method: str, params: Mapping[str, JsonValue], *, check: bool = True) -> Reply:
        """A method that answers with a call."""
        return checked(_read_reply(await self.request(method, params)), check)

    async def host_info(self) -> JsonObject:
        """Version, protocol and environment of the daemon."""
        return await self.request("host.info")

    async def session(self) -> JsonObject:
        """Who this client is to the daemon, and what it may do."""
        return await self.request("session.get")

    async def undo(self, *, call: str | None = None, run: str | None = None) -> Reply:
        """Propose a plan that takes back a call, or all calls of a run; commit it with ``plans.commit``."""
        return await self.reply("undo.propose", {"call": call, "run": run})

    async def verify_receipt(self, receipt: JsonObject) -> JsonObject:
        """Whether the daemon has signed this receipt; ``Refused`` if not."""
        return await self.request("receipts.verify", {"receipt": receipt})


def _read_reply(raw: JsonObject) -> Reply:
    """The call was made, so what cannot be read of it is no mistake of who asked."""
    try:
        return Reply.read(raw)
    except Malformed as error:
        raise ProtocolError(f"the reply of a call cannot be read: {error}") from error


def given(params: Mapping[str, JsonValue]) -> JsonObject:
    """Parameters without those that were left out."""
    return {name: value for name, value in params.items() if value is not None}


def checked(reply: Reply, check: bool) -> Reply:
    error = of_reply(reply) if check else None
    if error is not None:
        raise error
    return reply


class Running:
    """A call under way: its news, its end. ``async with`` cancels what is left early."""

    def __init__(self, make: Callable[[OnProgress], asyncio.Task[Reply]]) -> None:
        self._notes: asyncio.Queue[Progress | None] = asyncio.Queue(_NOTES_MAX + 1)
        self._task = make(self._note)
        self._task.add_done_callback(lambda _: self._put(None))

    def _note(self, note: Progress) -> None:
        self._put(note)

    def _put(self, note: Progress | None) -> None:
        while self._notes.full():
            self._notes.get_nowait()
        self._notes.put_nowait(note)

    async def progress(self) -> AsyncIterator[Progress]:
        """The news, until the call is over. What is not read in time is dropped, the oldest first."""
        while (note := await self._notes.get()) is not None:
            yield note
        self._put(None)

    async def reply(self) -> Reply:
        """How it ended."""
        return await asyncio.shield(self._task)

    def cancel(self) -> None:
        """Tell the daemon to end it. A commit that has begun goes on; whoever waits gets ``CancelledError``."""
        self._task.cancel()

    async def __aenter__(self) -> Running:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        # How it ends is nobody's business any more; that whoever waits here is cancelled is its own.
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.exception()


class Calls:
    """Calling tools.

    Every call takes

    * ``idempotency_key``: the call is done once, however often it is asked for; only such calls are made again by themselves;
    * ``auto_key``: the daemon makes the key of ``run``, ``step`` and input;
    * ``deadline_ms``: how long the tool may execute; the manifest's limit if that is shorter;
    * ``timeout_s``: how long this client waits in all. Then the call is told to end and waited for a moment longer, because
      only its reply says whether something was committed; ``NoReply`` if that does not come either;
    * ``on_progress``: called with each note of the tool, on the event loop;
    * ``check``: whether a reply that is ``denied``, ``failed`` or ``unknown`` is raised. ``held`` never is.

    A task that is cancelled while it waits tells the daemon to cancel the call, and does not wait for that.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def execute(
        self,
        tool: str,
        input: Mapping[str, JsonValue],
        *,
        run: str | None = None,
        step: str | None = None,
        idempotency_key: str | None = None,
        auto_key: bool = False,
        deadline_ms: int | None = None,
        timeout_s: float | None = None,
        expect_plan: str | None = None,
        transaction: str | None = None,
        usage: Mapping[str, JsonValue] | None = None,
        meta: Mapping[str, JsonValue] | None = None,
        on_progress: OnProgress | None = None,
        check: bool = True,
    ) -> Reply:
        """Call a tool and commit what it plans, if policy lets it."""
        params: dict[str, JsonValue] = {
            "tool": tool,
            "input": dict(input),
            "run": run,
            "step": step,
            "idempotency_key": idempotency_key,
            "auto_key": True if auto_key else None,
            "deadline_ms": deadline_ms,
            "expect_plan": expect_plan,
            "transaction": transaction,
            "usage": None if usage is None else dict(usage),
            "_meta": None if meta is None else dict(meta),
        }
        return await self._call("calls.execute", params, timeout_s, on_progress, check)

    async def preview(
        self,
        tool: str,
        input: Mapping[str, JsonValue],
        *,
        run: str | None = None,
        step: str | None = None,
        idempotency_key: str | None = None,
        deadline_ms: int | None = None,
        timeout_s: float | None = None,
        transaction: str | None = None,
        on_progress: OnProgress | None = None,
        check: bool = True,
    ) -> Reply:
        """Run a tool, show its plan and change nothing."""
        params: dict[str, JsonValue] = {
            "tool": tool,
            "input": dict(input),
            "run": run,
            "step": step,
            "idempotency_key": idempotency_key,
            "deadline_ms": deadline_ms,
            "transaction": transaction,
        }
        return await self._call("calls.preview", params, timeout_s, on_progress, check)

    def start(
        self,
        tool: str,
        input: Mapping[str, JsonValue],
        *,
        run: str | None = None,
        idempotency_key: str | None = None,
        deadline_ms: int | None = None,
        timeout_s: float | None = None,
        check: bool = True,
    ) -> Running:
        """Begin a call, to hear of its progress while it runs::

            async with client.calls.start("csv-report", {...}) as running:
                async for note in running.progress():
                    print(note.done, note.total)
                reply = await running.reply()
        """
        return Running(
            lambda note: asyncio.create_task(
                self.execute(
                    tool,
                    input,
                    run=run,
                    idempotency_key=idempotency_key,
                    deadline_ms=deadline_ms,
                    timeout_s=timeout_s,
                    on_progress=note,
                    check=check,
                )
            )
        )

    async def get(self, call: str) -> Reply:
        """The reply of a call as it stands; ``Refused`` with ``in_flight`` while it executes."""
        return await self._client.reply("calls.get", {"call": call}, check=False)

    async def cancel(self, call: str) -> None:
        """Tell a running call to end. A commit that has begun goes on."""
        # Ahead of calls that wait for a place: it is what makes one free.
        await (await self._client.connection()).request("calls.cancel", {"call": call}, ahead=True)

    async def output(self, call: str, *, most_bytes: int = 64 * 1024 * 1024) -> str:
        """An output that was too long for its reply, as JSON text.

        Raises ``ValueError`` if it has more than ``most_bytes``.
        """
        parts: list[str] = []
        offset: int | None = 0
        while offset is not None:
            part = await self._client.request("calls.output", {"call": call, "offset": offset})
            if number(part, "bytes") > most_bytes:
                raise ValueError(f"the output has {number(part, 'bytes')} bytes, more than {most_bytes}")
            parts.append(text(part, "text"))
            offset = maybe_number(part, "next_offset")
        return "".join(parts)

    async def _call(
        self,
        method: str,
        params: dict[str, JsonValue],
        timeout_s: float | None,
        on_progress: OnProgress | None,
        check: bool,
    ) -> Reply:
        if on_progress is not None:
            meta = params.get("_meta")
            params["_meta"] = {**(meta if isinstance(meta, dict) else {}), "progress": True}
        limit = self._client.timeout_s if timeout_s is None else timeout_s
        loop = asyncio.get_running_loop()
        ends = None if limit is None else loop.time() + limit
        attempt = 0
        while True:
            attempt += 1
            reply: Reply | None = None
            error: Refused | None
            try:
                reply = _read_reply(await self._once(method, given(params), ends, on_progress))
                error = of_reply(reply)
            except Refused as refused:
                error = refused
            if error is None and reply is not None:
                return reply
            pause = self._pause(params, error, reply, attempt)
            if pause is None or (ends is not None and loop.time() + pause >= ends):
                if reply is not None and not (check and error is not None):
                    return reply
                assert error is not None
                raise error
            await asyncio.sleep(pause)

    def _pause(
        self, params: Mapping[str, JsonValue], error: Refused | None, reply: Reply | None, attempt: int
    ) -> float | None:
        retry, keyed = self._client.retry, _is_keyed(params)
        # What is stored under the key stays what it is.
        if retry is None or error is None or not keyed or (reply is not None and reply.replayed):
            return None
        return retry.pause(error.refusal, attempt)

    async def _connected(self, ends: float | None) -> Connection:
        """The connection, within the time of the call."""
        if ends is None:
            return await self._client.connection()
        try:
            left = max(0.0, ends - asyncio.get_running_loop().time())
            return await asyncio.wait_for(self._client.connection(), left)
        except asyncio.TimeoutError:
            raise NoReply("no connection was made in time: nothing was sent") from None

    async def _once(
        self, method: str, params: JsonObject, ends: float | None, on_progress: OnProgress | None
    ) -> JsonObject:
        connection = await self._connected(ends)
        request = connection.next_id()
        work = asyncio.ensure_future(
            connection.request(method, params, request=request, on_progress=on_progress)
        )
        try:
            left = None if ends is None else max(0.0, ends - asyncio.get_running_loop().time())
            done, _ = await asyncio.wait([work], timeout=left)
            if not done and not connection.has_sent(request):
                work.cancel()
                raise NoReply("no place became free in time: nothing was sent")
            if not done:
                # Only the reply says whether something was committed before the call could be ended.
                _tell_to_end(connection, request)
                done, _ = await asyncio.wait([work], timeout=_GRACE_S)
            if not done:
                work.cancel()
                raise NoReply("the call did not end in time; with an idempotency key the same call tells what became of it")
            return work.result()
        except asyncio.CancelledError:
            sent = connection.has_sent(request)
            work.cancel()
            if sent:
                _tell_to_end(connection, request)
            raise
        except ConnectionLost as lost:
            raise ConnectionLost(str(lost), keyed=_is_keyed(params)) from lost


def _is_keyed(params: Mapping[str, JsonValue]) -> bool:
    return params.get("idempotency_key") is not None or params.get("auto_key") is True


_ENDING: set[asyncio.Task[None]] = set()


def _tell_to_end(connection: Connection, request: int) -> None:
    """Cancel a request of this connection, without anybody waiting for it."""

    async def tell() -> None:
        # It may be over already, and so may the connection.
        with contextlib.suppress(Refused, ProtocolError, ConnectionError, asyncio.TimeoutError):
            await asyncio.wait_for(connection.request("calls.cancel", {"request": request}, ahead=True), _GRACE_S)

    task = asyncio.get_running_loop().create_task(tell())
    _ENDING.add(task)
    task.add_done_callback(_ENDING.discard)


class Tools:
    """What can be called."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list(self) -> list[Tool]:
        """The tools that the caller may call, in the order of their names."""
        found = await self._client.request("tools.list")
        return [Tool.read(entry) for entry in objects(found.get("tools"), "`tools`")]

    async def describe(self, tool: str) -> Tool:
        """One tool; ``raw`` has its grants and limits."""
        return Tool.read(await self._client.request("tools.describe", {"tool": tool}))


class Plans:
    """What calls want to change."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def get(self, plan: str, *, cursor: int = 0, diffs: bool = False) -> JsonObject:
        """A plan by id or digest: 100 effects from ``cursor`` on, with text contents by digest if ``diffs``."""
        return await self._client.request("plans.get", {"plan": plan, "cursor": cursor, "diffs": diffs})

    async def effects(self, plan: str) -> AsyncIterator[JsonObject]:
        """Every effect of a plan."""
        cursor: int | None = 0
        while cursor is not None:
            page = await self.get(plan, cursor=cursor)
            for effect in objects(page.get("effects"), "`effects`"):
                yield effect
            cursor = maybe_number(page, "next_cursor")

    async def commit(self, plan: str, *, check: bool = True) -> Reply:
        """Commit a previewed plan, by id or digest, exactly as it was shown. A commit is never cancelled."""
        return await self._client.reply("plans.commit", {"plan": plan}, check=check)

    async def discard(self, plan: str, *, check: bool = True) -> Reply:
        """Throw a plan away, by its id."""
        return await self._client.reply("plans.discard", {"plan": plan}, check=check)


class Approvals:
    """What waits for people. An agent can look and wait; it cannot answer."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def get(self, approval: str) -> JsonObject:
        """The state of an approval."""
        return await self._client.request("approvals.get", {"approval": approval})

    async def wait(self, approval: str, *, timeout_s: float | None = None, check: bool = True) -> Reply:
        """Wait until people have decided: the final reply, or the held one when the time is over."""
        loop = asyncio.get_running_loop()
        ends = None if timeout_s is None else loop.time() + timeout_s
        while True:
            left = _WAIT_S if ends is None else min(_WAIT_S, max(0.0, ends - loop.time()))
            params: JsonObject = {"approval": approval, "timeout_ms": int(left * 1000)}
            reply = await self._client.reply("approvals.wait", params, check=check)
            if not reply.held or (ends is not None and loop.time() >= ends):
                return reply


class Runs:
    """Calls that belong together, with a budget and terms of their own."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def open(
        self,
        *,
        label: str | None = None,
        contract: str | None = None,
        workflow: str | None = None,
        budget: Mapping[str, JsonValue] | None = None,
        tools: Sequence[str] | None = None,
        max_tier: int | None = None,
        **more: JsonValue,
    ) -> Run:
        """Open a run. What is asked for only narrows the contract. ``async with await …`` closes it at the end."""
        params: dict[str, JsonValue] = {
            "label": label,
            "contract": contract,
            "workflow": workflow,
            "budget": None if budget is None else dict(budget),
            "tools": None if tools is None else [*tools],
            "max_tier": max_tier,
            **more,
        }
        opened = await self._client.request("runs.open", params)
        return Run(self._client, text(opened, "run"), opened)

    async def get(self, run: str, *, cursor: int | None = None) -> JsonObject:
        """A run, its terms and budget, and a page of its calls."""
        return await self._client.request("runs.get", {"run": run, "cursor": cursor})

    async def report(self, run: str, usage: Mapping[str, JsonValue]) -> JsonObject:
        """Add what the caller's model used: ``tokens_in``, ``tokens_out``, ``cost_usd``, ``steps``, ``model``."""
        return await self._client.request("runs.report", {"run": run, "usage": dict(usage)})

    async def close(self, run: str, *, outcome: str | None = None, abandon: bool = False) -> JsonObject:
        """Close a run; ``Refused`` with ``gate_unmet`` while required steps are missing, unless it is given up."""
        params: JsonObject = {"run": run, "outcome": outcome, "abandon": True if abandon else None}
        return await self._client.request("runs.close", params)


class Transactions:
    """Several calls as one: one stage, one plan, one decision, one commit."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def begin(
        self, *, run: str | None = None, ttl_ms: int | None = None, tools: Sequence[str] | None = None
    ) -> Transaction:
        """Begin. ``async with await …`` rolls back what was not committed."""
        params: dict[str, JsonValue] = {"run": run, "ttl_ms": ttl_ms, "tools": None if tools is None else [*tools]}
        begun = await self._client.request("transactions.begin", params)
        return Transaction(self._client, text(begun, "transaction"), begun)

    async def get(self, transaction: str) -> JsonObject:
        """State, calls and the first effects."""
        return await self._client.request("transactions.get", {"transaction": transaction})

    async def list(self) -> AsyncIterator[JsonObject]:
        """The caller's transactions, newest first."""
        cursor: int | None = None
        while True:
            page = await self._client.request("transactions.list", {"cursor": cursor})
            for entry in objects(page.get("transactions"), "`transactions`"):
                yield entry
            cursor = maybe_number(page, "next_cursor")
            if cursor is None:
                return


class Sessions:
    """Parts of what the caller holds, handed to other agents."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def delegate(self, **wanted: JsonValue) -> JsonObject:
        """Make a session; ``token`` is in no other answer. The members are those of ``sessions.delegate``."""
        return await self._client.request("sessions.delegate", wanted)

    async def list(self) -> AsyncIterator[JsonObject]:
        """Sessions that the caller, or one below it, has opened and that stand."""
        cursor: int | None = None
        while True:
            page = await self._client.request("sessions.list", {"cursor": cursor})
            for entry in objects(page.get("sessions"), "`sessions`"):
                yield entry
            cursor = maybe_number(page, "next_cursor")
            if cursor is None:
                return

    async def revoke(self, session: str) -> None:
        """End a session, and everything that was delegated from it."""
        await self._client.request("sessions.revoke", {"session": session})


__all__ = ["CallError", "Calls", "Client", "Refusal", "Running"]
