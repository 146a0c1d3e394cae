"""The daemon that the tests run against, and its operator.

Whoever starts the tests starts the daemon and names its directory in ``TOOLKEEP_TEST_HOME``: its sockets are in ``run/`` there.
"""

from __future__ import annotations

import json
import os
import socket
import unittest
from pathlib import Path

import toolkeep
from toolkeep import JsonObject, JsonValue

try:
    HOME = Path(os.environ["TOOLKEEP_TEST_HOME"])
except KeyError:
    raise SystemExit("TOOLKEEP_TEST_HOME is not set: run these tests by `make test`, which starts a daemon") from None

SOCKET = HOME / "run/agent/agent.sock"


def admin(method: str, params: JsonObject) -> JsonObject:
    """One request of the operator."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(HOME / "run/admin/admin.sock"))
        lines = connection.makefile("rwb")
        answer: JsonObject = {}
        token: JsonValue = (HOME / "run/admin/token").read_text().strip()
        asked: list[tuple[str, JsonObject]] = [("session.authenticate", {"token": token}), (method, params)]
        for name, given in asked:
            request = {"jsonrpc": "2.0", "id": 1, "method": name, "params": given}
            lines.write(json.dumps(request).encode() + b"\n")
            lines.flush()
            answer = json.loads(lines.readline())
            if "error" in answer:
                raise AssertionError(f"{name}: {answer['error']}")
        result = answer["result"]
        assert isinstance(result, dict)
        return result


class WithDaemon(unittest.IsolatedAsyncioTestCase):
    """A client of its own for each test."""

    async def asyncSetUp(self) -> None:
        self.client = toolkeep.Client(SOCKET)
        await self.client.connection()

    async def asyncTearDown(self) -> None:
        await self.client.close()
