//! A strict reader over TOML tables that knows the line of everything.
//!
//! `serde` could fill the structs, but its errors name neither the path of a key nor the key that was meant. Each
//! [`Section`] is opened with the keys it may have, and an unknown one is reported first: a misspelled key would
//! otherwise be called missing.

use super::PresetError;
use std::ops::RangeInclusive;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A suggestion further away than this is a guess, not a help.
const MAX_SUGGESTION_DISTANCE: usize = 3;

/// The file being read, for error messages.
#[derive(Clone, Copy)]
pub(super) struct SourceText<'text> {
    pub(super) file: &'text str,
    pub(super) text: &'text str,
}

impl<'text> SourceText<'text> {
    pub(super) fn error(self, offset: usize, key: &str, problem: impl Into<String>) -> PresetError {
        let before = self.text.get(..offset.min(self.text.len())).unwrap_or_default();
        PresetError {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            key: key.to_owned(),
            problem: problem.into(),
        }
    }

    /// The whole file as a section without a name.
    pub(super) fn open(self, known: &[&str]) -> Result<Section<'text>, PresetError> {
        let table = DeTable::parse(self.text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            self.error(offset, "", format!("this is not valid TOML: {}", error.message().trim()))
        })?;
        Section::open(self, String::new(), 0, table.into_inner(), known)
    }
}

/// A table with a known set of keys.
pub(super) struct Section<'text> {
    source: SourceText<'text>,
    path: String,
    offset: usize,
    table: DeTable<'text>,
}

impl<'text> Section<'text> {
    fn open(
        source: SourceText<'text>,
        path: String,
        offset: usize,
        table: DeTable<'text>,
        known: &[&str],
    ) -> Result<Self, PresetError> {
        let section = Self { source, path, offset, table };
        let first_unknown = section
            .table
            .keys()
            .filter(|key| !known.contains(&key.get_ref().as_ref()))
            .min_by_key(|key| key.span().start);
        if let Some(key) = first_unknown {
            let name = key.get_ref().as_ref();
            let problem = match nearest(name, known) {
                Some(meant) => format!("unknown key; did you mean `{meant}`?"),
                None => format!("unknown key; known here: {}", known.join(", ")),
            };
            return Err(source.error(key.span().start, &section.path_of(name), problem));
        }
        Ok(section)
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// An error about a key of this section, at its value if it is there.
    pub(super) fn error(&self, key: &str, problem: impl Into<String>) -> PresetError {
        let offset = self.table.get(key).map_or(self.offset, |value| value.span().start);
        self.source.error(offset, &self.path_of(key), problem)
    }

    fn value(&self, key: &str) -> Result<&Spanned<DeValue<'text>>, PresetError> {
        self.table.get(key).ok_or_else(|| {
            let place = if self.path.is_empty() { "the file".to_owned() } else { format!("`{}`", self.path) };
            self.error(key, format!("missing; {place} needs it"))
        })
    }

    fn wrong_type(&self, key: &str, wanted: &str, found: &DeValue<'_>) -> PresetError {
        self.error(key, format!("must be {wanted}, not a value of type {}", found.type_str()))
    }

    pub(super) fn text(&self, key: &str, longest: usize) -> Result<String, PresetError> {
        let value = self.value(key)?.get_ref();
        let text = value.as_str().ok_or_else(|| self.wrong_type(key, "a text in quotes", value))?;
        if text.is_empty() || text.chars().count() > longest || text.chars().any(char::is_control) {
            return Err(self.error(key, format!("must be one line of 1 to {longest} characters")));
        }
        Ok(text.to_owned())
    }

    pub(super) fn choice(&self, key: &str, allowed: &[&str]) -> Result<String, PresetError> {
        let value = self.value(key)?.get_ref();
        let text = value.as_str().ok_or_else(|| self.wrong_type(key, "a text in quotes", value))?;
        if allowed.contains(&text) {
            return Ok(text.to_owned());
        }
        let meant = nearest(text, allowed).map(|meant| format!("; did you mean \"{meant}\"?"));
        let problem = format!("\"{text}\" is not one of {}{}", allowed.join(", "), meant.unwrap_or_default());
        Err(self.error(key, problem))
    }

    pub(super) fn integer(&self, key: &str, range: RangeInclusive<u32>) -> Result<u32, PresetError> {
        let value = self.value(key)?.get_ref();
        let integer = value.as_integer().ok_or_else(|| self.wrong_type(key, "a whole number", value))?;
        let out_of_range = || {
            self.error(
                key,
                format!("{} is out of range: {} to {}", integer.as_str(), range.start(), range.end()),
            )
        };
        i64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| range.contains(number))
            .ok_or_else(out_of_range)
    }

    /// A number with or without a fraction.
    pub(super) fn number(&self, key: &str, range: RangeInclusive<f32>) -> Result<f32, PresetError> {
        let value = self.value(key)?.get_ref();
        let text = match value {
            DeValue::Integer(integer) => integer.as_str(),
            DeValue::Float(float) => float.as_str(),
            other => return Err(self.wrong_type(key, "a number", other)),
        };
        text.parse::<f32>().ok().filter(|number| range.contains(number)).ok_or_else(|| {
            self.error(key, format!("{text} is out of range: {} to {}", range.start(), range.end()))
        })
    }

    /// Takes a table out of this one.
    pub(super) fn section(&mut self, key: &str, known: &[&str]) -> Result<Section<'text>, PresetError> {
        let path = self.path_of(key);
        let offset = self.value(key)?.span().start;
        match self.table.remove(key).map(Spanned::into_inner) {
            Some(DeValue::Table(table)) => Section::open(self.source, path, offset, table, known),
            Some(other) => Err(self.source.error(
                offset,
                &path,
                format!("must be a table `[{path}]`, not a value of type {}", other.type_str()),
            )),
            None => Err(self.error(key, "missing")),
        }
    }

    /// Takes a list of tables out of this one.
    pub(super) fn sections(
        &mut self,
        key: &str,
        count: RangeInclusive<usize>,
        known: &[&str],
    ) -> Result<Vec<Section<'text>>, PresetError> {
        let path = self.path_of(key);
        let offset = self.value(key)?.span().start;
        let wrong = |problem: String| self.source.error(offset, &path, problem);
        let must_be = format!("must be tables `[[{path}]]`");
        let Some(DeValue::Array(list)) = self.table.remove(key).map(Spanned::into_inner) else {
            return Err(wrong(must_be));
        };
        if !count.contains(&list.len()) {
            let (fewest, most) = (count.start(), count.end());
            return Err(wrong(format!("there are {} of them, not {fewest} to {most}", list.len())));
        }
        list.into_iter()
            .enumerate()
            .map(|(index, entry)| {
                let offset = entry.span().start;
                let path = format!("{path}[{index}]");
                match entry.into_inner() {
                    DeValue::Table(table) => Section::open(self.source, path, offset, table, known),
                    _ => Err(self.source.error(offset, &path, must_be.clone())),
                }
            })
            .collect()
    }
}

/// The known word that was most likely meant.
fn nearest<'known>(word: &str, known: &[&'known str]) -> Option<&'known str> {
    known
        .iter()
        .map(|candidate| (edit_distance(word, candidate), *candidate))
        .filter(|(distance, candidate)| {
            *distance <= MAX_SUGGESTION_DISTANCE && *distance * 2 <= candidate.chars().count()
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's: insertions, deletions and replacements.
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (from_index, from_char) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = from_index + 1;
        for (to_index, to_char) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(from_char != *to_char);
            diagonal = row[to_index + 1];
            row[to_index + 1] = replaced.min(diagonal + 1).min(row[to_index] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::{edit_distance, nearest};

    #[test]
    fn distances_are_levenshteins() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("crf", "crf"), 0);
    }

    #[test]
    fn suggests_only_what_is_near() {
        assert_eq!(nearest("max_bitrate_kbps", &["crf", "max_bit_rate_kbps"]), Some("max_bit_rate_kbps"));
        assert_eq!(nearest("zzz", &["crf", "lines"]), None);
    }
}
