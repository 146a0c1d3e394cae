"""An MCP client that knows nothing of Toolkeep: list, preview, call, held, wait, committed.

Runs with the SDK of either era. What it finds is printed, one JSON object per line; who starts it approves in between. With
`--confirm` first it is asked by elicitation instead: it says yes once, no once, and closes the dialog once.
"""

import asyncio
import json
import sys
from contextlib import asynccontextmanager

from mcp import StdioServerParameters

try:
    from mcp import Client
except ImportError:
    Client = None


@asynccontextmanager
async def connected(where, answer=None):
    """A session with the daemon, by standard input and output or by HTTP, and the revision that is spoken.

    `answer` is asked what its user says.
    """
    if Client is not None:
        if not isinstance(where, StdioServerParameters):
            from mcp.client.streamable_http import streamable_http_client
            from mcp.shared._httpx_utils import create_mcp_http_client

            url, token = where
            http = create_mcp_http_client(headers={"Authorization": f"Bearer {token}"})
            where = streamable_http_client(url, http_client=http)
        async with Client(where, elicitation_callback=answer) as client:
            yield client, client.protocol_version
        return
    from mcp import ClientSession

    if isinstance(where, StdioServerParameters):
        from mcp.client.stdio import stdio_client

        transport = stdio_client(where)
    else:
        from mcp.client.streamable_http import streamablehttp_client

        url, token = where
        transport = streamablehttp_client(url, headers={"Authorization": f"Bearer {token}"})
    async with transport as streams, ClientSession(
        streams[0], streams[1], elicitation_callback=answer
    ) as session:
        greeted = await session.initialize()
        yield session, getattr(greeted, "protocolVersion", None) or greeted.protocol_version


def tell(step, **facts):
    print(json.dumps({"step": step, **facts}), flush=True)


def said(result):
    """Structured content, whatever this SDK calls it."""
    content = getattr(result, "structured_content", None)
    return content if content is not None else result.structuredContent


async def main(where):
    async with connected(where) as (client, version):
        tools = (await client.list_tools()).tools
        tell("connected", version=version, tools=[tool.name for tool in tools])
        rename = {"from": "old_name", "to": "new_name"}
        preview = said(await client.call_tool("held-rename.preview", rename))
        tell("previewed", outcome=preview["outcome"], totals=preview["plan"]["totals"])
        held = said(await client.call_tool("held-rename", rename))
        tell("held", status=held["status"], approval=held["approval_id"])
        done = said(await client.call_tool("toolkeep.wait", {"approval_id": held["approval_id"]}))
        tell("done", status=done["status"], outcome=done["outcome"])
        wrong = await client.call_tool("text-stats", {"text": 7})
        tell("wrong", error=said(wrong)["error"]["code"])


async def confirm(where):
    """Three changes, each of which somebody is asked about."""
    try:
        from mcp_types import ElicitResult
    except ImportError:
        from mcp.types import ElicitResult

    answers = [("accept", {"ok": True}), ("decline", None), ("cancel", None)]

    async def answer(_context, params):
        action, content = answers.pop(0)
        tell("asked", message=params.message, answer=action)
        return ElicitResult(action=action, content=content)

    async with connected(where, answer) as (client, version):
        tell("connected", version=version)
        for title in ["Yes", "No", "Later"]:
            result = said(await client.call_tool("notes.add", {"title": title, "body": "b"}))
            tell("told", status=result["status"], outcome=result["outcome"])


what, arguments = main, sys.argv[1:]
if arguments[0] == "--confirm":
    what, arguments = confirm, arguments[1:]
if arguments[0] == "--url":
    asyncio.run(what((arguments[1], arguments[2])))
else:
    asyncio.run(what(StdioServerParameters(command=arguments[0], args=arguments[1:])))
