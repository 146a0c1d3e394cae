"""Two tools over one text file: `count-lines` only reads, `append-line` writes.

A tool is a function from the input, which fits its schema in `tools.json`, to the output. Files of the workspace `work` are
below `/work`: ordinary Python reads and writes them, and what is written is staged until the host commits it.
"""

import json
from typing import Any, Callable

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import tool

WORKSPACE = "/work"


def count_lines(args: dict[str, Any]) -> dict[str, Any]:
    with open(f"{WORKSPACE}/{args['path']}", encoding="utf-8") as file:
        lines = list(file)
    return {"lines": len(lines), "filled": sum(1 for line in lines if line.strip())}


def append_line(args: dict[str, Any]) -> dict[str, Any]:
    if "\n" in args["line"] or "\r" in args["line"]:
        problem = tool.FieldProblem("/line", "holds a line feed", "one line")
        raise Err(tool.Error_InvalidInput(tool.Failure("the line holds a line feed", None, [problem])))
    path = f"{WORKSPACE}/{args['path']}"
    try:
        # As it is: line ends of other systems stay what they are.
        with open(path, encoding="utf-8", newline="") as file:
            text = file.read()
    except FileNotFoundError:
        text = ""
    if text and not text.endswith("\n"):
        text += "\n"
    text += args["line"] + "\n"
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    return {"lines": text.count("\n")}


TOOLS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "count-lines": count_lines,
    "append-line": append_line,
}


class Tool(exports.Tool):
    """What the component exports. An exception that is not caught here is a trap: all that an agent learns is that it broke."""

    def describe(self) -> str:
        # `toolkeep tools pack --descriptors` writes `tools.json` into the component; nobody asks this.
        return ""

    def invoke(self, name: str, input: str) -> str:
        try:
            return json.dumps(TOOLS[name](json.loads(input)))
        except FileNotFoundError as error:
            raise Err(tool.Error_NotFound(failure(f"there is no `{shown(error)}`")))
        except PermissionError as error:
            raise Err(tool.Error_Denied(failure(f"`{shown(error)}` is not granted")))
        except (OSError, UnicodeDecodeError) as error:
            raise Err(tool.Error_Failed(failure(str(error))))


def failure(message: str) -> tool.Failure:
    return tool.Failure(message, None, [])


def shown(error: OSError) -> str:
    return str(error.filename).removeprefix(f"{WORKSPACE}/")
