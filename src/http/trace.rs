//! One trace id from the request to the last log line of the work it began (W3C Trace Context, level 1).
//!
//! A request's `traceparent` is taken up when it is well-formed, else a trace begins here. The id stands in the
//! span of every log line below it, in the answer (`traceparent`, and `x-request-id` for people), in problem
//! objects, and, through [`current_traceparent`], in the uploads and tasks that a request makes.

use axum::{extract::Request, middleware::Next, response::Response};
use http::{HeaderValue, header::HeaderName};
use std::{fmt::Write, time::Instant};
use tracing::Instrument;

tokio::task_local! {
    static CURRENT: TraceContext;
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// `trace` names the whole story, `span` this request in it; lower-case hexadecimal, 32 and 16 digits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TraceContext {
    trace: String,
    span: String,
    sampled: bool,
}

impl TraceContext {
    fn header(&self) -> String {
        format!("00-{}-{}-{}", self.trace, self.span, if self.sampled { "01" } else { "00" })
    }
}

/// Trace id and flag of a `traceparent` header; `None` when it is not well-formed (then the specification says:
/// start anew). Versions above 00 may be longer; the first four fields keep their places.
fn parse_traceparent(text: &str) -> Option<(&str, bool)> {
    let mut fields = text.split('-');
    let (version, trace, parent, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let is_hex = |field: &str, length: usize| {
        field.len() == length && field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let well_formed = is_hex(version, 2)
        && version != "ff"
        && (version != "00" || fields.next().is_none())
        && is_hex(trace, 32)
        && is_hex(parent, 16)
        && is_hex(flags, 2)
        && trace.bytes().any(|byte| byte != b'0')
        && parent.bytes().any(|byte| byte != b'0');
    let sampled = well_formed && u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
    well_formed.then_some((trace, sampled))
}

/// Random lower-case hexadecimal. Falls back to a UUID's bits when the system gives no randomness: a trace id is
/// no secret.
fn random_hex<const BYTES: usize>() -> String {
    let mut bytes = [0u8; BYTES];
    if getrandom::fill(&mut bytes).is_err() {
        let uuid = uuid::Uuid::now_v7();
        for (byte, from) in bytes.iter_mut().zip(uuid.as_bytes().iter().rev()) {
            *byte = *from;
        }
    }
    let mut text = String::with_capacity(BYTES * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The trace id of the request being answered, outside of one `None`.
pub(crate) fn current_trace_id() -> Option<String> {
    CURRENT.try_with(|context| context.trace.clone()).ok()
}

/// What to store with work that this request begins; a fresh trace outside of a request.
pub(crate) fn current_traceparent() -> String {
    CURRENT.try_with(TraceContext::header).unwrap_or_else(|_| {
        TraceContext { trace: random_hex::<16>(), span: random_hex::<8>(), sampled: true }.header()
    })
}

/// The outermost layer: opens the span, runs the request in it, logs one line, counts it, labels the answer.
pub(super) async fn layer(request: Request, next: Next) -> Response {
    let incoming =
        request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok()).and_then(parse_traceparent);
    let context = TraceContext {
        trace: incoming.map_or_else(random_hex::<16>, |(trace, _)| trace.to_owned()),
        span: random_hex::<8>(),
        sampled: incoming.is_none_or(|(_, sampled)| sampled),
    };
    let method = request.method().clone();
    // Tokens are secrets: the log gets the route, never the path below /p/.
    let route = request
        .extensions()
        .get::<axum::extract::MatchedPath>()
        .map_or_else(|| "unknown".to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!("request", trace_id = %context.trace, method = %method, route = %route);
    let labels =
        HeaderValue::from_str(&context.header()).ok().zip(HeaderValue::from_str(&context.trace).ok());
    let began = Instant::now();
    let mut response = CURRENT.scope(context, next.run(request)).instrument(span.clone()).await;
    let elapsed = began.elapsed();
    let status = response.status().as_u16();
    span.in_scope(|| tracing::debug!(status, elapsed_ms = elapsed.as_millis() as u64, "answered"));
    super::health::count_request(method.as_str(), &route, status, elapsed);
    if let Some((traceparent, request_id)) = labels {
        response.headers_mut().insert(TRACEPARENT, traceparent);
        response.headers_mut().insert(REQUEST_ID, request_id);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::parse_traceparent;

    #[test]
    fn well_formed_parents_are_taken_up_and_others_are_not() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(parse_traceparent(&format!("00-{trace}-00f067aa0ba902b7-01")), Some((trace, true)));
        assert_eq!(parse_traceparent(&format!("00-{trace}-00f067aa0ba902b7-00")), Some((trace, false)));
        assert_eq!(parse_traceparent(&format!("cc-{trace}-00f067aa0ba902b7-01-later")), Some((trace, true)));
        for refused in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert_eq!(parse_traceparent(refused), None, "{refused}");
        }
    }
}
