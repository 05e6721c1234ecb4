//! The worker agent: offer, lease, run the media child, keep its files, heartbeat, report.

pub mod control;
