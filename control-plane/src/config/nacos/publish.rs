//! One version onto the server: contents and record first, then the documents, the manifest last.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::claim::Claim;
use super::client::{Client, NacosError};
use super::{GROUP, MANIFEST, MOST_BYTES, VERSIONS, content_id, version_id};
use crate::config::versions::decode;
use crate::config::{Change, Edit, Etag, PutError, Version, VersionsError};

/// Documents that are written between two looks at the claim.
const LOOK_EVERY: usize = 8;
/// Times that a publication is begun anew because somebody else's came between.
const ATTEMPTS: u32 = 5;

fn failed(error: NacosError) -> PutError {
    PutError::Failed { source: error.into() }
}

/// The present version, and the hash that a conditional write needs.
pub(super) async fn manifest(client: &Client) -> Result<Option<(Version, String)>, ManifestError> {
    let Some(read) = client.get(GROUP, MANIFEST).await.map_err(ManifestError::Nacos)? else {
        return Ok(None);
    };
    let version = decode(&format!("`{MANIFEST}`"), read.text.as_bytes()).map_err(ManifestError::Content)?;
    Ok(Some((version, read.md5)))
}

/// The manifest cannot be had.
pub(super) enum ManifestError {
    Nacos(NacosError),
    Content(VersionsError),
}

impl std::fmt::Display for ManifestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ManifestError::Nacos(error) => error.fmt(f),
            ManifestError::Content(error) => error.fmt(f),
        }
    }
}

impl From<ManifestError> for PutError {
    fn from(error: ManifestError) -> PutError {
        match error {
            ManifestError::Nacos(error) => failed(error),
            ManifestError::Content(error) => error.into(),
        }
    }
}

/// The text of a content; Nacos has texts only.
fn text(edit: &Edit) -> Result<Option<&str>, PutError> {
    let Some(bytes) = &edit.bytes else {
        return Ok(None);
    };
    if bytes.len() > MOST_BYTES {
        return Err(PutError::TooLarge {
            document: edit.name.clone(),
            bytes: bytes.len(),
            most: MOST_BYTES,
        });
    }
    let text = std::str::from_utf8(bytes).ok().filter(|t| !t.trim().is_empty());
    text.map(Some).ok_or_else(|| PutError::Failed {
        source: std::io::Error::other(format!("`{}` is no text, or an empty one", edit.name)),
    })
}

/// Keeps the contents of a change before anybody can look for them.
async fn keep_contents(client: &Client, change: &Change) -> Result<(), PutError> {
    for edit in &change.edits {
        if let Some(text) = text(edit)? {
            let id = content_id(&Etag::of(text.as_bytes()));
            if client.get(VERSIONS, &id).await.map_err(failed)?.is_none() {
                client.put(VERSIONS, &id, text, None).await.map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// What is there of the documents that a change touches, if it is what the writer knew.
async fn checked(client: &Client, change: &Change) -> Result<BTreeMap<String, Option<Etag>>, PutError> {
    let mut there = BTreeMap::new();
    for edit in &change.edits {
        let found = client.get(GROUP, &edit.name).await.map_err(failed)?;
        let present = found.map(|read| Etag::of(read.text.as_bytes()));
        if !edit.expected.holds(present.as_ref()) {
            let document = edit.name.clone();
            return Err(PutError::Changed { document, present });
        }
        there.insert(edit.name.clone(), present);
    }
    Ok(there)
}

/// Publishes a change as the version after the present one.
pub(super) async fn publish(client: &Arc<Client>, owner: &str, change: &Change) -> Result<Version, PutError> {
    keep_contents(client, change).await?;
    let target = |edit: &Edit| edit.bytes.as_deref().map(Etag::of);
    let intent = || change.edits.iter().map(|e| (e.name.clone(), target(e)));
    for _ in 1..ATTEMPTS {
        let claim = Claim::take(client, owner, intent().collect()).await?;
        let published = claimed(client, &claim, change).await;
        claim.release(client).await;
        if !matches!(published, Err(PutError::Busy)) {
            return published;
        }
    }
    Err(PutError::Busy)
}

async fn claimed(client: &Client, claim: &Claim, change: &Change) -> Result<Version, PutError> {
    let before = manifest(client).await?;
    let there = checked(client, change).await?;
    let present = before.as_ref().map(|(version, _)| version);
    let mut documents = present.map(|v| v.documents.clone()).unwrap_or_default();
    for edit in &change.edits {
        match &edit.bytes {
            Some(bytes) => documents.insert(edit.name.clone(), Etag::of(bytes)),
            None => documents.remove(&edit.name),
        };
    }
    if let Some(present) = present.filter(|p| p.documents == documents) {
        write_documents(client, claim, change, &there).await?;
        return Ok(present.clone());
    }
    let version = Version::after(present, &change.author, &change.message, documents);
    let record = serde_json::to_string_pretty(&version).map_err(std::io::Error::other)?;
    let id = version_id(version.number);
    client.put(VERSIONS, &id, &record, None).await.map_err(failed)?;
    write_documents(client, claim, change, &there).await?;
    if !claim.stands(client).await.map_err(failed)? {
        return Err(PutError::Busy);
    }
    let md5 = before.as_ref().map(|(_, md5)| md5.as_str());
    let written = client.put(GROUP, MANIFEST, &record, md5).await;
    // Whatever the server said: what stands there counts.
    match manifest(client).await? {
        Some((now, _)) if now.nonce == version.nonce => Ok(version),
        _ => {
            written.map_err(failed)?;
            Err(PutError::Busy)
        }
    }
}

async fn write_documents(
    client: &Client,
    claim: &Claim,
    change: &Change,
    there: &BTreeMap<String, Option<Etag>>,
) -> Result<(), PutError> {
    let mut written: usize = 0;
    for edit in &change.edits {
        let present = there.get(&edit.name).and_then(Option::as_ref);
        let target = edit.bytes.as_deref().map(Etag::of);
        if present == target.as_ref() {
            continue;
        }
        // It was looked at a moment ago; long publications look again.
        if written % LOOK_EVERY == LOOK_EVERY - 1 && !claim.stands(client).await.map_err(failed)? {
            return Err(PutError::Busy);
        }
        written += 1;
        match text(edit)? {
            Some(text) => client.put(GROUP, &edit.name, text, None).await,
            None => client.remove(GROUP, &edit.name).await,
        }
        .map_err(failed)?;
    }
    Ok(())
}
