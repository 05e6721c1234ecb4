//! Language codes: files carry ISO 639-2 (`ger`, `deu`, `und`), HLS and DASH want BCP 47 (RFC 5646), whose rule is
//! the shortest code there is (section 2.2.1), so `de`.

/// ISO 639-1, ISO 639-2 (both forms where there are two), and the name shown in a player's menu.
/// Codes that are not here pass through as they are: three letters are valid BCP 47.
const LANGUAGES: &[(&str, &[&str], &str)] = &[
    ("ar", &["ara"], "Arabic"),
    ("bg", &["bul"], "Bulgarian"),
    ("bn", &["ben"], "Bengali"),
    ("ca", &["cat"], "Catalan"),
    ("cs", &["ces", "cze"], "Czech"),
    ("da", &["dan"], "Danish"),
    ("de", &["deu", "ger"], "German"),
    ("el", &["ell", "gre"], "Greek"),
    ("en", &["eng"], "English"),
    ("es", &["spa"], "Spanish"),
    ("et", &["est"], "Estonian"),
    ("eu", &["eus", "baq"], "Basque"),
    ("fa", &["fas", "per"], "Persian"),
    ("fi", &["fin"], "Finnish"),
    ("fr", &["fra", "fre"], "French"),
    ("he", &["heb"], "Hebrew"),
    ("hi", &["hin"], "Hindi"),
    ("hr", &["hrv"], "Croatian"),
    ("hu", &["hun"], "Hungarian"),
    ("id", &["ind"], "Indonesian"),
    ("is", &["isl", "ice"], "Icelandic"),
    ("it", &["ita"], "Italian"),
    ("ja", &["jpn"], "Japanese"),
    ("ko", &["kor"], "Korean"),
    ("lt", &["lit"], "Lithuanian"),
    ("lv", &["lav"], "Latvian"),
    ("ms", &["msa", "may"], "Malay"),
    ("nl", &["nld", "dut"], "Dutch"),
    ("no", &["nor"], "Norwegian"),
    ("pl", &["pol"], "Polish"),
    ("pt", &["por"], "Portuguese"),
    ("ro", &["ron", "rum"], "Romanian"),
    ("ru", &["rus"], "Russian"),
    ("sk", &["slk", "slo"], "Slovak"),
    ("sl", &["slv"], "Slovenian"),
    ("sr", &["srp"], "Serbian"),
    ("sv", &["swe"], "Swedish"),
    ("ta", &["tam"], "Tamil"),
    ("th", &["tha"], "Thai"),
    ("tr", &["tur"], "Turkish"),
    ("uk", &["ukr"], "Ukrainian"),
    ("ur", &["urd"], "Urdu"),
    ("vi", &["vie"], "Vietnamese"),
    ("zh", &["zho", "chi"], "Chinese"),
];
/// Subtags of BCP 47 have at most eight characters; longer chains than this are nothing a file would say.
const MAX_TAG_BYTES: usize = 35;
const MAX_SUBTAG_BYTES: usize = 8;

/// The tag for a playlist, or `None` when the source does not say (`und`) or says something that is no tag.
pub(crate) fn tag(source: Option<&str>) -> Option<String> {
    let source = source?.trim().to_ascii_lowercase().replace('_', "-");
    let well_formed = source.len() <= MAX_TAG_BYTES
        && source.split('-').all(|subtag| {
            (1..=MAX_SUBTAG_BYTES).contains(&subtag.len())
                && subtag.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
    let primary = source.split('-').next().unwrap_or_default();
    let is_language =
        (2..=3).contains(&primary.len()) && primary.bytes().all(|byte| byte.is_ascii_alphabetic());
    // Undetermined, no linguistic content, several, uncoded: none of them helps a player choose.
    if !well_formed || !is_language || ["und", "zxx", "mul", "mis"].contains(&primary) {
        return None;
    }
    let shortest = LANGUAGES.iter().find(|(_, long, _)| long.contains(&primary)).map(|(short, _, _)| *short);
    Some(match shortest {
        Some(short) => format!("{short}{}", &source[primary.len()..]),
        None => source,
    })
}

/// What a menu calls the sound track.
pub(crate) fn display_name(tag: Option<&str>) -> String {
    let Some(tag) = tag else { return "Sound".to_owned() };
    let primary = tag.split('-').next().unwrap_or_default();
    match LANGUAGES.iter().find(|(short, _, _)| *short == primary) {
        Some((_, _, name)) => (*name).to_owned(),
        None => tag.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{display_name, tag};

    #[test]
    fn the_shortest_tag_or_none() {
        let table = [
            (Some("eng"), Some("en"), "English"),
            (Some("ger"), Some("de"), "German"),
            (Some("DEU"), Some("de"), "German"),
            (Some("por-BR"), Some("pt-br"), "Portuguese"),
            (Some("gsw"), Some("gsw"), "gsw"),
            (Some("und"), None, "Sound"),
            (Some("e\"n"), None, "Sound"),
            (Some("1234"), None, "Sound"),
            (Some(""), None, "Sound"),
            (None, None, "Sound"),
        ];
        for (source, expected, name) in table {
            let found = tag(source);
            assert_eq!(found.as_deref(), expected, "{source:?}");
            assert_eq!(display_name(found.as_deref()), name);
        }
    }
}
