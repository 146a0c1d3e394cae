/** When a call is made again without asking anybody. */
import { Code } from "./errors.js";
import type { Refusal } from "./model.js";

/**
 * A call with an idempotency key is made again where the daemon says `retryable`, and in no other case: without a key a second
 * call could be a second effect, and without that word it would come to the same.
 */
export interface Retry {
  /** Calls in all, the first included. */
  readonly attempts: number;
  /** Longest pause after the first call, in milliseconds; each further one is up to twice as long. */
  readonly baseMs: number;
  /** Longest pause, in milliseconds. A daemon that asks for more is not asked again. */
  readonly mostMs: number;
}

export const RETRY: Retry = { attempts: 4, baseMs: 100, mostMs: 10_000 };

/**
 * Retryable, but not by doing the same again: somebody has to look first. A call that came to its deadline may be one that
 * somebody cancelled.
 */
const NOT_BY_WAITING: ReadonlySet<string> = new Set([
  Code.APPROVAL_REQUIRED,
  Code.APPROVAL_EXPIRED,
  Code.DEADLINE_EXCEEDED,
  Code.STALE_PLAN,
]);

/** Milliseconds to wait after this attempt (the first is 1) was refused; nothing if it is not to be made again. */
export function pause(retry: Retry, refusal: Refusal, attempt: number): number | undefined {
  if (!refusal.retryable || NOT_BY_WAITING.has(refusal.code) || attempt >= retry.attempts) return undefined;
  const asked = refusal.retryAfterMs ?? 0;
  if (asked > retry.mostMs) return undefined;
  // Several callers that were refused together must not come back together.
  return asked + Math.random() * Math.min(retry.mostMs, retry.baseMs * 2 ** (attempt - 1));
}
