"""An MCP client that knows nothing of Toolkeep: list, preview, call, held, wait, committed.

Runs with the SDK of either era. What it finds is printed, one JSON object per line; who starts it approves in between.
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
async def connected(where):
    """A session with the daemon, by standard input and output or by HTTP, and the revision that is spoken."""
    if Client is not None:
        if not isinstance(where, StdioServerParameters):
            from mcp.client.streamable_http import streamable_http_client
            from mcp.shared._httpx_utils import create_mcp_http_client

            url, token = where
            http = create_mcp_http_client(headers={"Authorization": f"Bearer {token}"})
            where = streamable_http_client(url, http_client=http)
        async with Client(where) as client:
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
    async with transport as streams, ClientSession(streams[0], streams[1]) as session:
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


if sys.argv[1] == "--url":
    asyncio.run(main((sys.argv[2], sys.argv[3])))
else:
    asyncio.run(main(StdioServerParameters(command=sys.argv[1], args=sys.argv[2:])))
