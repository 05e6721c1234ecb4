//! Headers for the tests of all dialects. A name that stands there twice was sent twice.

use crate::fields::{Field, Fields};

pub(crate) struct Sent(pub(crate) Vec<(String, String)>);

impl Fields for Sent {
    fn field(&self, name: &str) -> Field<'_> {
        let mut values = self.0.iter().filter(|(key, _)| key == name);
        match (values.next(), values.next()) {
            (None, _) => Field::Absent,
            (Some((_, text)), None) => Field::Text(text),
            (Some(_), Some(_)) => Field::Repeated,
        }
    }
}

pub(crate) fn sent(headers: &[(&str, &str)]) -> Sent {
    Sent(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

pub(crate) fn sent_owned(headers: impl IntoIterator<Item = (&'static str, String)>) -> Sent {
    Sent(headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}
