"""The LangChain example with a model that has made up its mind: preview, call, done. What it was told is printed as JSON."""

import asyncio
import json
import sys

from langchain_agent import run
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolCall

NOTE = {"title": "From LangChain", "body": "b"}


class Decided(GenericFakeChatModel):
    """Says its lines in their order, whatever the tools are."""

    def bind_tools(self, tools, **_):
        global OFFERED
        OFFERED = [tool.name for tool in tools]
        return self


OFFERED: list[str] = []


def calls(name):
    return AIMessage(content="", tool_calls=[ToolCall(name=name, args=NOTE, id=f"id-{name}")])


lines = iter([calls("notes__add__preview"), calls("notes__add"), AIMessage(content="It is noted.")])
messages = asyncio.run(run(Decided(messages=lines), "Note this.", sys.argv[1], sys.argv[2:]))
for message in messages:
    if message.type == "tool":
        parts = message.content if isinstance(message.content, list) else [{"text": message.content}]
        print(json.dumps({"tool": message.name, "said": json.loads(parts[0]["text"])}))
print(json.dumps({"offered": OFFERED, "final": messages[-1].content}))
