"""Client for the agent socket of Toolkeep: call tools, look at plans, commit them, wait for people.

    async with toolkeep.Client("run/agent/agent.sock") as client:
        shown = await client.calls.preview("notes.add", {"title": "A", "body": "b"})
        done = await client.plans.commit(shown.plan.id)

Everything that a caller needs is importable from here; modules whose names begin with an underscore are not part of it.
"""

from ._client import Calls, Client, Running
from ._connection import REPLY_MAX_BYTES, REQUEST_MAX_BYTES
from ._errors import (
    CallDenied,
    CallError,
    CallFailed,
    Code,
    ConnectionLost,
    DaemonUnreachable,
    NoReply,
    OutcomeUnknown,
    ProtocolError,
    Refused,
    RequestTooLarge,
    ToolkeepError,
)
from ._model import (
    Approval,
    FieldProblem,
    JsonObject,
    JsonValue,
    PlanSummary,
    Progress,
    Refusal,
    Reply,
    StagedTransaction,
    Tool,
    Usage,
)
from ._retry import Retry
from ._work import Run, Transaction

__version__ = "0.1.0"

__all__ = [
    "REPLY_MAX_BYTES",
    "REQUEST_MAX_BYTES",
    "Approval",
    "CallDenied",
    "CallError",
    "CallFailed",
    "Calls",
    "Client",
    "Code",
    "ConnectionLost",
    "DaemonUnreachable",
    "FieldProblem",
    "JsonObject",
    "JsonValue",
    "NoReply",
    "OutcomeUnknown",
    "PlanSummary",
    "Progress",
    "ProtocolError",
    "Refusal",
    "Refused",
    "Reply",
    "RequestTooLarge",
    "Retry",
    "Run",
    "Running",
    "StagedTransaction",
    "Tool",
    "ToolkeepError",
    "Transaction",
    "Usage",
]
