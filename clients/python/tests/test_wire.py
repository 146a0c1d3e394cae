"""What the client makes of sockets that end, stall, refuse and talk nonsense. Nothing of it needs a daemon."""

from __future__ import annotations

import asyncio
import json
import tempfile
import unittest
import unittest.mock
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import toolkeep
from toolkeep import JsonObject
from toolkeep._connection import IN_FLIGHT_MAX, encode

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

REPLY: JsonObject = {
    "status": "ok",
    "outcome": "none",
    "call_id": "call_1",
    "usage": {
        "fuel": 1,
        "wall_ms": 0,
        "memory_peak": 0,
        "host_calls": 0,
        "http_requests": 0,
        "cost_usd": "0",
    },
    "warnings": [],
}


def refusal(code: str, **more: object) -> dict[str, object]:
    return {"code": code, "message": "no", "hint": "wait", "retryable": True, **more}


@asynccontextmanager
async def peer(serve: Serve) -> AsyncGenerator[str, None]:
    """A socket that is served so."""
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "peer.sock")
        tasks: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is not None:
                tasks.add(task)
            try:
                await serve(reader, writer)
            except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_unix_server(connected, path)
        try:
            yield path
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def request_of(reader: asyncio.StreamReader) -> JsonObject:
    return json.loads(await reader.readuntil(b"\n"))  # type: ignore[no-any-return]


def says(writer: asyncio.StreamWriter, **message: object) -> None:
    writer.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


class Nonsense(unittest.IsolatedAsyncioTestCase):
    async def test_what_is_not_the_protocol_ends_the_connection_and_says_so(self) -> None:
        lines = [
            b"not json\n",
            b"[]\n",
            b"\xff\n",
            b'{"jsonrpc":"2.0","id":1,"result":7}\n',
            b'{"jsonrpc":"2.0","id":1,"result":{"n":NaN}}\n',
            b'{"jsonrpc":"1.0","id":1,"result":{}}\n',
            b'{"jsonrpc":"2.0","id":99,"result":{}}\n',
            b'{"jsonrpc":"2.0","id":"1","result":{}}\n',
            b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}\n',
            b"[" * 100_000 + b"\n",
        ]
        for line in lines:
            with self.subTest(line=line[:60]):

                async def serve(
                    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes = line
                ) -> None:
                    await request_of(reader)
                    writer.write(line)
                    await writer.drain()
                    await reader.read()

                async with peer(serve) as path:
                    client = toolkeep.Client(path)
                    connection = await client.connection()
                    with self.assertRaises(toolkeep.ProtocolError):
                        await client.host_info()
                    self.assertFalse(connection.is_open)
                    await client.close()

    async def test_a_line_has_a_bound_that_is_tested_at_both_sides(self) -> None:
        for more, taken in [(0, True), (1, False)]:

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, more: int = more) -> None:
                await request_of(reader)
                head = b'{"jsonrpc":"2.0","id":1,"result":{"text":"'
                fill = toolkeep.REPLY_MAX_BYTES + more - len(head) - len(b'"}}')
                writer.write(head + b"x" * fill + b'"}}\n')
                await writer.drain()
                await reader.read()

            async with peer(serve) as path:
                client = toolkeep.Client(path)
                if taken:
                    self.assertIn("text", await client.host_info())
                else:
                    with self.assertRaises(toolkeep.ProtocolError):
                        await client.host_info()
                await client.close()

    async def test_notes_that_nobody_knows_are_ignored(self) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked = await request_of(reader)
            says(writer, method="something.new", params={"request": asked["id"]})
            says(writer, method="call.progress", params={"request": 77, "done": 1, "total": None, "message": ""})
            says(writer, id=asked["id"], result={"fine": True})
            await reader.read()

        async with peer(serve) as path:
            client = toolkeep.Client(path)
            self.assertEqual(await client.host_info(), {"fine": True})
            await client.close()


class Lost(unittest.IsolatedAsyncioTestCase):
    async def test_everything_under_way_hears_of_the_end_and_nothing_is_sent_again(self) -> None:
        heard: list[JsonObject] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(3):
                heard.append(await request_of(reader))

        async with peer(serve) as path:
            client = toolkeep.Client(path)
            calls = [
                client.calls.execute("a", {}),
                client.calls.execute("b", {}, idempotency_key="k"),
                client.host_info(),
            ]
            ends = await asyncio.gather(*calls, return_exceptions=True)
            self.assertTrue(all(isinstance(end, toolkeep.ConnectionLost) for end in ends), ends)
            self.assertEqual([getattr(end, "keyed") for end in ends], [False, True, False])
            self.assertEqual(len(heard), 3)
            await client.close()

    async def test_a_refusal_of_the_whole_connection_reaches_whoever_asked(self) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            error = {"code": 1023, "message": "full", "data": refusal("overloaded", retry_after_ms=100)}
            says(writer, id=None, error=error)

        async with peer(serve) as path:
            client = toolkeep.Client(path)
            with self.assertRaises((toolkeep.Refused, toolkeep.ConnectionLost)) as refused:
                await client.host_info()
            if isinstance(refused.exception, toolkeep.Refused):
                self.assertEqual((refused.exception.code, refused.exception.retry_after_ms), ("overloaded", 100))
            await client.close()

    async def test_a_call_that_never_ends_is_given_up_after_it_was_told_to(self) -> None:
        heard: list[JsonObject] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                heard.append(await request_of(reader))

        async with peer(serve) as path:
            client = toolkeep.Client(path)
            with unittest.mock.patch("toolkeep._client._GRACE_S", 0.05):
                with self.assertRaises(toolkeep.NoReply) as late:
                    await client.calls.execute("a", {}, timeout_s=0.05)
            self.assertIsInstance(late.exception, TimeoutError)
            self.assertEqual([line["method"] for line in heard], ["calls.execute", "calls.cancel"])
            self.assertEqual(heard[1]["params"], {"request": heard[0]["id"]})
            await client.close()


class Again(unittest.IsolatedAsyncioTestCase):
    async def attempts(
        self, answers: list[dict[str, object]], *, key: str | None, retry: toolkeep.Retry | None
    ) -> tuple[int, object]:
        """How often a call was made, and its end, where the peer refuses with these and then gives in."""
        made = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal made
            while True:
                asked = await request_of(reader)
                made += 1
                if made <= len(answers):
                    says(writer, id=asked["id"], **answers[made - 1])
                else:
                    says(writer, id=asked["id"], result={"reply": REPLY, "replayed": False})

        async with peer(serve) as path:
            client = toolkeep.Client(path, retry=retry)
            try:
                end: object = await client.calls.execute("a", {}, idempotency_key=key)
            except toolkeep.Refused as refused:
                end = refused
            await client.close()
        return made, end

    def failed(self, code: str, *, replayed: bool = False, **more: object) -> dict[str, object]:
        reply = {**REPLY, "status": "failed", "error": refusal(code, **more)}
        return {"result": {"reply": reply, "replayed": replayed}}

    def error(self, code: str, **more: object) -> dict[str, object]:
        return {"error": {"code": 1000, "message": "no", "data": refusal(code, **more)}}

    async def test_only_what_has_a_key_and_may_be_repeated_is_repeated(self) -> None:
        quick = toolkeep.Retry(attempts=3, base_s=0.001)
        busy = self.failed("in_flight", retry_after_ms=1)
        rows: list[tuple[str, list[dict[str, object]], str | None, toolkeep.Retry | None, int]] = [
            ("a reply", [busy], "k", quick, 2),
            ("an error", [self.error("overloaded")], "k", quick, 2),
            ("no key", [busy], None, quick, 1),
            ("never", [busy], "k", None, 1),
            ("not retryable", [self.failed("tool_failed", retryable=False)], "k", quick, 1),
            ("stored under the key", [self.failed("internal", replayed=True)], "k", quick, 1),
            ("somebody has to look", [self.failed("stale_plan")], "k", quick, 1),
            ("longer than it waits", [self.failed("rate_limited", retry_after_ms=60_000)], "k", quick, 1),
            ("as often as it may", [busy, busy, busy], "k", quick, 3),
        ]
        for what, answers, key, retry, expected in rows:
            with self.subTest(what):
                made, end = await self.attempts(answers, key=key, retry=retry)
                self.assertEqual(made, expected)
                self.assertEqual(isinstance(end, toolkeep.Reply), expected > len(answers))

    async def test_a_pause_is_never_shorter_than_what_the_daemon_asks(self) -> None:
        told = toolkeep.Refusal.read({"code": "rate_limited", "message": "m", "retryable": True, "retry_after_ms": 500})
        retry = toolkeep.Retry(attempts=4, base_s=0.1, most_s=2.0)
        for attempt in (1, 2, 3):
            pause = retry.pause(told, attempt)
            assert pause is not None
            self.assertTrue(0.5 <= pause <= 0.5 + 0.1 * 2 ** (attempt - 1), pause)
        self.assertIsNone(retry.pause(told, 4))


class Bounds(unittest.IsolatedAsyncioTestCase):
    async def test_a_call_that_still_waits_for_a_place_when_its_time_is_over_is_never_sent(self) -> None:
        tools: list[object] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                params = (await request_of(reader))["params"]
                assert isinstance(params, dict)
                tools.append(params.get("tool"))

        async with peer(serve) as path:
            client = toolkeep.Client(path)
            many = [asyncio.ensure_future(client.calls.execute("slow", {})) for _ in range(IN_FLIGHT_MAX)]
            while len(tools) < IN_FLIGHT_MAX:
                await asyncio.sleep(0.01)
            with self.assertRaisesRegex(toolkeep.NoReply, "nothing was sent"):
                await client.calls.execute("late", {}, timeout_s=0.05)
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(client.calls.execute("late", {}), 0.05)
            await client.close()
            await asyncio.gather(*many, return_exceptions=True)
        self.assertEqual(tools, ["slow"] * IN_FLIGHT_MAX)

    async def test_the_place_of_a_caller_that_went_away_is_free_when_the_daemon_has_answered(self) -> None:
        asked: list[JsonObject] = []
        answer = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(IN_FLIGHT_MAX):
                asked.append(await request_of(reader))
            await answer.wait()
            says(writer, id=asked[0]["id"], result={})
            asked.append(await request_of(reader))
            says(writer, id=asked[-1]["id"], result={})
            await reader.read()

        async with peer(serve) as path:
            client = toolkeep.Client(path)
            gone = [asyncio.ensure_future(client.request("approvals.wait")) for _ in range(IN_FLIGHT_MAX)]
            while len(asked) < IN_FLIGHT_MAX:
                await asyncio.sleep(0.01)
            for task in gone:
                task.cancel()
            await asyncio.gather(*gone, return_exceptions=True)
            late = asyncio.ensure_future(client.request("host.info"))
            await asyncio.sleep(0.05)
            self.assertEqual(len(asked), IN_FLIGHT_MAX, "the daemon still has as many as it takes")
            answer.set()
            self.assertEqual(await late, {})
            await client.close()

    async def test_a_daemon_that_lets_nobody_in_keeps_nobody_waiting_and_nothing_is_left_open(self) -> None:
        ended = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            ended.set()

        async with peer(serve) as path:
            client = toolkeep.Client(path, token="t")
            with self.assertRaisesRegex(toolkeep.NoReply, "nothing was sent"):
                await client.calls.execute("t", {}, timeout_s=0.05)
            await ended.wait()
            with unittest.mock.patch("toolkeep._client._CONNECT_S", 0.05):
                with self.assertRaisesRegex(toolkeep.DaemonUnreachable, "did not answer"):
                    await client.host_info()
            await client.close()

    async def test_a_client_that_is_closed_while_it_connects_stays_closed(self) -> None:
        begun, ended, go = asyncio.Event(), asyncio.Event(), asyncio.Event()
        tools: list[object] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            shown = await request_of(reader)
            begun.set()
            await go.wait()
            says(writer, id=shown["id"], result={})
            tools.append(await reader.read())
            ended.set()

        async with peer(serve) as path:
            client = toolkeep.Client(path, token="t")
            call = asyncio.ensure_future(client.calls.execute("t", {}))
            await begun.wait()
            await client.close()
            go.set()
            with self.assertRaises(toolkeep.ConnectionLost):
                await call
            await ended.wait()
        self.assertEqual(tools, [b""], "nothing was sent on it")

    async def test_a_reply_that_cannot_be_read_is_no_mistake_of_who_asked(self) -> None:
        old: JsonObject = {"fuel": 1, "wall_ms": 0, "memory_peak": 0, "host_calls": 0}
        broken: JsonObject = {"fuel": "1"}
        for used, fits in [(old, True), (broken, False)]:
            result = {"reply": {**REPLY, "usage": used}}

            async def serve(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, result: object = result
            ) -> None:
                says(writer, id=(await request_of(reader))["id"], result=result)
                await reader.read()

            async with peer(serve) as path:
                client = toolkeep.Client(path)
                if fits:
                    reply = await client.calls.execute("t", {})
                    self.assertEqual((reply.usage.http_requests, reply.usage.cost_usd), (0, "0"))
                else:
                    with self.assertRaisesRegex(toolkeep.ProtocolError, "reply of a call"):
                        await client.calls.execute("t", {})
                await client.close()

    async def test_whoever_loses_the_connection_hears_whether_the_request_had_a_key(self) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await request_of(reader)

        params: JsonObject = {"transaction": "t"}
        for more, keyed in [({}, False), ({"idempotency_key": "k"}, True)]:
            async with peer(serve) as path:
                client = toolkeep.Client(path)
                with self.assertRaises(toolkeep.ConnectionLost) as lost:
                    await client.request("transactions.commit", {**params, **more})
                self.assertEqual(lost.exception.keyed, keyed)
                await client.close()

    async def test_what_comes_after_the_end_of_a_connection_hears_how_it_ended(self) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await request_of(reader)
            says(writer, id=None, error={"code": 1000, "message": "m", "data": refusal("overloaded")})
            await reader.read()

        async with peer(serve) as path:
            client = toolkeep.Client(path)
            connection = await client.connection()
            for _ in range(2):
                with self.assertRaises(toolkeep.Refused):
                    await connection.request("host.info", {})
            await client.close()

    def test_what_the_daemon_could_not_read_is_refused_before_it_is_sent(self) -> None:
        def nested(levels: int) -> toolkeep.JsonValue:
            return 1 if levels == 0 else [nested(levels - 1)]

        encode({"deep": nested(63), "most": 2**64 - 1, "least": -(2**63)})
        both: JsonObject = {1: 1, "1": 1}  # type: ignore[dict-item]
        for wrong in [nested(64), 2**64, -(2**63) - 1, both]:
            with self.subTest(wrong=str(wrong)[:40]), self.assertRaises(ValueError):
                encode({"wrong": wrong})

    async def test_the_end_of_a_connection_after_an_answer_is_no_refusal_of_what_is_under_way(self) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            first = await request_of(reader)
            says(writer, id=first["id"], result={})
            await request_of(reader)
            says(writer, id=None, error={"code": -32700, "message": "m", "data": refusal("invalid_input")})
            await reader.read()

        async with peer(serve) as path:
            client = toolkeep.Client(path)
            await client.host_info()
            with self.assertRaises(toolkeep.ConnectionLost):
                await client.calls.execute("t", {})
            await client.close()
