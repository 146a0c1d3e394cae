"""Runs and transactions as things that are opened and closed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from ._errors import ConnectionLost, DaemonUnreachable, ProtocolError, Refused
from ._model import JsonObject, JsonValue, Reply

if TYPE_CHECKING:
    from ._client import Client


class Run:
    """An open run. Left by an exception, it is closed as given up."""

    def __init__(self, client: Client, id: str, opened: JsonObject) -> None:
        self._client = client
        self.id = id
        self.opened = opened
        """What ``runs.open`` answered: contract, workflow and budget."""
        self._closed = False

    async def execute(
        self, tool: str, input: Mapping[str, JsonValue], *, step: str | None = None, auto_key: bool = False
    ) -> Reply:
        """A call of this run. With ``step`` and ``auto_key`` the step is done once, however often it is asked for."""
        return await self._client.calls.execute(tool, input, run=self.id, step=step, auto_key=auto_key)

    async def preview(self, tool: str, input: Mapping[str, JsonValue], *, step: str | None = None) -> Reply:
        """Show what a call of this run would change."""
        return await self._client.calls.preview(tool, input, run=self.id, step=step)

    async def report(self, **usage: JsonValue) -> JsonObject:
        """Add what the caller's model used."""
        return await self._client.runs.report(self.id, usage)

    async def close(self, *, outcome: str | None = None, abandon: bool = False) -> JsonObject:
        """Close it."""
        closed = await self._client.runs.close(self.id, outcome=outcome, abandon=abandon)
        self._closed = True
        return closed

    async def __aenter__(self) -> Run:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._closed:
            return
        if error is None:
            await self.close()
            return
        # The exception that is on its way says more than a run that could not be closed.
        with contextlib.suppress(Refused, ConnectionError):
            await self.close(abandon=True)


class Transaction:
    """An open transaction. Left without a commit, it is rolled back."""

    def __init__(self, client: Client, id: str, begun: JsonObject) -> None:
        self._client = client
        self.id = id
        self.begun = begun
        """What ``transactions.begin`` answered."""
        self._settled = False

    async def execute(
        self, tool: str, input: Mapping[str, JsonValue], *, idempotency_key: str | None = None, check: bool = True
    ) -> Reply:
        """A call whose effects are staged; later calls see them."""
        return await self._client.calls.execute(
            tool, input, transaction=self.id, idempotency_key=idempotency_key, check=check
        )

    async def preview(self) -> Reply:
        """The plan of all calls, to look at."""
        return await self._client.reply("transactions.preview", {"transaction": self.id})

    async def commit(
        self, *, expect_plan: str | None = None, idempotency_key: str | None = None, check: bool = True
    ) -> Reply:
        """Commit all of it, or nothing; only the plan with this digest where one is given."""
        params: JsonObject = {
            "transaction": self.id,
            "expect_plan": expect_plan,
            "idempotency_key": idempotency_key,
        }
        reply = await self._client.reply("transactions.commit", params, check=check)
        self._settled = True
        return reply

    async def rollback(self) -> None:
        """Drop all of it. A second time is as good as the first."""
        await self._client.request("transactions.rollback", {"transaction": self.id})
        self._settled = True

    async def __aenter__(self) -> Transaction:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._settled:
            return
        # A transaction that the daemon closed, or cannot be told about, ends by itself when its time is over.
        with contextlib.suppress(Refused, ConnectionLost, ProtocolError, DaemonUnreachable):
            await self.rollback()
