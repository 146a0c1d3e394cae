"""The example for the OpenAI Agents SDK with a model that has made up its mind: preview, call, done. Nothing leaves this machine."""

import asyncio
import json
import sys

from agents import Model, ModelResponse, Usage, set_tracing_disabled
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText
from openai_agent import run

NOTE = {"title": "From Agents", "body": "b"}
OFFERED: list[str] = []


def calls(name):
    return ResponseFunctionToolCall(type="function_call", call_id=f"id-{name}", name=name, arguments=json.dumps(NOTE))


def says(text):
    part = ResponseOutputText(type="output_text", text=text, annotations=[])
    return ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[part])


class Decided(Model):
    """Says its lines in their order, whatever the tools are."""

    def __init__(self):
        self.lines = iter([calls("notes__add__preview"), calls("notes__add"), says("It is noted.")])

    async def get_response(self, system_instructions, input, model_settings, tools, *_, **__):
        OFFERED[:] = [tool.name for tool in tools]
        return ModelResponse(output=[next(self.lines)], usage=Usage(), response_id=None)

    def stream_response(self, *_, **__):
        raise NotImplementedError


set_tracing_disabled(True)
result = asyncio.run(run(Decided(), "Note this.", sys.argv[1], sys.argv[2:]))
for item in result.new_items:
    if item.type == "tool_call_output_item":
        print(json.dumps({"said": json.loads(item.output) if isinstance(item.output, str) else item.output}))
print(json.dumps({"offered": OFFERED, "final": result.final_output}))
