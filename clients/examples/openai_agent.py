"""An agent of the OpenAI Agents SDK with the tools of Toolkeep, through MCP.

    pip install openai-agents==0.24.0
    python openai_agent.py gpt-5 "Add a note about the meeting" toolkeep mcp

The agent has every tool that its principal may call, a `.preview` beside those that change something, and `toolkeep.wait` for
what people must agree to. Dots are no part of a function's name for OpenAI's models: they are written as `__` here.
"""

import asyncio
import sys
from typing import Any

from agents import Agent, Model, Runner, RunResult
from agents.mcp import MCPServerStdio

INSTRUCTIONS = (
    "Preview before you change something. If a call is answered with `approval_required`, "
    "tell the user who is waited for and call `toolkeep__wait`."
)


class Toolkeep(MCPServerStdio):
    """The tools, under names that OpenAI's models take."""

    names: dict[str, str] = {}

    async def list_tools(self, *args: Any, **more: Any) -> list[Any]:
        tools = await super().list_tools(*args, **more)
        names: dict[str, str] = {}
        for tool in tools:
            other = names.setdefault(tool.name.replace(".", "__"), tool.name)
            if other != tool.name:
                raise ValueError(f"`{other}` and `{tool.name}` would have one name; the model could not tell them apart")
        self.names = names
        return [tool.model_copy(update={"name": tool.name.replace(".", "__")}) for tool in tools]

    async def call_tool(self, tool_name: str, *args: Any, **more: Any) -> Any:
        return await super().call_tool(self.names.get(tool_name, tool_name), *args, **more)


async def run(model: str | Model, question: str, command: str, arguments: list[str]) -> RunResult:
    """Ask; the result has every step."""
    server = Toolkeep(
        params={"command": command, "args": arguments},
        # A held call waits for people longer than the five seconds that are the default.
        client_session_timeout_seconds=120,
        # The result as a value, and not only as text.
        use_structured_content=True,
    )
    async with server:
        agent = Agent(name="assistant", instructions=INSTRUCTIONS, model=model, mcp_servers=[server])
        return await Runner.run(agent, question)


if __name__ == "__main__":
    model, question, command, *arguments = sys.argv[1:]
    print(asyncio.run(run(model, question, command, arguments)).final_output)
