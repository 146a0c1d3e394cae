//! What the end of a call into the guest means: an output, the tool's own error, a live request, a fault of the guest or
//! one of the host. Whatever text of an author goes further is bounded here.

use toolkeep_core::limit::{ExecutionLimits, MESSAGE_MAX_BYTES};
use toolkeep_core::refusal::FieldProblem;

use super::{End, Ended, FIELDS_MAX, GuestError, GuestErrorKind};
use crate::bindings::contract;
use crate::capability::log::{Level, Source};
use crate::fault::{self, Broken, Circumstances, Fault, HostFault};
use crate::state::State;

/// Sort the end of a call.
pub(super) fn judge(end: End, limits: &ExecutionLimits, state: &mut State) -> Result<Ended, HostFault> {
    let error = match end {
        End::Cancelled => return Ok(Ended::Fault(Fault::Cancelled)),
        End::Deadline => return Ok(Ended::Fault(Fault::Deadline)),
        End::Panicked(text) => return Err(HostFault::Panicked(text)),
        End::Returned(Ok(Ok(output))) => return Ok(measured(output, limits.output_bytes)),
        End::Returned(Ok(Err(error))) => return Ok(own_error(error, limits.output_bytes)),
        End::Returned(Err(error)) => error,
    };
    if let Some(call) = state.outbound.as_mut().and_then(|outbound| outbound.live.take()) {
        return Ok(Ended::Live(call));
    }
    if let Some(frames) = fault::frames(&error) {
        state.log.write(Source::Host, Level::Debug, &frames);
    }
    let circumstances = Circumstances {
        refused: state.limiter.refused,
        returned: state.books.returned,
        output_limit: limits.output_bytes,
    };
    match fault::sort(&error, &circumstances) {
        Broken::Guest(fault) => Ok(Ended::Fault(fault)),
        Broken::Host(fault) => Err(fault),
    }
}

fn measured(output: String, limit: u64) -> Ended {
    let size = output.len() as u64;
    if size > limit { Ended::Fault(Fault::OutputTooLarge { limit, size }) } else { Ended::Output(output) }
}

fn own_error(error: contract::Error, limit: u64) -> Ended {
    let (kind, failure) = match error {
        contract::Error::InvalidInput(failure) => (GuestErrorKind::InvalidInput, failure),
        contract::Error::NotFound(failure) => (GuestErrorKind::NotFound, failure),
        contract::Error::Denied(failure) => (GuestErrorKind::Denied, failure),
        contract::Error::Conflict(failure) => (GuestErrorKind::Conflict, failure),
        contract::Error::Failed(failure) => (GuestErrorKind::Failed, failure),
        contract::Error::Transient(retry) => {
            let contract::Retry { message, detail, after_ms } = retry;
            let error = (GuestErrorKind::Transient, contract::Failure { message, detail, fields: Vec::new() });
            return bounded(error, after_ms, limit);
        }
    };
    bounded((kind, failure), None, limit)
}

fn bounded((kind, failure): (GuestErrorKind, contract::Failure), after_ms: Option<u64>, limit: u64) -> Ended {
    let size = failure.detail.as_ref().map_or(0, String::len) as u64;
    if size > limit {
        return Ended::Fault(Fault::OutputTooLarge { limit, size });
    }
    let fields = failure.fields.into_iter().take(FIELDS_MAX).map(|field| FieldProblem {
        pointer: shortened(field.pointer),
        problem: shortened(field.problem),
        expected: shortened(field.expected),
    });
    let fields = fields.collect();
    let message = shortened(failure.message);
    Ended::Error(GuestError { kind, message, detail: failure.detail, fields, after_ms })
}

fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MESSAGE_MAX_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(message: &str, fields: usize) -> contract::Failure {
        let field = contract::FieldProblem {
            pointer: "/a".to_owned(),
            problem: "x".repeat(MESSAGE_MAX_BYTES + 1),
            expected: "y".to_owned(),
        };
        contract::Failure { message: message.to_owned(), detail: None, fields: vec![field; fields] }
    }

    #[test]
    fn r04_a_tools_own_error_is_bounded_in_every_part() {
        let long = "é".repeat(MESSAGE_MAX_BYTES);
        let Ended::Error(error) = own_error(contract::Error::NotFound(failure(&long, FIELDS_MAX + 1)), 10) else {
            panic!("an error");
        };
        assert_eq!((error.kind, error.message.len(), error.fields.len()), (GuestErrorKind::NotFound, 4096, FIELDS_MAX));
        assert_eq!(error.fields[0].problem.len(), MESSAGE_MAX_BYTES);
        let with_detail = |length: usize| {
            let detail = Some("1".repeat(length));
            own_error(
                contract::Error::Transient(contract::Retry { message: String::new(), detail, after_ms: Some(5) }),
                10,
            )
        };
        assert!(matches!(with_detail(10), Ended::Error(error) if error.after_ms == Some(5)));
        assert_eq!(with_detail(11), Ended::Fault(Fault::OutputTooLarge { limit: 10, size: 11 }));
    }
}
