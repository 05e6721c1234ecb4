//! Where in S3 everything lies, read from one URL: `s3://bucket/prefix?endpoint=http://127.0.0.1:8333&region=us-east-1`.
//!
//! Pure: credentials come in as an argument, the environment is read by the caller. Errors are for the person who
//! wrote the URL.

use std::fmt;

/// What Amazon calls its first region; other makers mostly take any.
const DEFAULT_REGION: &str = "us-east-1";
/// S3's own bound for keys is 1,024 bytes; an upload's key needs 100 behind the prefix.
const MAX_PREFIX_BYTES: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Config {
    pub bucket: String,
    /// Before every key; empty, or ends with a slash.
    pub prefix: String,
    /// `None`: Amazon's own of the region.
    pub endpoint: Option<String>,
    pub region: String,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`: what most servers that are not Amazon's want.
    pub path_style: bool,
}

/// Who we are to S3. Its debug form shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Credentials {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Credentials({})", self.access_key_id)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{url:?} does not name a place in S3: {problem}. Wanted is s3://bucket/prefix?endpoint=https://host:port&region=name&path_style=true, where all behind the bucket may be left out"
)]
pub struct S3ConfigError {
    pub url: String,
    pub problem: String,
}

impl S3Config {
    pub fn parse(url: &str) -> Result<Self, S3ConfigError> {
        parse(url).map_err(|problem| S3ConfigError { url: url.to_owned(), problem })
    }
}

fn parse(url: &str) -> Result<S3Config, String> {
    let rest = url.strip_prefix("s3://").ok_or("it does not begin with s3://")?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let mut config = S3Config {
        bucket: read_bucket(bucket)?,
        prefix: read_prefix(prefix)?,
        endpoint: None,
        region: DEFAULT_REGION.to_owned(),
        path_style: false,
    };
    let mut path_style = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| format!("{pair:?} has no value"))?;
        let value = percent_decoded(value)?;
        match name {
            "endpoint" => config.endpoint = Some(read_endpoint(&value)?),
            "region" if is_name(&value) => config.region = value,
            "region" => return Err(format!("{value:?} is not a region")),
            "path_style" => path_style = Some(read_bool(&value)?),
            _ => return Err(format!("it knows endpoint, region and path_style, but not {name:?}")),
        }
    }
    // Names below an address of numbers, or below somebody's own server, seldom resolve.
    config.path_style = path_style.unwrap_or(config.endpoint.is_some());
    Ok(config)
}

/// Amazon's rules for new buckets; the makers of other servers keep to them.
fn read_bucket(bucket: &str) -> Result<String, String> {
    let good = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
        && bucket.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bucket.bytes().last().is_some_and(|b| b.is_ascii_alphanumeric());
    if good {
        return Ok(bucket.to_owned());
    }
    Err(format!("{bucket:?} is not a bucket (3 to 63 lower case letters, digits, dashes and dots)"))
}

fn read_prefix(prefix: &str) -> Result<String, String> {
    let prefix = prefix.trim_end_matches('/');
    if prefix.is_empty() {
        return Ok(String::new());
    }
    let good = prefix.len() <= MAX_PREFIX_BYTES
        && prefix.split('/').all(|part| is_name(part) && part != "." && part != "..");
    if good {
        return Ok(format!("{prefix}/"));
    }
    Err(format!("{prefix:?} is not a prefix (letters, digits, dashes, dots and underscores between slashes)"))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

fn read_endpoint(endpoint: &str) -> Result<String, String> {
    let uri: http::Uri =
        endpoint.parse().map_err(|error| format!("the endpoint {endpoint:?} is not a URL: {error}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err(format!("the endpoint {endpoint:?} is not http://host:port or https://host:port"));
    }
    Ok(endpoint.trim_end_matches('/').to_owned())
}

fn read_bool(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

fn percent_decoded(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} has a % without two hexadecimal digits behind it");
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = [bytes.next().ok_or_else(wrong)?, bytes.next().ok_or_else(wrong)?];
        let mut value = [0];
        hex::decode_to_slice(digits, &mut value).map_err(|_| wrong())?;
        decoded.push(value[0]);
    }
    String::from_utf8(decoded).map_err(|_| format!("{text:?} is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::{S3Config, S3Credentials};
    use proptest::prelude::proptest;

    #[test]
    fn a_url_names_bucket_prefix_endpoint_and_region() {
        let config = S3Config::parse(
            "s3://media/reelyard/eu?endpoint=http%3A%2F%2F127.0.0.1:8333/&region=eu-central-1&path_style=false",
        );
        let expected = S3Config {
            bucket: "media".to_owned(),
            prefix: "reelyard/eu/".to_owned(),
            endpoint: Some("http://127.0.0.1:8333".to_owned()),
            region: "eu-central-1".to_owned(),
            path_style: false,
        };
        assert_eq!(config, Ok(expected));
    }

    #[test]
    fn a_bucket_is_enough_and_an_own_server_is_asked_in_path_style() {
        let amazon = S3Config::parse("s3://media").unwrap();
        assert_eq!(
            (amazon.prefix.as_str(), amazon.region.as_str(), amazon.path_style),
            ("", "us-east-1", false)
        );
        assert!(S3Config::parse("s3://media/?endpoint=https://s3.example.org").unwrap().path_style);
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        for (url, problem) in [
            ("https://media", "s3://"),
            ("s3://", "bucket"),
            ("s3://Media", "bucket"),
            ("s3://media/a//b", "prefix"),
            ("s3://media/../b", "prefix"),
            ("s3://media?endpoint=127.0.0.1:8333", "endpoint"),
            ("s3://media?endpoint=ftp://host", "endpoint"),
            ("s3://media?path_style=yes", "neither true nor false"),
            ("s3://media?regoin=x", "regoin"),
            ("s3://media?region", "no value"),
            ("s3://media?region=%4", "hexadecimal"),
            ("s3://media?region=a%20b", "not a region"),
        ] {
            let error = S3Config::parse(url).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains("Wanted is s3://bucket"), "{url}: {error}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        let credentials = S3Credentials {
            access_key_id: "AKIA".to_owned(),
            secret_access_key: "hush".to_owned(),
            session_token: Some("hush".to_owned()),
        };
        assert_eq!(format!("{credentials:?}"), "S3Credentials(AKIA)");
    }

    proptest! {
        #[test]
        fn no_url_makes_it_fail_otherwise(url in "s3://[a-z.-]{0,5}(/|\\?|&|=|%|[a-z]|\\PC){0,40}") {
            if let Ok(config) = S3Config::parse(&url) {
                assert!(config.prefix.is_empty() || config.prefix.ends_with('/'));
            }
        }
    }
}
