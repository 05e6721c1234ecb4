//! A ticket and its form on the wire: JSON with a version.
//!
//! The trace context is not in it: it travels in the message's headers, where tracing tools look for it.

use reelyard_model::{TaskId, Tier, work::TaskKind};
use serde::{Deserialize, Serialize};

/// Of the form below. Readers take any version whose fields they find, so a newer one may add but not rename.
const VERSION: u32 = 1;

/// There may be work of this class and tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// For logs: the task that became ready. Whoever wakes up takes what is best now, which may be another one.
    pub task: Option<TaskId>,
    pub class: TaskKind,
    pub tier: Tier,
    /// W3C trace context of what made the task ready; empty when there is none.
    pub traceparent: String,
}

#[derive(Serialize, Deserialize)]
struct Body {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<TaskId>,
    class: TaskKind,
    tier: Tier,
}

/// This is no ticket that we can read. It still woke somebody up: its queue says of which class and tier it was.
#[derive(Debug, thiserror::Error)]
#[error("a ticket cannot be read: {0}")]
pub struct Unreadable(#[from] serde_json::Error);

impl Ticket {
    pub fn to_json(&self) -> Vec<u8> {
        let body = Body { version: VERSION, task: self.task, class: self.class, tier: self.tier };
        // Cannot fail: no maps, no numbers that JSON does not know.
        serde_json::to_vec(&body).unwrap_or_default()
    }

    /// `traceparent` comes beside it.
    pub fn from_json(bytes: &[u8], traceparent: String) -> Result<Self, Unreadable> {
        let Body { version: _, task, class, tier } = serde_json::from_slice(bytes)?;
        Ok(Self { task, class, tier, traceparent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = "01900000-0000-7000-8000-000000000001";

    #[test]
    fn the_first_version_stays_readable() {
        let wire = format!(r#"{{"version":1,"task":"{TASK}","class":"encode","tier":"bulk"}}"#);
        let ticket = Ticket {
            task: Some(TASK.parse().unwrap()),
            class: TaskKind::Encode,
            tier: Tier::Bulk,
            traceparent: "00-1-2-01".to_owned(),
        };
        assert_eq!(Ticket::from_json(wire.as_bytes(), "00-1-2-01".to_owned()).unwrap(), ticket);
        assert_eq!(String::from_utf8(ticket.to_json()).unwrap(), wire);
    }

    #[test]
    fn a_later_version_that_adds_something_is_read_as_well() {
        let wire = r#"{"version":2,"class":"audio","tier":"urgent","colour":"blue"}"#;
        let ticket = Ticket::from_json(wire.as_bytes(), String::new()).unwrap();
        assert_eq!((ticket.task, ticket.class, ticket.tier), (None, TaskKind::Audio, Tier::Urgent));
    }

    #[test]
    fn what_is_no_ticket_is_an_error() {
        for wire in ["", "[]", "{}", r#"{"version":1,"class":"sing","tier":"bulk"}"#] {
            assert!(Ticket::from_json(wire.as_bytes(), String::new()).is_err(), "{wire}");
        }
    }
}
