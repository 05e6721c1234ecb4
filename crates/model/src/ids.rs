//! Identifiers: one newtype for each thing that has one, so that no two can be mixed up.
//!
//! Ids are UUIDv7 (RFC 9562 section 5.7), sortable by time of making. This crate is pure, so it does not make
//! them: callers at the edge do, and pass them to `from_uuid`.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.as_hyphenated())
            }
        }
        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

id! {
    /// Who owns uploads and assets. A single-machine server has one, [`TenantId::DEFAULT`].
    TenantId
}
id! {
    /// A resumable transfer in progress.
    UploadId
}
id! {
    /// One video: its source and all that was made of it.
    AssetId
}
id! {
    /// The unit of leased work.
    TaskId
}
id! {
    /// A node of the farm.
    WorkerId
}
id! {
    /// What viewers see in a URL. Not the asset id: it can be revoked without touching the asset.
    PlaybackId
}

impl TenantId {
    /// The tenant of a server that was not told of any other.
    pub const DEFAULT: Self = Self(Uuid::from_u128(1));
}
