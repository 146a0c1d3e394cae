"""What the client does, against a real daemon: calls and plans, people, runs, transactions, undo, errors, ends."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import cast

import toolkeep
from toolkeep import Code, JsonObject

from .daemon import HOME, SOCKET, WithDaemon, admin

RENAME: JsonObject = {"from": "old_name", "to": "new_name"}
ENDLESS = "endless"


def note(title: str) -> JsonObject:
    return {"title": title, "body": "b"}


async def in_flight(count: int) -> None:
    """Wait until so many calls run."""
    for _ in range(1200):
        if admin("health.get", {}).get("in_flight") == count:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"there are never {count} calls in flight")


class Plans(WithDaemon):
    async def test_a_preview_changes_nothing_and_its_plan_is_committed_and_undone(self) -> None:
        client, file = self.client, HOME / "notes/python-plan.md"
        shown = await client.calls.preview("notes.add", note("Python plan"))
        self.assertEqual((shown.status, shown.outcome), ("ok", "previewed"))
        assert shown.plan is not None
        self.assertEqual([effect["kind"] for effect in shown.plan.effects], ["file.write"])
        self.assertFalse(file.exists())
        page = await client.plans.get(shown.plan.id, diffs=True)
        self.assertEqual(page["digest"], shown.plan.digest)
        done = await client.plans.commit(shown.plan.digest)
        self.assertEqual((done.outcome, done.output), ("committed", {"file": "python-plan.md"}))
        self.assertTrue(file.exists())
        assert done.receipt is not None
        self.assertIs((await client.verify_receipt(done.receipt))["valid"], True)
        undo = await client.undo(call=done.call_id)
        assert undo.plan is not None
        self.assertTrue(file.exists(), "a proposal changes nothing")
        await client.plans.commit(undo.plan.id)
        self.assertFalse(file.exists())
        self.assertEqual((await client.calls.get(done.call_id)).call_id, done.call_id)

    async def test_a_discarded_plan_cannot_be_committed(self) -> None:
        shown = await self.client.calls.preview("notes.add", note("Python discarded"))
        assert shown.plan is not None
        self.assertEqual([e["path"] async for e in self.client.plans.effects(shown.plan.id)], ["python-discarded.md"])
        self.assertEqual((await self.client.plans.discard(shown.plan.id)).outcome, "discarded")
        with self.assertRaises(toolkeep.Refused) as refused:
            await self.client.plans.commit(shown.plan.id)
        self.assertEqual(refused.exception.code, Code.STALE_PLAN)

    async def test_a_held_call_waits_for_people_and_is_committed_by_them(self) -> None:
        held = await self.client.calls.execute("held-rename", RENAME)
        self.assertEqual((held.held, held.outcome), (True, "pending"))
        assert held.approval is not None and held.error is not None
        self.assertEqual(held.error.code, Code.APPROVAL_REQUIRED)
        still = await self.client.approvals.wait(held.approval.id, timeout_s=0.05)
        self.assertTrue(still.held, "nobody has decided")
        waiting = asyncio.create_task(self.client.approvals.wait(held.approval.id))
        self.assertEqual((await self.client.approvals.get(held.approval.id))["state"], "pending")
        admin("approvals.reject", {"approval": held.approval.id, "reason": "not today"})
        with self.assertRaises(toolkeep.CallDenied) as denied:
            await waiting
        self.assertEqual(denied.exception.code, Code.APPROVAL_REJECTED)
        self.assertIn("not today", str(denied.exception))
        self.assertEqual(denied.exception.reply.call_id, held.call_id)
        held = await self.client.calls.execute("held-rename", RENAME)
        assert held.approval is not None
        waiting = asyncio.create_task(self.client.approvals.wait(held.approval.id))
        admin("approvals.approve", {"approval": held.approval.id, "reason": "fine"})
        self.assertEqual((await waiting).outcome, "committed")
        undo = await self.client.undo(call=held.call_id)
        assert undo.plan is not None
        await self.client.plans.commit(undo.plan.id)


class Errors(WithDaemon):
    async def test_wrong_input_names_the_places(self) -> None:
        with self.assertRaises(toolkeep.CallFailed) as failed:
            await self.client.calls.execute("notes.add", {"title": 7})
        error = failed.exception
        self.assertEqual((error.code, error.status, error.outcome), (Code.INVALID_INPUT, "failed", "none"))
        self.assertEqual(sorted(place.pointer for place in error.fields), ["/input/body", "/input/title"])
        self.assertTrue(error.hint and not error.retryable)
        reply = await self.client.calls.execute("notes.add", {"title": 7}, check=False)
        assert reply.error is not None
        self.assertEqual(reply.error.code, Code.INVALID_INPUT)

    async def test_what_a_tool_says_and_what_becomes_of_it_are_told_apart(self) -> None:
        await self.client.calls.execute("notes.add", note("Python twice"))
        with self.assertRaises(toolkeep.CallFailed) as twice:
            await self.client.calls.execute("notes.add", note("Python twice"))
        self.assertEqual(twice.exception.code, Code.TOOL_FAILED)
        with self.assertRaises(toolkeep.CallFailed) as trapped:
            await self.client.calls.execute("trap", {})
        self.assertEqual(trapped.exception.code, Code.TOOL_TRAPPED)
        with self.assertRaises(toolkeep.CallFailed) as fuel:
            await self.client.calls.execute("spin", {})
        self.assertEqual(fuel.exception.code, Code.OUT_OF_FUEL)

    async def test_what_does_not_exist_and_what_is_no_method_is_refused(self) -> None:
        with self.assertRaises(toolkeep.Refused) as missing:
            await self.client.plans.get("plan_00000000-0000-7000-8000-000000000000")
        self.assertEqual((missing.exception.code, missing.exception.number), (Code.NOT_FOUND, 1003))
        with self.assertRaises(toolkeep.Refused) as unknown:
            await self.client.request("approvals.approve", {"approval": "x"})
        self.assertEqual(unknown.exception.number, -32601, "an agent cannot administer")

    async def test_what_cannot_be_sent_is_refused_here_and_harms_nobody(self) -> None:
        running = asyncio.create_task(self.client.calls.execute("text-stats", {"text": "a b"}))
        with self.assertRaises(toolkeep.RequestTooLarge):
            await self.client.calls.execute("text-stats", {"text": "x" * toolkeep.REQUEST_MAX_BYTES})
        for wrong in (float("nan"), "\ud800"):
            with self.assertRaises(ValueError):
                await self.client.calls.execute("text-stats", {"text": wrong})
        self.assertTrue((await running).ok)

    async def test_a_wrong_token_is_nobody(self) -> None:
        with self.assertRaises(toolkeep.Refused) as refused:
            async with toolkeep.Client(SOCKET, token="tkp_nonsense"):
                pass
        self.assertEqual(refused.exception.code, Code.UNAUTHORIZED)

    async def test_without_a_daemon_the_error_says_so(self) -> None:
        with self.assertRaises(toolkeep.DaemonUnreachable) as nobody:
            await toolkeep.Client(HOME / "nowhere.sock").host_info()
        self.assertIn("toolkeep serve", str(nobody.exception))
        self.assertIsInstance(nobody.exception, ConnectionError)

    async def test_every_code_of_the_documentation_has_a_name(self) -> None:
        page = (Path(__file__).parents[3] / "docs/errors.md").read_text()
        documented = {line[4:-1] for line in page.splitlines() if line.startswith("## `")}
        names = vars(toolkeep.Code)
        self.assertEqual({value for name, value in names.items() if name.isupper()}, documented)


class Keys(WithDaemon):
    async def test_a_key_is_done_once_and_the_second_answer_says_so(self) -> None:
        first = await self.client.calls.execute("notes.add", note("Python key"), idempotency_key="python-key")
        again = await self.client.calls.execute("notes.add", note("Python key"), idempotency_key="python-key")
        self.assertEqual((first.replayed, again.replayed, again.call_id), (False, True, first.call_id))
        self.assertEqual(first.raw, again.raw)
        with self.assertRaises(toolkeep.CallFailed) as other:
            await self.client.calls.execute("notes.add", note("Python other"), idempotency_key="python-key")
        self.assertEqual(other.exception.code, Code.IDEMPOTENCY_MISMATCH)

    async def test_a_call_whose_key_is_taken_is_made_again_until_the_first_is_over(self) -> None:
        async with self.client.calls.start(ENDLESS, {}, idempotency_key="python-busy") as running:
            await in_flight(1)
            patient = toolkeep.Client(SOCKET, retry=toolkeep.Retry(attempts=2, base_s=0.01))
            with self.assertRaises(toolkeep.CallError) as busy:
                await patient.calls.execute(ENDLESS, {}, idempotency_key="python-busy")
            self.assertEqual((busy.exception.code, busy.exception.retryable), (Code.IN_FLIGHT, True))
            await patient.close()
            running.cancel()
        await in_flight(0)


class Ends(WithDaemon):
    async def test_several_calls_are_under_way_at_once_and_their_answers_overtake(self) -> None:
        running = self.client.calls.start(ENDLESS, {})
        texts = [{"text": "word " * count} for count in range(1, 101)]
        replies = await asyncio.gather(*(self.client.calls.execute("text-stats", text) for text in texts))
        counts = [cast(JsonObject, reply.output)["words"] for reply in replies]
        self.assertEqual(counts, [*range(1, 101)])
        running.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await running.reply()
        await in_flight(0)

    async def test_a_cancelled_task_cancels_its_call_and_the_connection_goes_on(self) -> None:
        task = asyncio.create_task(self.client.calls.execute(ENDLESS, {}))
        await in_flight(1)
        connection = await self.client.connection()
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task
        await in_flight(0)
        self.assertIs(await self.client.connection(), connection)
        self.assertTrue((await self.client.calls.execute("text-stats", {"text": "a"})).ok)

    async def test_a_call_that_takes_too_long_is_ended_and_says_how_it_ended(self) -> None:
        with self.assertRaises(toolkeep.CallFailed) as late:
            await self.client.calls.execute(ENDLESS, {}, timeout_s=0.3)
        self.assertEqual((late.exception.code, late.exception.outcome), (Code.DEADLINE_EXCEEDED, "none"))
        with self.assertRaises(toolkeep.CallFailed) as short:
            await self.client.calls.execute(ENDLESS, {}, deadline_ms=50)
        self.assertEqual(short.exception.code, Code.DEADLINE_EXCEEDED)

    async def test_a_closed_client_leaves_no_call_behind(self) -> None:
        other = toolkeep.Client(SOCKET)
        task = asyncio.create_task(other.calls.execute(ENDLESS, {}))
        await in_flight(1)
        await other.close()
        with self.assertRaises(toolkeep.ConnectionLost) as lost:
            await task
        self.assertFalse(lost.exception.keyed)
        with self.assertRaises(toolkeep.ConnectionLost):
            await other.host_info()
        await in_flight(0)

    async def test_after_a_lost_connection_the_next_request_makes_another(self) -> None:
        first = await self.client.connection()
        await first.close()
        self.assertEqual((await self.client.host_info())["name"], "toolkeep")
        self.assertIsNot(await self.client.connection(), first)

    async def test_progress_is_heard_while_a_call_runs(self) -> None:
        report: JsonObject = {"input": "ledger", "output": "python-heard.md"}
        heard: list[toolkeep.Progress] = []
        done = await self.client.calls.execute("csv-report", report, on_progress=heard.append)
        self.assertEqual((done.outcome, len(heard)), ("committed", 2))
        self.assertEqual((heard[0].total, heard[0].message), (2, "ledger/2026-01.csv"))
        async with self.client.calls.start("csv-report", report) as running:
            notes = [note async for note in running.progress()]
            reply = await running.reply()
        self.assertEqual((notes, reply.ok), (heard, True))

    async def test_a_callback_that_fails_does_not_end_its_call(self) -> None:
        def fail(_: toolkeep.Progress) -> None:
            raise RuntimeError("a fault of the caller")

        with self.assertLogs("toolkeep", "ERROR"):
            reply = await self.client.calls.execute(
                "csv-report", {"input": "ledger", "output": "python.md"}, on_progress=fail
            )
        self.assertTrue(reply.ok)


class Work(WithDaemon):
    async def test_a_run_counts_its_calls_and_is_closed_at_the_end(self) -> None:
        async with await self.client.runs.open(label="python", budget={"calls": 2}) as run:
            await run.execute("text-stats", {"text": "a"})
            await run.report(tokens_in=5, tokens_out=7)
            first = await run.execute("notes.add", note("Python step"), step="one", auto_key=True)
            again = await run.execute("notes.add", note("Python step"), step="one", auto_key=True)
            self.assertEqual((again.replayed, again.call_id), (True, first.call_id))
            with self.assertRaises(toolkeep.CallDenied) as spent:
                await run.execute("text-stats", {"text": "b"})
            self.assertEqual(spent.exception.code, Code.BUDGET_EXCEEDED)
        told = await self.client.runs.get(run.id)
        used = cast(JsonObject, cast(JsonObject, told["budget"])["used"])
        self.assertEqual(cast(JsonObject, used["reported"])["tokens"], 12)
        self.assertIsNotNone(told["closed_at_ms"])
        broken = await self.client.runs.open(label="python broken")
        with self.assertRaises(RuntimeError):
            async with broken:
                raise RuntimeError("the work failed")
        self.assertIsNotNone((await self.client.runs.get(broken.id))["closed_at_ms"])

    async def test_a_transaction_is_committed_as_one_or_rolled_back(self) -> None:
        async with await self.client.transactions.begin() as work:
            staged = await work.execute("notes.add", note("Python one"))
            assert staged.transaction is not None
            self.assertEqual((staged.outcome, staged.transaction.calls), ("staged", 1))
            await work.execute("notes.add", note("Python two"))
            shown = await work.preview()
            assert shown.plan is not None
            self.assertEqual(len(shown.plan.effects), 2)
            self.assertFalse((HOME / "notes/python-one.md").exists())
            self.assertEqual((await work.commit(expect_plan=shown.plan.digest)).outcome, "committed")
        self.assertTrue((HOME / "notes/python-two.md").exists())
        async with await self.client.transactions.begin() as left:
            await left.execute("notes.add", note("Python three"))
        self.assertEqual((await self.client.transactions.get(left.id))["state"], "discarded")
        states = {entry["transaction"]: entry["state"] async for entry in self.client.transactions.list()}
        self.assertEqual((states[work.id], states[left.id]), ("committed", "discarded"))

    async def test_tools_are_listed_and_described(self) -> None:
        tools = await self.client.tools.list()
        names = [tool.name for tool in tools]
        self.assertEqual(names, sorted(names))
        self.assertIn("notes.add", names)
        told = await self.client.tools.describe("notes.add")
        self.assertEqual((told.tier, told.input_schema["required"]), (1, ["title", "body"]))
        self.assertTrue(told.description and told.raw["component"])

    async def test_a_session_holds_less_and_its_token_is_asked_for_at_each_connection(self) -> None:
        made = await self.client.sessions.delegate(tools=["text-stats"], max_tier=0, label="python")
        asked: list[str] = []

        def token() -> str:
            asked.append("asked")
            return str(made["token"])

        async with toolkeep.Client(SOCKET, token=token) as narrow:
            self.assertEqual([tool.name for tool in await narrow.tools.list()], ["text-stats"])
            self.assertEqual((await narrow.session())["session"], made["session"])
            await (await narrow.connection()).close()
            await narrow.host_info()
            self.assertEqual(asked, ["asked", "asked"])
            self.assertIn(made["session"], [entry["id"] async for entry in self.client.sessions.list()])
            await self.client.sessions.revoke(str(made["session"]))
            with self.assertRaises(toolkeep.Refused) as ended:
                await narrow.tools.list()
            self.assertEqual(ended.exception.code, Code.UNAUTHORIZED)

    async def test_what_a_reply_has_beyond_the_model_is_in_raw(self) -> None:
        reply = await self.client.calls.execute("text-stats", {"text": "a"})
        self.assertEqual(json.loads(json.dumps(reply.raw))["usage"]["fuel"], reply.usage.fuel)
        self.assertTrue(reply.trace_id and reply.usage.fuel > 0 and reply.usage.cost_usd == "0")
