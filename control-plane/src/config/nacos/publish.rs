//! One version onto the server: contents and record first, then the documents, the manifest last.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::claim::Claim;
use super::client::{Client, NacosError};
use super::{GROUP, MANIFEST, MOST_BYTES, VERSIONS, content_id, version_id};
use crate::config::nacos::PublicationGuard;
use crate::config::versions::decode;
use crate::config::{Change, Edit, Etag, PutError, Version, VersionsError};

/// Documents that are written at a time, and between two looks at the claim.
const AT_ONCE: usize = 8;
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

/// Does something with all documents, some at a time.
async fn with_each<T, F>(edits: Vec<T>, work: impl Fn(T) -> F) -> Result<(), PutError>
where
    F: Future<Output = Result<(), NacosError>> + Send + 'static,
{
    let mut edits = edits.into_iter().peekable();
    while edits.peek().is_some() {
        let mut working: JoinSet<Result<(), NacosError>> = edits.by_ref().take(AT_ONCE).map(&work).collect();
        while let Some(done) = working.join_next().await {
            let done = done.map_err(|e| NacosError::Failed(e.to_string()));
            done.and_then(|d| d).map_err(failed)?;
        }
    }
    Ok(())
}

/// Keeps the contents of a change before anybody can look for them. One that is there already is written again: that
/// costs no more than asking.
async fn keep_contents(client: &Arc<Client>, change: &Change) -> Result<(), PutError> {
    let mut contents = Vec::new();
    for edit in &change.edits {
        if let Some(text) = text(edit)? {
            contents.push((content_id(&Etag::of(text.as_bytes())), text.to_owned()));
        }
    }
    with_each(contents, |(id, text)| {
        let client = Arc::clone(client);
        async move { client.put(VERSIONS, &id, &text, None).await }
    })
    .await
}

/// What is there before a publication.
struct Before {
    manifest: Option<(Version, String)>,
    /// The documents that the change touches.
    documents: BTreeMap<String, Option<Etag>>,
}

/// What is there, if it is what the writer knew.
async fn checked(client: &Client, change: &Change) -> Result<Before, PutError> {
    let manifest = manifest(client).await?;
    let mut documents = BTreeMap::new();
    for edit in &change.edits {
        let found = client.get(GROUP, &edit.name).await.map_err(failed)?;
        let present = found.map(|read| Etag::of(read.text.as_bytes()));
        if !edit.expected.holds(present.as_ref()) {
            let document = edit.name.clone();
            return Err(PutError::Changed { document, present });
        }
        documents.insert(edit.name.clone(), present);
    }
    Ok(Before { manifest, documents })
}

/// Publishes a change as the version after the present one.
pub(super) async fn publish(
    client: &Arc<Client>,
    owner: &str,
    change: &Arc<Change>,
    held: Option<&dyn PublicationGuard>,
) -> Result<Version, PutError> {
    let target = |edit: &Edit| edit.bytes.as_deref().map(Etag::of);
    let intent = || change.edits.iter().map(|e| (e.name.clone(), target(e)));
    for _ in 1..ATTEMPTS {
        let prepare = || {
            let (client, change) = (Arc::clone(client), Arc::clone(change));
            async move { tokio::try_join!(checked(&client, &change), keep_contents(&client, &change)) }
        };
        let (claim, prepared) = Claim::take(client, owner, intent().collect(), prepare).await?;
        let published = match prepared {
            Ok((before, ())) => claimed(client, &claim, before, change, held).await,
            Err(error) => Err(error),
        };
        claim.release(client).await;
        if !matches!(published, Err(PutError::Busy)) {
            return published;
        }
    }
    Err(PutError::Busy)
}

/// Whether the lock in front of the claim is still ours, if there is one.
async fn may_write(held: Option<&dyn PublicationGuard>) -> bool {
    match held {
        Some(held) => held.holds().await,
        None => true,
    }
}

async fn claimed(
    client: &Arc<Client>,
    claim: &Claim,
    before: Before,
    change: &Change,
    held: Option<&dyn PublicationGuard>,
) -> Result<Version, PutError> {
    let present = before.manifest.as_ref().map(|(version, _)| version);
    let mut documents = present.map(|v| v.documents.clone()).unwrap_or_default();
    for edit in &change.edits {
        match &edit.bytes {
            Some(bytes) => documents.insert(edit.name.clone(), Etag::of(bytes)),
            None => documents.remove(&edit.name),
        };
    }
    if !may_write(held).await {
        return Err(PutError::Busy);
    }
    if let Some(present) = present.filter(|p| p.documents == documents) {
        write_documents(client, claim, change, &before.documents).await?;
        return Ok(present.clone());
    }
    let version = Version::after(present, &change.author, &change.message, documents);
    let record = serde_json::to_string_pretty(&version).map_err(std::io::Error::other)?;
    let id = version_id(version.number);
    let recorded = async { client.put(VERSIONS, &id, &record, None).await.map_err(failed) };
    tokio::try_join!(
        recorded,
        write_documents(client, claim, change, &before.documents)
    )?;
    if !claim.stands(client).await.map_err(failed)? || !may_write(held).await {
        return Err(PutError::Busy);
    }
    let md5 = before.manifest.as_ref().map(|(_, md5)| md5.as_str());
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
    client: &Arc<Client>,
    claim: &Claim,
    change: &Change,
    there: &BTreeMap<String, Option<Etag>>,
) -> Result<(), PutError> {
    let differs = |edit: &&Edit| {
        let target = edit.bytes.as_deref().map(Etag::of);
        there.get(&edit.name).and_then(Option::as_ref) != target.as_ref()
    };
    let edits: Vec<&Edit> = change.edits.iter().filter(differs).collect();
    for (turn, some) in edits.chunks(AT_ONCE).enumerate() {
        // The claim was looked at a moment ago; long publications look again.
        if turn > 0 && !claim.stands(client).await.map_err(failed)? {
            return Err(PutError::Busy);
        }
        let mut writes = Vec::new();
        for edit in some {
            writes.push((edit.name.clone(), text(edit)?.map(str::to_owned)));
        }
        with_each(writes, |(name, text)| {
            let client = Arc::clone(client);
            async move {
                match text {
                    Some(text) => client.put(GROUP, &name, &text, None).await,
                    None => client.remove(GROUP, &name).await,
                }
            }
        })
        .await?;
    }
    Ok(())
}
