//! The options of `serve` that say how much one caller may have at a time. What they mean for a request is in
//! `http/limits`; what a single tenant may beyond or below them is set with `reelyard tenants`.

use crate::http::limits::{self, Limits, Settings};

#[derive(clap::Args)]
pub(super) struct LimitArgs {
    /// Requests a second of one tenant, four seconds' worth at once
    #[arg(long, value_name = "N", env = "REELYARD_REQUESTS_PER_SECOND", default_value_t = limits::DEFAULT_REQUESTS_PER_SECOND, value_parser = clap::value_parser!(u32).range(1..))]
    requests_per_second: u32,
    /// Uploads that one tenant may begin in a second, twenty seconds' worth at once
    #[arg(long, value_name = "N", env = "REELYARD_CREATIONS_PER_SECOND", default_value_t = limits::DEFAULT_CREATIONS_PER_SECOND, value_parser = clap::value_parser!(u32).range(1..))]
    creations_per_second: u32,
    /// Bodies of uploads that are received at a time; the next ones wait in line
    #[arg(long, value_name = "N", env = "REELYARD_MAX_TRANSFERS", default_value_t = limits::DEFAULT_MAX_TRANSFERS, value_parser = clap::value_parser!(u32).range(1..))]
    max_transfers: u32,
    /// The same for one tenant [default: three quarters of them]
    #[arg(long, value_name = "N", env = "REELYARD_MAX_TRANSFERS_PER_TENANT", value_parser = clap::value_parser!(u32).range(1..))]
    max_transfers_per_tenant: Option<u32>,
    /// Uploads that one tenant may have begun and not ended, unless `reelyard tenants set-quota` says otherwise
    #[arg(long, value_name = "N", env = "REELYARD_MAX_OPEN_UPLOADS_PER_TENANT", default_value_t = limits::DEFAULT_OPEN_UPLOADS, value_parser = clap::value_parser!(u32).range(1..))]
    max_open_uploads_per_tenant: u32,
    /// How long a body waits in line before its sender is told to come back
    #[arg(long, value_name = "SECONDS", env = "REELYARD_TRANSFER_WAIT_SECONDS", default_value_t = limits::DEFAULT_TRANSFER_WAIT_SECONDS)]
    transfer_wait_seconds: u32,
    /// Bytes a second that the sender of a body has to keep up on average; 0: any speed will do
    #[arg(long, value_name = "BYTES", env = "REELYARD_MIN_UPLOAD_SPEED", default_value_t = limits::DEFAULT_MIN_BYTES_PER_SECOND)]
    min_upload_speed: u32,
    /// A sender that is silent for so long is cut off; what came is kept
    #[arg(long, value_name = "SECONDS", env = "REELYARD_UPLOAD_IDLE_SECONDS", default_value_t = limits::DEFAULT_IDLE_SECONDS, value_parser = clap::value_parser!(u32).range(1..))]
    upload_idle_seconds: u32,
    /// Longest that the body of one request may take; uploads go on in the next
    #[arg(long, value_name = "SECONDS", env = "REELYARD_MAX_BODY_SECONDS", default_value_t = limits::DEFAULT_MAX_BODY_SECONDS, value_parser = clap::value_parser!(u32).range(1..))]
    max_body_seconds: u32,
}

impl LimitArgs {
    pub(super) fn limits(&self) -> Limits {
        Limits::new(Settings {
            requests_per_second: self.requests_per_second,
            creations_per_second: self.creations_per_second,
            max_transfers: self.max_transfers,
            max_transfers_per_tenant: self.max_transfers_per_tenant,
            max_open_uploads_per_tenant: self.max_open_uploads_per_tenant,
            transfer_wait_seconds: self.transfer_wait_seconds,
            min_bytes_per_second: self.min_upload_speed,
            idle_seconds: self.upload_idle_seconds,
            max_body_seconds: self.max_body_seconds,
        })
    }
}
