"""What the daemon says, as values.

Each class has the members that every version of the protocol has; ``raw`` holds the whole object as it came, so that a
member which a later daemon adds can be read without a new client.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, Union, cast

JsonValue: TypeAlias = Union[None, bool, int, float, str, list["JsonValue"], dict[str, "JsonValue"]]
JsonObject: TypeAlias = dict[str, JsonValue]


class Malformed(ValueError):
    """A member is missing or of another type than the protocol says."""


def an_object(value: object, what: str) -> JsonObject:
    if isinstance(value, dict):
        return cast(JsonObject, value)
    raise Malformed(f"{what} is not an object")


def objects(value: JsonValue, what: str) -> list[JsonObject]:
    if isinstance(value, list):
        return [an_object(entry, what) for entry in value]
    raise Malformed(f"{what} is not a list")


def text(of: Mapping[str, JsonValue], name: str) -> str:
    value = of.get(name)
    if isinstance(value, str):
        return value
    raise Malformed(f"`{name}` is not a text")


def maybe_text(of: Mapping[str, JsonValue], name: str) -> str | None:
    value = of.get(name)
    if value is None or isinstance(value, str):
        return value
    raise Malformed(f"`{name}` is not a text")


def number(of: Mapping[str, JsonValue], name: str) -> int:
    value = of.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Malformed(f"`{name}` is not an integer")


def maybe_number(of: Mapping[str, JsonValue], name: str) -> int | None:
    return None if of.get(name) is None else number(of, name)


def maybe_object(of: Mapping[str, JsonValue], name: str) -> JsonObject | None:
    value = of.get(name)
    return None if value is None else an_object(value, f"`{name}`")


def texts(of: Mapping[str, JsonValue], name: str) -> tuple[str, ...]:
    value = of.get(name)
    if value is None:
        return ()
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return tuple(entry for entry in value if isinstance(entry, str))
    raise Malformed(f"`{name}` is not a list of texts")


@dataclass(frozen=True)
class FieldProblem:
    """One place of a request that is wrong."""

    pointer: str
    """JSON Pointer (RFC 6901) into the parameters."""
    problem: str
    expected: str


@dataclass(frozen=True)
class Refusal:
    """Why something was not done: a stable word, and what to do about it."""

    code: str
    """A word of ``docs/errors.md``; the known ones are in ``Code``."""
    message: str
    hint: str
    retryable: bool
    """Whether the same request may succeed later."""
    retry_after_ms: int | None
    fields: tuple[FieldProblem, ...]
    detail: JsonValue
    raw: JsonObject = field(repr=False)

    @classmethod
    def read(cls, raw: JsonObject) -> Refusal:
        places = raw.get("fields")
        return cls(
            code=text(raw, "code"),
            message=text(raw, "message"),
            hint=maybe_text(raw, "hint") or "",
            retryable=raw.get("retryable") is True,
            retry_after_ms=maybe_number(raw, "retry_after_ms"),
            fields=tuple(
                FieldProblem(text(place, "pointer"), text(place, "problem"), text(place, "expected"))
                for place in ([] if places is None else objects(places, "`fields`"))
            ),
            detail=raw.get("detail"),
            raw=raw,
        )


@dataclass(frozen=True)
class PlanSummary:
    """What a call wants to change, or changed: the first effects; ``plans.get`` has all of them."""

    id: str
    digest: str
    effects: tuple[JsonObject, ...]
    totals: JsonObject
    expires_at_ms: int | None
    raw: JsonObject = field(repr=False)

    @classmethod
    def read(cls, raw: JsonObject) -> PlanSummary:
        return cls(
            id=text(raw, "id"),
            digest=text(raw, "digest"),
            effects=tuple(objects(raw.get("effects", []), "`effects`")),
            totals=maybe_object(raw, "totals") or {},
            expires_at_ms=maybe_number(raw, "expires_at_ms"),
            raw=raw,
        )


@dataclass(frozen=True)
class Approval:
    """People whom a call waits for."""

    id: str
    expires_at_ms: int | None
    raw: JsonObject = field(repr=False)

    @classmethod
    def read(cls, raw: JsonObject) -> Approval:
        return cls(text(raw, "id"), maybe_number(raw, "expires_at_ms"), raw)


@dataclass(frozen=True)
class StagedTransaction:
    """What the open transaction of a call holds by now."""

    id: str
    calls: int
    totals: JsonObject
    raw: JsonObject = field(repr=False)

    @classmethod
    def read(cls, raw: JsonObject) -> StagedTransaction:
        return cls(text(raw, "id"), number(raw, "calls"), maybe_object(raw, "totals") or {}, raw)


@dataclass(frozen=True)
class Usage:
    """What a call used."""

    fuel: int
    wall_ms: int
    memory_peak: int
    host_calls: int
    http_requests: int
    cost_usd: str
    """A decimal text: money is not a binary fraction."""

    @classmethod
    def read(cls, raw: JsonObject) -> Usage:
        return cls(
            fuel=number(raw, "fuel"),
            wall_ms=number(raw, "wall_ms"),
            memory_peak=number(raw, "memory_peak"),
            host_calls=number(raw, "host_calls"),
            # Calls that were recorded before these were counted do not have them.
            http_requests=maybe_number(raw, "http_requests") or 0,
            cost_usd=maybe_text(raw, "cost_usd") or "0",
        )


@dataclass(frozen=True)
class Reply:
    """The envelope that every call has, whatever became of it."""

    status: str
    """``ok``, ``held``, ``denied``, ``failed`` or ``unknown``."""
    outcome: str
    """What became of the effects: ``none``, ``previewed``, ``committed``, ``staged``, ``pending``, ``discarded``, …"""
    call_id: str
    output: JsonValue
    error: Refusal | None
    plan: PlanSummary | None
    approval: Approval | None
    receipt: JsonObject | None
    transaction: StagedTransaction | None
    usage: Usage
    warnings: tuple[str, ...]
    labels: tuple[str, ...]
    """What the output is and what was found in it, for example ``untrusted``."""
    trace_id: str | None
    replayed: bool
    """Whether this is the stored answer of an earlier call with the same key."""
    budget_remaining: JsonObject | None
    raw: JsonObject = field(repr=False)

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def held(self) -> bool:
        return self.status == "held"

    @classmethod
    def read(cls, result: JsonObject) -> Reply:
        """From the result of a method that answers with a call."""
        raw = an_object(result.get("reply"), "`reply`")
        error, plan = maybe_object(raw, "error"), maybe_object(raw, "plan")
        approval, transaction = maybe_object(raw, "approval"), maybe_object(raw, "transaction")
        return cls(
            status=text(raw, "status"),
            outcome=text(raw, "outcome"),
            call_id=text(raw, "call_id"),
            output=raw.get("output"),
            error=None if error is None else Refusal.read(error),
            plan=None if plan is None else PlanSummary.read(plan),
            approval=None if approval is None else Approval.read(approval),
            receipt=maybe_object(raw, "receipt"),
            transaction=None if transaction is None else StagedTransaction.read(transaction),
            usage=Usage.read(an_object(raw.get("usage"), "`usage`")),
            warnings=texts(raw, "warnings"),
            labels=texts(raw, "labels"),
            trace_id=maybe_text(raw, "trace_id"),
            replayed=result.get("replayed") is True,
            budget_remaining=maybe_object(result, "budget_remaining"),
            raw=raw,
        )


@dataclass(frozen=True)
class Tool:
    """A tool that the caller may call."""

    name: str
    title: str | None
    description: str
    tier: int
    """0 only reads; from 1 on the higher, the more it takes to commit."""
    input_schema: JsonObject
    output_schema: JsonObject
    raw: JsonObject = field(repr=False)

    @classmethod
    def read(cls, raw: JsonObject) -> Tool:
        return cls(
            name=text(raw, "name"),
            title=maybe_text(raw, "title"),
            description=text(raw, "description"),
            tier=number(raw, "tier"),
            input_schema=an_object(raw.get("input_schema"), "`input_schema`"),
            output_schema=an_object(raw.get("output_schema"), "`output_schema`"),
            raw=raw,
        )


@dataclass(frozen=True)
class Progress:
    """How far a call has come. The message is text of the tool."""

    done: int
    total: int | None
    message: str

    @classmethod
    def read(cls, raw: JsonObject) -> Progress:
        return cls(number(raw, "done"), maybe_number(raw, "total"), maybe_text(raw, "message") or "")
