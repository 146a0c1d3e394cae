"""A LangChain agent with the tools of Toolkeep, through MCP.

    pip install langchain-mcp-adapters==0.3.2 langchain==1.4.7 langchain-openai
    python langchain_agent.py openai:gpt-5 "Add a note about the meeting" toolkeep mcp

The agent has every tool that its principal may call, a `.preview` beside those that change something, and `toolkeep.wait` for
what people must agree to. Dots are no part of a tool's name for most models: they are written as `__` here.
"""

import asyncio
import sys
from typing import Any

from langchain.agents import create_agent
from langchain_core.tools import BaseTool
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools

INSTRUCTIONS = (
    "Preview before you change something. If a call is answered with `approval_required`, "
    "tell the user who is waited for and call `toolkeep__wait`."
)


async def run(model: Any, question: str, command: str, arguments: list[str]) -> list[Any]:
    """Ask; all messages of the conversation."""
    server = {"transport": "stdio", "command": command, "args": arguments}
    client = MultiServerMCPClient({"toolkeep": server})
    # One session for all calls: without it each call would start a `toolkeep mcp` of its own.
    async with client.session("toolkeep") as session:
        tools: list[BaseTool] = await load_mcp_tools(session)
        for tool in tools:
            tool.name = tool.name.replace(".", "__")
        agent = create_agent(model, tools, system_prompt=INSTRUCTIONS)
        answer = await agent.ainvoke({"messages": [{"role": "user", "content": question}]})
        return answer["messages"]


if __name__ == "__main__":
    model, question, command, *arguments = sys.argv[1:]
    for message in asyncio.run(run(model, question, command, arguments)):
        message.pretty_print()
