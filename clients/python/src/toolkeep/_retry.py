"""When a call is made again without asking anybody."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ._errors import Code
from ._model import Refusal

_NOT_BY_WAITING = frozenset(
    {Code.APPROVAL_REQUIRED, Code.APPROVAL_EXPIRED, Code.DEADLINE_EXCEEDED, Code.STALE_PLAN}
)
"""Retryable, but not by doing the same again: somebody has to look first. A call that came to its deadline may be one that
somebody cancelled."""


@dataclass(frozen=True)
class Retry:
    """A call with an idempotency key is made again where the daemon says ``retryable``, and in no other case: without a key a
    second call could be a second effect, and without that word it would come to the same."""

    attempts: int = 4
    """Calls in all, the first included."""
    base_s: float = 0.1
    """Longest pause after the first call; each further one is up to twice as long."""
    most_s: float = 10.0
    """Longest pause. A daemon that asks for more is not asked again."""

    def pause(self, refusal: Refusal, attempt: int) -> float | None:
        """Seconds to wait after this attempt (the first is 1) was refused; nothing if it is not to be made again."""
        if not refusal.retryable or refusal.code in _NOT_BY_WAITING or attempt >= self.attempts:
            return None
        asked = (refusal.retry_after_ms or 0) / 1000
        if asked > self.most_s:
            return None
        # Several callers that were refused together must not come back together.
        shaken = random.uniform(0, min(self.most_s, self.base_s * 2 ** (attempt - 1)))
        return asked + shaken
