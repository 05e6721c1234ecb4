//! Objects of one bucket below one prefix: put, read, list, remove, each with patience.
//!
//! The one place that speaks to S3 about single objects (`multipart.rs` about those that are put together, `listing.rs`
//! about many). Keys are relative to
//! the prefix, so that what the ledger says stays true when the objects move to another bucket.

use super::{
    config::{S3Config, S3Credentials},
    patience::{Fault, Patience, Patient, fault, unbuilt},
    pieces::Sendable,
};
use crate::{ContentKind, StoreError};
use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
        StalledStreamProtectionConfig, retry::RetryConfig, timeout::TimeoutConfig,
    },
    primitives::{ByteStream as SdkStream, SdkBody},
    types::{ChecksumMode, Delete, ObjectIdentifier},
};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use std::{
    ops::Range,
    time::{Duration, SystemTime},
};

/// A machine that does not even shake hands in this time is asked again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// S3's bound for one request that removes objects.
const MOST_REMOVED_AT_ONCE: usize = 1_000;

#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    pub(crate) client: Client,
    pub(crate) name: String,
    pub(crate) prefix: String,
    pub(crate) patience: Patient,
}

/// An object that is there.
pub(crate) struct Found {
    pub(crate) byte_len: u64,
    pub(crate) modified: Option<SystemTime>,
    /// Strong, with its quotes.
    pub(crate) etag: Option<String>,
    pub(crate) body: Option<SdkStream>,
}

impl Bucket {
    fn new(config: &S3Config, credentials: S3Credentials, patience: Patience) -> Self {
        let S3Credentials { access_key_id, secret_access_key, session_token } = credentials;
        let http = aws_smithy_http_client::Builder::new();
        // The system's certificates are looked at only when they are needed.
        let http = match &config.endpoint {
            Some(endpoint) if endpoint.starts_with("http://") => http.build_http(),
            _ => http.tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https(),
        };
        let mut settings = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .region(Region::new(config.region.clone()))
            .credentials_provider(Credentials::new(
                access_key_id,
                secret_access_key,
                session_token,
                None,
                "reelyard",
            ))
            .force_path_style(config.path_style)
            // `patience.rs` repeats, and it knows what may be repeated.
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // Checksums are told by hand: computed while the bytes come in, not once more while they go out.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if let Some(endpoint) = &config.endpoint {
            settings = settings.endpoint_url(endpoint);
        }
        Self {
            client: Client::from_conf(settings.build()),
            name: config.bucket.clone(),
            prefix: config.prefix.clone(),
            patience: Patient::new(patience),
        }
    }

    /// Fails when there is no such bucket or it may not be written to; that it does not answer now is only told.
    pub(crate) async fn open(
        config: &S3Config,
        credentials: S3Credentials,
        patience: Patience,
    ) -> Result<Self, StoreError> {
        let bucket = Self::new(config, credentials, patience);
        match bucket.check().await {
            // It may come back, and much can be done without it; each request learns for itself.
            Err(error @ StoreError::Unavailable { .. }) => {
                tracing::warn!(%error, "S3 does not answer now; what needs it waits for it");
            }
            checked => checked?,
        }
        Ok(bucket)
    }

    /// As S3 knows it.
    pub(crate) fn full_key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// As errors name it.
    pub(crate) fn place(&self, key: &str) -> String {
        format!("s3://{}/{}{key}", self.name, self.prefix)
    }

    /// The bucket is there and may be written to; or an error for the person who configured it.
    async fn check(&self) -> Result<(), StoreError> {
        let doing = format!("looking at the bucket {}", self.name);
        let head = || async {
            let answer = self.client.head_bucket().bucket(&self.name).send().await;
            answer.map(|_| ()).map_err(|error| fault(&doing, error))
        };
        let there = self.patience.keep_trying(&doing, 0, head).await?;
        there.ok_or_else(|| StoreError::NotFound {
            what: format!("the bucket {}: make it first, or correct its name", self.name),
        })?;
        let key = format!("probe-{}", random_name()?);
        self.put(&key, &Bytes::from_static(b"reelyard was here").into()).await?;
        self.remove(vec![key]).await
    }

    /// May be sent twice: the same bytes under the same key. S3 compares the bytes with their checksum.
    pub(crate) async fn put(&self, key: &str, bytes: &Sendable) -> Result<(), StoreError> {
        let doing = format!("storing {}", self.place(key));
        let done =
            self.patience.keep_trying(&doing, bytes.byte_len, || self.put_once(&doing, key, bytes)).await?;
        done.ok_or_else(|| self.missing())
    }

    /// What "not found" means where something was to be put.
    pub(crate) fn missing(&self) -> StoreError {
        StoreError::NotFound { what: format!("the bucket {}", self.name) }
    }

    pub(crate) async fn put_once(&self, doing: &str, key: &str, bytes: &Sendable) -> Result<(), Fault> {
        let body = SdkStream::new(SdkBody::from_body_1_x(bytes.body()));
        self.send_once(doing, key, bytes.byte_len, bytes.crc32c, body).await
    }

    /// S3 compares the bytes with their checksum, and tells whoever reads the object what it is by its name.
    pub(crate) async fn send_once(
        &self,
        doing: &str,
        key: &str,
        byte_len: u64,
        crc32c: u32,
        body: SdkStream,
    ) -> Result<(), Fault> {
        let kind = ContentKind::of(key);
        let request = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(self.full_key(key))
            .set_content_type(kind.map(|kind| kind.media_type.to_owned()))
            .set_cache_control(kind.map(|kind| kind.cache_control(kind.max_age_seconds)))
            .content_length(byte_len as i64)
            .checksum_crc32_c(BASE64_STANDARD.encode(crc32c.to_be_bytes()))
            .body(body);
        request.send().await.map(|_| ()).map_err(|error| fault(doing, error))
    }

    /// What is told of an object, with its bytes still to come if they are wanted; `None` when there is none.
    pub(crate) async fn find(&self, key: &str, with_bytes: bool) -> Result<Option<Found>, StoreError> {
        let doing = format!("reading {}", self.place(key));
        let find = || async {
            let (byte_len, modified, etag, body) = if with_bytes {
                let request = self.client.get_object().bucket(&self.name).key(self.full_key(key));
                let answer = request.send().await.map_err(|error| fault(&doing, error))?;
                (answer.content_length, answer.last_modified, answer.e_tag, Some(answer.body))
            } else {
                let request = self.client.head_object().bucket(&self.name).key(self.full_key(key));
                let answer = request.send().await.map_err(|error| fault(&doing, error))?;
                (answer.content_length, answer.last_modified, answer.e_tag, None)
            };
            let byte_len = byte_len.and_then(|byte_len| u64::try_from(byte_len).ok());
            let byte_len =
                byte_len.ok_or_else(|| Fault::Passing("S3 does not tell its length".to_owned()))?;
            let modified = modified.and_then(|modified| SystemTime::try_from(modified).ok());
            Ok(Found { byte_len, modified, etag: etag.filter(|etag| is_strong(etag)), body })
        };
        self.patience.keep_trying(&doing, 0, find).await
    }

    /// In bytes; `None` when there is no such object.
    pub(crate) async fn len(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let doing = format!("looking at {}", self.place(key));
        let head = || async {
            let answer = self.client.head_object().bucket(&self.name).key(self.full_key(key)).send().await;
            answer.map_err(|error| fault(&doing, error))
        };
        let answer = self.patience.keep_trying(&doing, 0, head).await?;
        Ok(answer.and_then(|answer| answer.content_length()).map(|byte_len| byte_len as u64))
    }

    /// All of an object that is known to have `byte_len` bytes; `None` when it is not there.
    pub(crate) async fn read_whole(&self, key: &str, byte_len: u64) -> Result<Option<Sendable>, StoreError> {
        let doing = format!("reading {}", self.place(key));
        let get = || async {
            let request = self.client.get_object().bucket(&self.name).key(self.full_key(key));
            // The whole object comes with the checksum it was stored with; the client compares.
            let answer = request.checksum_mode(ChecksumMode::Enabled).send().await;
            let answer = answer.map_err(|error| fault(&doing, error))?;
            let pieces = answer.body.collect().await.map_err(|error| Fault::Passing(error.to_string()))?;
            let bytes = Sendable::from(pieces.into_bytes());
            if bytes.byte_len == byte_len {
                return Ok(bytes);
            }
            Err(Fault::Passing(format!("{} bytes came of {byte_len}", bytes.byte_len)))
        };
        self.patience.keep_trying(&doing, byte_len, get).await
    }

    /// The answer to a request for a range, its bytes still to come; `None` when there is no such object.
    pub(crate) async fn begin_read(
        &self,
        key: &str,
        range: Range<u64>,
        etag: Option<&str>,
    ) -> Result<Option<SdkStream>, StoreError> {
        let doing = format!("reading {}", self.place(key));
        self.patience.keep_trying(&doing, 0, || self.read_once(&doing, key, range.clone(), etag)).await
    }

    pub(crate) async fn read_once(
        &self,
        doing: &str,
        key: &str,
        range: Range<u64>,
        etag: Option<&str>,
    ) -> Result<SdkStream, Fault> {
        let byte_len = range.end - range.start;
        let range = format!("bytes={}-{}", range.start, range.end - 1);
        let request = self.client.get_object().bucket(&self.name).key(self.full_key(key)).range(range);
        let answer = request
            .set_if_match(etag.map(str::to_owned))
            .send()
            .await
            .map_err(|error| fault(doing, error))?;
        match answer.content_length() {
            Some(told) if told as u64 == byte_len => Ok(answer.body),
            told => Err(Fault::Passing(format!("S3 sends {told:?} bytes where {byte_len} were asked for"))),
        }
    }

    /// That there is none is fine.
    pub(crate) async fn remove(&self, keys: Vec<String>) -> Result<(), StoreError> {
        for some in keys.chunks(MOST_REMOVED_AT_ONCE) {
            match some {
                [key] => self.remove_one(key).await?,
                some => self.remove_some(some).await?,
            }
        }
        Ok(())
    }

    async fn remove_one(&self, key: &str) -> Result<(), StoreError> {
        let doing = format!("removing {}", self.place(key));
        let delete = || async {
            let answer = self.client.delete_object().bucket(&self.name).key(self.full_key(key)).send().await;
            answer.map(|_| ()).map_err(|error| fault(&doing, error))
        };
        self.patience.keep_trying(&doing, 0, delete).await.map(|_| ())
    }

    async fn remove_some(&self, keys: &[String]) -> Result<(), StoreError> {
        let doing = format!("removing {} objects below {}", keys.len(), self.place(""));
        let delete = || async {
            let objects = keys.iter().map(|key| ObjectIdentifier::builder().key(self.full_key(key)).build());
            let objects = objects.collect::<Result<Vec<_>, _>>().map_err(|error| unbuilt(&doing, error))?;
            let delete = Delete::builder().quiet(true).set_objects(Some(objects)).build();
            let delete = delete.map_err(|error| unbuilt(&doing, error))?;
            let answer = self.client.delete_objects().bucket(&self.name).delete(delete).send().await;
            let answer = answer.map_err(|error| fault(&doing, error))?;
            match answer.errors().iter().find(|error| error.code() != Some("NoSuchKey")) {
                None => Ok(()),
                Some(error) => Err(Fault::Passing(error.message().unwrap_or("it says no more").to_owned())),
            }
        };
        self.patience.keep_trying(&doing, 0, delete).await.map(|_| ())
    }
}

fn is_strong(etag: &str) -> bool {
    let inner = etag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.is_some_and(|inner| {
        !inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"')
    })
}

/// 128 bits: no two objects ever get the same name, whoever makes them.
pub(crate) fn random_name() -> Result<String, StoreError> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(|error| StoreError::Io {
        doing: "asking the system for random bytes".to_owned(),
        source: std::io::Error::other(error),
    })?;
    Ok(hex::encode(random))
}
