//! What a worker and a server say to each other over HTTP: the bodies of the calls under `/v1/worker/`, version 1.
//!
//! The words inside are those of [`crate::work`]; here is only what a call wraps around them. Every call names the
//! version and the worker. A server refuses a version that it does not speak; members that it does not know it
//! ignores, and members with a default may be missing, so that both sides can be brought up to date one by one.

use crate::{
    TaskId, WorkerId,
    work::{Grant, Offer, Progress, Report, Verdict},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Version of these calls. It rises when a call changes its meaning, not when it gains a member.
pub const WORKER_PROTOCOL: u32 = 1;

/// Longest that a server holds a call open (`wait_ms`): below the half minute after which proxies give up.
pub const MAX_WAIT_MS: u64 = 25_000;
/// A line of a stream of orders comes at least so often.
pub const ORDERS_KEEP_ALIVE_MS: u64 = 15_000;
/// Most tasks that one claim is answered with: each costs a transaction, and one lease length is the time for all.
pub const MAX_GRANTS: u32 = 64;
/// Most attempts that one call speaks of: more than the slots of any one machine.
pub const MAX_ATTEMPTS: usize = 1024;
/// Most claims without an answer that one call speaks of.
pub const MAX_UNHEARD: usize = 64;
/// Longest report. A probe's is its list of keyframes, which the child could not send in a longer line either
/// ([`crate::child::MAX_LINE_BYTES`]); the rest is for what stands around it.
pub const MAX_REPORT_BYTES: usize = crate::child::MAX_LINE_BYTES + (1 << 20);
/// Longest body of all other calls: [`MAX_ATTEMPTS`] with their progress.
pub const MAX_CALL_BYTES: usize = 1 << 20;

/// The first call: who is there. Safe to repeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HelloCall {
    pub protocol: u32,
    /// Made anew by each start of the program.
    pub worker: WorkerId,
    /// For people.
    pub name: String,
    /// Of the program.
    pub version: String,
    pub machine: MachineFacts,
}

/// What a worker has, for operators.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineFacts {
    pub cores: u32,
    pub memory_bytes: u64,
    #[serde(default)]
    pub gpus: Vec<GpuFacts>,
    /// Encodes at a time, and small tasks beside them.
    #[serde(default)]
    pub heavy_slots: u32,
    #[serde(default)]
    pub light_slots: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuFacts {
    pub name: String,
    #[serde(default)]
    pub memory_bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloAnswer {
    /// Of the server's program; workers of another version work, and say that they are.
    pub version: String,
    /// Length of the leases that it gives.
    pub lease_ms: u64,
}

/// Tasks, please.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimCall {
    pub protocol: u32,
    pub worker: WorkerId,
    pub offers: Vec<Offer>,
    /// At most so many grants; 0: none, only tell when there may be something for these offers.
    pub max: u32,
    /// Hold the answer for so long while there is nothing.
    #[serde(default)]
    pub wait_ms: u64,
    /// `seen` of the last answer: what became ready since then is told at once. Without it the wait begins now.
    #[serde(default)]
    pub after: Option<i64>,
    /// Names this call, where its answer may get lost: a new one for each.
    #[serde(default)]
    pub claim: Option<Uuid>,
    /// Calls of this worker whose answers never came: what they were granted goes back in line first, unharmed.
    #[serde(default)]
    pub unheard: Vec<Uuid>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClaimAnswer<G = Grant> {
    pub grants: Vec<G>,
    /// How far the server had looked. All nodes of a fleet count alike.
    #[serde(default)]
    pub seen: i64,
    /// An operator wants this worker to take nothing new; it is asked again later.
    #[serde(default)]
    pub drain: bool,
}

/// One attempt that a worker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Held {
    pub task: TaskId,
    pub attempt: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    pub task: TaskId,
    pub attempt: u32,
    pub progress: Progress,
}

/// The leases of all these, please, for another length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatCall {
    pub protocol: u32,
    pub worker: WorkerId,
    pub beats: Vec<Beat>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// One for each beat, in their order. `null`: it could not be asked; say it again soon.
    pub verdicts: Vec<Option<Verdict>>,
}

/// How an attempt ended. Asked again, it is answered as the first time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportCall {
    pub protocol: u32,
    pub worker: WorkerId,
    pub task: TaskId,
    pub attempt: u32,
    pub report: Report,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportAnswer {
    pub verdict: Verdict,
}

/// These go back unharmed: somebody else can have them at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseCall {
    pub protocol: u32,
    pub worker: WorkerId,
    #[serde(default)]
    pub held: Vec<Held>,
    /// The worker ends and will not come back.
    #[serde(default)]
    pub goodbye: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseAnswer {
    /// One for each attempt, in their order. False: it was not the worker's any more.
    pub released: Vec<bool>,
}

/// The worker's stream of orders, please. Answered by lines of JSON, each an [`OrdersLine`], for as long as both live. What
/// it has in hand is looked at once, after the stream is open; what ends later is told without its having been named. A
/// worker has one stream at a time: a new one takes the place of the one before, which ends. A server may end a stream at
/// any moment (it stops, the key was revoked, the stream is old, or it cannot say that it told everything): the worker
/// opens it anew, with what it has in hand then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrdersCall {
    pub protocol: u32,
    pub worker: WorkerId,
    #[serde(default)]
    pub held: Vec<Held>,
}

/// One line of that stream. The first has `drain`; one without members keeps the connection alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrdersLine {
    /// May be told of an attempt that the worker has not heard of yet (its claim is still being answered), more than
    /// once, and of an attempt that it has ended itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Over>,
    /// Whether an operator wants it to take nothing new, when that has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<bool>,
}

/// An attempt that is the worker's no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Over {
    pub task: TaskId,
    pub attempt: u32,
    pub verdict: Verdict,
}

#[cfg(test)]
mod tests {
    use super::{ClaimCall, OrdersCall, OrdersLine};

    #[test]
    fn a_call_of_version_1_is_read_as_it_was_first_written() {
        let text = r#"{"protocol":1,"worker":"0198c0de-0000-7000-8000-000000000001","offers":[
            {"worker":"0198c0de-0000-7000-8000-000000000001","kinds":["encode"],"cpu_millicores":4000,"memory_bytes":1}],
            "max":3,"a_member_of_tomorrow":true}"#;
        let call: ClaimCall = serde_json::from_str(text).unwrap();
        assert_eq!((call.max, call.wait_ms, call.offers[0].slots), (3, 0, 1));
        assert_eq!((call.claim, call.unheard), (None, Vec::new()));
        let orders: OrdersCall =
            serde_json::from_str(r#"{"protocol":1,"worker":"0198c0de-0000-7000-8000-000000000001"}"#)
                .unwrap();
        assert!(orders.held.is_empty());
        let line: OrdersLine = serde_json::from_str(
            r#"{"over":{"task":"0198c0de-0000-7000-8000-000000000002","attempt":2,"verdict":"lost"}}"#,
        )
        .unwrap();
        assert_eq!((line.over.unwrap().attempt, line.drain), (2, None));
        assert_eq!(
            serde_json::to_string(&OrdersLine::default()).unwrap(),
            "{}",
            "keeps the connection alive"
        );
    }
}
