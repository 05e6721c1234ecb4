//! What lies below a prefix, page by page: S3 lists a thousand keys at a time.

use super::{bucket::Bucket, patience::fault};
use crate::{ObjectEntry, StoreError};

/// What one request for a listing brought.
pub(super) struct Page {
    /// Without the names of directories, which some servers list as empty objects.
    pub(super) objects: Vec<ObjectEntry>,
    /// What looks like a directory directly below the prefix; only where a delimiter was given.
    directories: Vec<String>,
    /// Where the next page begins, if there is one.
    pub(super) next: Option<String>,
}

impl Bucket {
    /// All keys that begin so.
    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let (mut found, mut next) = (Vec::new(), None);
        loop {
            let page = self.page(prefix, None, next).await?;
            found.extend(page.objects.into_iter().map(|object| object.key));
            next = page.next;
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    /// The names of what look like directories directly below `prefix`, which ends with a slash.
    pub(super) async fn list_directories(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let (mut found, mut next) = (Vec::new(), None);
        loop {
            let page = self.page(prefix, Some("/"), next).await?;
            found.extend(page.directories);
            next = page.next;
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    pub(super) async fn page(
        &self,
        prefix: &str,
        delimiter: Option<&str>,
        from: Option<String>,
    ) -> Result<Page, StoreError> {
        let doing = format!("listing {}", self.place(prefix));
        let full_prefix = self.full_key(prefix);
        let list = || async {
            let request = self.client.list_objects_v2().bucket(&self.name).prefix(&full_prefix);
            let request = request.set_delimiter(delimiter.map(str::to_owned));
            let answer = request.set_continuation_token(from.clone()).send().await;
            answer.map_err(|error| fault(&doing, error))
        };
        let Some(page) = self.patience.keep_trying(&doing, 0, list).await? else {
            return Ok(Page { objects: Vec::new(), directories: Vec::new(), next: None });
        };
        let inside = |key: &str| key.strip_prefix(self.prefix.as_str()).map(str::to_owned);
        let objects = page.contents().iter().filter_map(|object| {
            let key = inside(object.key()?).filter(|key| !key.ends_with('/'))?;
            Some(ObjectEntry { key, byte_len: object.size().unwrap_or_default().max(0) as u64 })
        });
        let directories = page.common_prefixes().iter().filter_map(|directory| inside(directory.prefix()?));
        let next = page.next_continuation_token().map(str::to_owned);
        Ok(Page {
            objects: objects.collect(),
            directories: directories.collect(),
            next: next.filter(|_| page.is_truncated() == Some(true)),
        })
    }
}
