//! What can be bound to a parameter.

use reelyard_model::{AssetId, PlaybackId, TaskId, TenantId, UploadId, WorkerId};

/// An integer, text or bytes; `None` is NULL. A NULL has a type too: PostgreSQL prepares a statement for types.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Integer(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

/// What stands for one or more parameters.
#[derive(Clone, Debug)]
pub(crate) enum Bound {
    One(Value),
    /// Column by column, all of one length: on SQLite a parameter for each value, row by row; on PostgreSQL an array for
    /// each column.
    Rows(Vec<Vec<Value>>),
}

/// A column as PostgreSQL takes it. Of one kind, and neither of bytes nor without any value.
pub(crate) enum Array {
    Integers(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
}

impl Array {
    /// Values of another kind than the first are NULL: the texts of this crate have no such column.
    pub(crate) fn of(column: Vec<Value>) -> Self {
        if matches!(column.first(), Some(Value::Integer(_))) {
            let integer = |value| if let Value::Integer(value) = value { value } else { None };
            return Self::Integers(column.into_iter().map(integer).collect());
        }
        let text = |value| if let Value::Text(value) = value { value } else { None };
        Self::Texts(column.into_iter().map(text).collect())
    }
}

macro_rules! value_from {
    ($($variant:ident: $type:ty => |$value:ident| $convert:expr;)*) => {$(
        impl From<$type> for Value {
            fn from($value: $type) -> Self {
                Self::$variant(Some($convert))
            }
        }
        impl From<Option<$type>> for Value {
            fn from(value: Option<$type>) -> Self {
                Self::$variant(value.map(|$value: $type| $convert))
            }
        }
    )*};
}

value_from! {
    Integer: i64 => |value| value;
    Integer: i32 => |value| i64::from(value);
    Integer: u32 => |value| i64::from(value);
    // Lengths beyond 8 EiB saturate.
    Integer: u64 => |value| i64::try_from(value).unwrap_or(i64::MAX);
    Integer: bool => |value| i64::from(value);
    Text: String => |value| value;
    Text: &str => |value| value.to_owned();
    Text: &String => |value| value.clone();
    Text: TenantId => |value| value.to_string();
    Text: UploadId => |value| value.to_string();
    Text: AssetId => |value| value.to_string();
    Text: TaskId => |value| value.to_string();
    Text: WorkerId => |value| value.to_string();
    Text: PlaybackId => |value| value.to_string();
    Text: uuid::Uuid => |value| value.to_string();
    Bytes: Vec<u8> => |value| value;
    Bytes: &[u8] => |value| value.to_vec();
    Bytes: &Vec<u8> => |value| value.clone();
}

impl From<&Option<String>> for Value {
    fn from(value: &Option<String>) -> Self {
        Self::Text(value.clone())
    }
}
