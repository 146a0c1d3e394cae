"""Everything that can be raised.

Three things are kept apart, because what to do next differs: the daemon was not reached or was lost (``ConnectionError``),
the daemon refused (``Refused``, with a stable code), and a call of a tool came to nothing (``CallError``, with its reply).
"""

from __future__ import annotations

from ._model import FieldProblem, JsonValue, Refusal, Reply


class Code:
    """The words that a refusal can carry; ``docs/errors.md`` says what to do about each. Later daemons may have more."""

    INVALID_INPUT = "invalid_input"
    UNAUTHORIZED = "unauthorized"
    DENIED = "denied"
    NOT_FOUND = "not_found"
    BUDGET_EXCEEDED = "budget_exceeded"
    RATE_LIMITED = "rate_limited"
    CIRCUIT_OPEN = "circuit_open"
    KILLED = "killed"
    LOOP_DETECTED = "loop_detected"
    GATE_UNMET = "gate_unmet"
    OUT_OF_FUEL = "out_of_fuel"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    MEMORY_EXCEEDED = "memory_exceeded"
    OUTPUT_TOO_LARGE = "output_too_large"
    TOOL_FAILED = "tool_failed"
    TOOL_TRAPPED = "tool_trapped"
    STALE_PLAN = "stale_plan"
    PLAN_DIVERGED = "plan_diverged"
    EFFECT_REFUSED = "effect_refused"
    APPROVAL_REQUIRED = "approval_required"
    APPROVAL_REJECTED = "approval_rejected"
    APPROVAL_EXPIRED = "approval_expired"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    IN_FLIGHT = "in_flight"
    OVERLOADED = "overloaded"
    UNKNOWN_OUTCOME = "unknown_outcome"
    HALTED = "halted"
    NOT_REPLAYABLE = "not_replayable"
    EVAL_FAILED = "eval_failed"
    INTERNAL = "internal"


class ToolkeepError(Exception):
    """The base of everything here."""


class DaemonUnreachable(ToolkeepError, ConnectionError):
    """No connection could be made. Nothing was sent."""


class ConnectionLost(ToolkeepError, ConnectionError):
    """The connection ended before the answer. The daemon cancels what it executed for it, but never a commit that has
    begun: without an idempotency key nobody can tell what became of a call, with one the same call tells."""

    def __init__(self, message: str, *, keyed: bool = False) -> None:
        super().__init__(message)
        self.keyed = keyed
        """Whether the request carried an idempotency key, so that it may be sent again without being done twice."""


class ProtocolError(ToolkeepError):
    """The daemon, or whatever listens there, said something that the protocol does not have. The connection is closed."""


class RequestTooLarge(ToolkeepError, ValueError):
    """The request is longer than a line may be. Nothing was sent."""


class NoReply(ToolkeepError, TimeoutError):
    """The client stopped waiting. The call was told to end, and did not say in time how it ended."""


class Refused(ToolkeepError):
    """The daemon refused, with a stable code, what to do, and the places that are wrong."""

    def __init__(self, refusal: Refusal, number: int | None = None) -> None:
        super().__init__(f"{refusal.code}: {refusal.message}" + (f" ({refusal.hint})" if refusal.hint else ""))
        self.refusal = refusal
        self.number = number
        """The number of the JSON-RPC error; nothing where a call was refused."""

    @property
    def code(self) -> str:
        return self.refusal.code

    @property
    def hint(self) -> str:
        return self.refusal.hint

    @property
    def fields(self) -> tuple[FieldProblem, ...]:
        return self.refusal.fields

    @property
    def detail(self) -> JsonValue:
        return self.refusal.detail

    @property
    def retryable(self) -> bool:
        return self.refusal.retryable

    @property
    def retry_after_ms(self) -> int | None:
        return self.refusal.retry_after_ms


class CallError(Refused):
    """A call of a tool was recorded and did not do what was asked; ``reply`` is its envelope."""

    def __init__(self, reply: Reply, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.reply = reply

    @property
    def status(self) -> str:
        return self.reply.status

    @property
    def outcome(self) -> str:
        return self.reply.outcome


class CallDenied(CallError):
    """Policy, a limit or a person said no. Nothing was changed."""


class CallFailed(CallError):
    """The tool or the host failed. Nothing was changed, unless ``outcome`` is ``halted``."""


class OutcomeUnknown(CallError):
    """Nobody knows whether an effect happened. Do not repeat the call; ask an operator (``outcomes``)."""


_BY_STATUS: dict[str, type[CallError]] = {"denied": CallDenied, "failed": CallFailed, "unknown": OutcomeUnknown}


def of_reply(reply: Reply) -> CallError | None:
    """The error that a reply is; nothing where it went well or waits for people."""
    if reply.ok or reply.held:
        return None
    refusal = reply.error
    if refusal is None:
        raw: dict[str, JsonValue] = {"code": Code.INTERNAL, "message": f"the call ended as {reply.status}"}
        refusal = Refusal.read(raw)
    return _BY_STATUS.get(reply.status, CallError)(reply, refusal)
