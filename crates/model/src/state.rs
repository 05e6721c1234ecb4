//! What all state machines share: stored names, and the refusal. The machines themselves are one file each:
//! `upload_state`, `asset_state`, `task_state`, `publication_state`.

use std::fmt;

/// A move that the machine does not know. The caller asked too late, twice or out of turn; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} does not apply to something that is {state:?}")]
pub struct Refused {
    pub state: &'static str,
    pub event: &'static str,
}

impl Refused {
    pub(crate) fn new(state: impl Into<&'static str>, event: impl Into<&'static str>) -> Self {
        Self { state: state.into(), event: event.into() }
    }
}

/// A stored name that no version of this program has written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} {name:?}")]
pub struct UnknownName {
    pub what: &'static str,
    pub name: String,
}

impl UnknownName {
    pub fn new(what: &'static str, name: impl fmt::Display) -> Self {
        Self { what, name: name.to_string() }
    }
}

/// An enum without fields whose names are fixed in SQL and JSON.
macro_rules! state_names {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
        impl From<$name> for &'static str {
            fn from(value: $name) -> Self {
                value.as_str()
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl std::str::FromStr for $name {
            type Err = $crate::state::UnknownName;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err($crate::state::UnknownName::new(stringify!($name), text)),
                }
            }
        }
    };
}
pub(crate) use state_names;
