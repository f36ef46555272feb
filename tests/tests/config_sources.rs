//! Whatever documents come from behaves alike: one suite, run against a folder and against Nacos.

use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tollgate::config::{
    Change, ConfigSource, Directory, DocumentSet, Edit, Etag, Expected, Nacos, NacosOptions, PutError,
    VersionFolder, edits_back_to, list_versions,
};
use tollgate_tests::nacos::Nacos as Server;
use tollgate_tests::wait::PATIENCE;

/// A place with documents, and a second process's view of it where there can be one.
struct Place {
    source: Arc<dyn ConfigSource>,
    dir: TempDir,
    server: Option<Server>,
}

fn options(server: &Server, instance: &str) -> NacosOptions {
    NacosOptions {
        servers: vec![server.address().to_string()],
        namespace: String::new(),
        account: None,
        instance: instance.to_owned(),
    }
}

async fn open(server: &Server, instance: &str, state: &TempDir) -> Arc<dyn ConfigSource> {
    let (options, state) = (options(server, instance), state.path().to_owned());
    let opened = tokio::task::spawn_blocking(move || Nacos::open(options, &state));
    Arc::new(opened.await.unwrap().unwrap())
}

async fn folder() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config");
    std::fs::create_dir(&config).unwrap();
    let versions = VersionFolder::open(&dir.path().join("versions")).unwrap();
    let source = Arc::new(Directory::open(&config, Some(versions), None).unwrap());
    Place {
        source,
        dir,
        server: None,
    }
}

async fn nacos() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let source = open(&server, "one", &dir).await;
    Place {
        source,
        dir,
        server: Some(server),
    }
}

impl Place {
    /// Writes a document at the source itself.
    async fn edit(&self, name: &str, text: &str) {
        match &self.server {
            Some(server) => server.put(name, text).await,
            None => std::fs::write(self.dir.path().join("config").join(name), text).unwrap(),
        }
    }

    async fn publish(&self, author: &str, edits: Vec<Edit>) -> Result<u64, PutError> {
        let source = Arc::clone(&self.source);
        let change = Change {
            author: author.into(),
            message: format!("by {author}"),
            edits,
        };
        let published = tokio::task::spawn_blocking(move || source.publish(&change));
        published.await.unwrap().map(|version| version.number)
    }

    async fn until(&self, what: &str, wanted: impl Fn(&DocumentSet) -> bool) -> Arc<DocumentSet> {
        let mut documents = self.source.documents();
        let found = tokio::time::timeout(PATIENCE, documents.wait_for(|set| wanted(set))).await;
        let found =
            found.unwrap_or_else(|_| panic!("waited for {what}: {:?}", self.source.documents().borrow()));
        Arc::clone(&found.unwrap())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn ConfigSource) -> T + Send + 'static,
    ) -> T {
        let source = Arc::clone(&self.source);
        tokio::task::spawn_blocking(move || work(&*source)).await.unwrap()
    }
}

fn edit(name: &str, text: Option<&str>, expected: Expected) -> Edit {
    Edit {
        name: name.into(),
        bytes: text.map(|t| t.as_bytes().into()),
        expected,
    }
}

fn text<'a>(set: &'a DocumentSet, name: &str) -> Option<&'a str> {
    set.get(name).map(|d| std::str::from_utf8(&d.bytes).unwrap())
}

const CHANNELS: &str = "tollgate.channels.json";
const MODELS: &str = "tollgate.models.json";
const SHARD: &str = "tollgate.channels.7.json";

async fn several_documents_become_one_version(place: Place) {
    let edits = vec![
        edit(CHANNELS, Some("{\"channels\": []}\n"), Expected::Absent),
        edit(SHARD, Some("{\"channels\":[]}"), Expected::Absent),
        edit(MODELS, Some("{\"models\": []}"), Expected::Absent),
    ];
    assert_eq!(place.publish("mia", edits).await.unwrap(), 1);
    let set = place.until("version 1", |set| set.version == Some(1)).await;
    assert_eq!(set.documents.len(), 3);
    assert_eq!(text(&set, CHANNELS), Some("{\"channels\": []}\n"));
    let head = place.blocking(|source| source.versions().unwrap().head()).await;
    let head = head.unwrap().unwrap();
    assert_eq!((head.author.as_str(), head.message.as_str()), ("mia", "by mia"));
    // The same again is no version.
    let again = vec![edit(MODELS, Some("{\"models\": []}"), Expected::Anything)];
    assert_eq!(place.publish("mia", again).await.unwrap(), 1);
    let gone = vec![edit(SHARD, None, Expected::Anything)];
    assert_eq!(place.publish("mia", gone).await.unwrap(), 2);
    let set = place.until("version 2", |set| set.version == Some(2)).await;
    assert_eq!((set.documents.len(), set.problems.len()), (2, 0));
}

async fn the_second_writer_of_a_version_is_refused_and_changes_nothing(place: Place) {
    let first = vec![edit(CHANNELS, Some("1"), Expected::Absent)];
    place.publish("mia", first).await.unwrap();
    let second = vec![
        edit(MODELS, Some("2"), Expected::Absent),
        edit(CHANNELS, Some("2"), Expected::Absent),
    ];
    match place.publish("ben", second).await {
        Err(PutError::Changed { document, present }) => {
            assert_eq!((document.as_str(), present), (CHANNELS, Some(Etag::of(b"1"))));
        }
        other => panic!("{other:?}"),
    }
    let wrong = vec![edit(CHANNELS, Some("2"), Expected::Exactly(Etag::of(b"0")))];
    assert!(matches!(
        place.publish("ben", wrong).await,
        Err(PutError::Changed { .. })
    ));
    let set = place.until("version 1", |set| set.version == Some(1)).await;
    assert_eq!((text(&set, CHANNELS), text(&set, MODELS)), (Some("1"), None));
    let right = vec![edit(CHANNELS, Some("2"), Expected::Exactly(Etag::of(b"1")))];
    assert_eq!(place.publish("ben", right).await.unwrap(), 2);
}

async fn an_edit_at_the_source_becomes_a_version_when_it_is_adopted(place: Place) {
    let first = vec![edit(CHANNELS, Some("1"), Expected::Absent)];
    place.publish("mia", first).await.unwrap();
    place.until("version 1", |set| set.version == Some(1)).await;
    place.edit(CHANNELS, "22").await;
    place.edit("tollgate.rules.json", "3").await;
    let set = place
        .until("both edits", |set| {
            text(set, CHANNELS) == Some("22") && text(set, "tollgate.rules.json") == Some("3")
        })
        .await;
    assert_eq!(set.version, None);
    place.blocking(move |source| source.adopt(&set)).await;
    let set = place.until("version 2", |set| set.version == Some(2)).await;
    assert_eq!(text(&set, CHANNELS), Some("22"));
    let versions = place
        .blocking(|source| list_versions(source.versions().unwrap(), None, 9))
        .await;
    let versions = versions.unwrap();
    assert_eq!(versions.len(), 2);
    assert_eq!(
        versions[0].changed(versions.get(1)),
        [CHANNELS, "tollgate.rules.json"]
    );
    assert!(versions[0].message.contains(CHANNELS), "{}", versions[0].message);
}

async fn every_version_can_be_brought_back_byte_for_byte(place: Place) {
    // Texts that a careless store would change.
    let texts = [
        "{ \"channels\" : [ ] }\n\n",
        "{\"channels\":[],\"\u{fc}\":\"\u{5fae}\\u00e9\\n\"}",
        "\t{}  ",
    ];
    for (number, content) in (1..).zip(texts) {
        let edits = vec![edit(CHANNELS, Some(content), Expected::Anything)];
        assert_eq!(place.publish("mia", edits).await.unwrap(), number);
    }
    let others = vec![
        edit(CHANNELS, None, Expected::Anything),
        edit(MODELS, Some("{}"), Expected::Absent),
    ];
    assert_eq!(place.publish("mia", others).await.unwrap(), 4);
    let mut present = place.until("version 4", |set| set.version == Some(4)).await;
    for (number, content) in (1..).zip(texts) {
        let set = Arc::clone(&present);
        let edits = place.blocking(move |source| {
            let versions = source.versions().unwrap();
            edits_back_to(versions, &set, &versions.version(number).unwrap()).unwrap()
        });
        let version = place.publish("mia", edits.await).await.unwrap();
        assert_eq!(version, 4 + number);
        present = place
            .until("the way back", |set| set.version == Some(version))
            .await;
        assert_eq!(
            (text(&present, CHANNELS), text(&present, MODELS)),
            (Some(content), None)
        );
    }
    let missing = place.blocking(|source| source.versions().unwrap().version(99).map(|_| ()));
    assert!(missing.await.is_err());
}

async fn what_was_in_force_is_known_after_a_restart(place: Place) {
    let first = vec![edit(CHANNELS, Some("1"), Expected::Absent)];
    place.publish("mia", first).await.unwrap();
    let set = place.until("version 1", |set| set.version == Some(1)).await;
    place.blocking(move |source| source.adopt(&set)).await;
    place.edit(CHANNELS, "wrong").await;
    place
        .until("the edit", |set| text(set, CHANNELS) == Some("wrong"))
        .await;
    let good = place.blocking(|source| source.last_good()).await.unwrap();
    assert_eq!((text(&good, CHANNELS), good.version), (Some("1"), Some(1)));
}

macro_rules! suite {
    ($($name:ident),+ $(,)?) => {
        mod in_a_folder {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::folder().await).await;
            })+
        }
        mod in_nacos {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::nacos().await).await;
            })+
        }
    };
}

suite!(
    several_documents_become_one_version,
    the_second_writer_of_a_version_is_refused_and_changes_nothing,
    an_edit_at_the_source_becomes_a_version_when_it_is_adopted,
    every_version_can_be_brought_back_byte_for_byte,
    what_was_in_force_is_known_after_a_restart,
);

#[tokio::test(flavor = "multi_thread")]
async fn of_writers_at_several_instances_one_wins_and_all_end_alike() {
    let server = Server::start().await;
    let states: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut places = Vec::new();
    for (name, dir) in ["one", "two", "three"].into_iter().zip(states) {
        let source = open(&server, name, &dir).await;
        places.push(Place {
            source,
            dir,
            server: None,
        });
    }
    // The server ignores conditions, so that only our own protocol is between them.
    for round in 0..5_u64 {
        let before = round.checked_sub(1).map(|r| Etag::of(r.to_string().as_bytes()));
        let claims = places.iter().map(|place| {
            let expected = Expected::exactly(before.as_ref());
            let content = round.to_string();
            // Only the first one's is what the next round expects; the losers' differ.
            let edits = vec![edit(CHANNELS, Some(&content), expected)];
            place.publish("mia", edits)
        });
        let mut outcomes = Vec::new();
        for done in futures_of(claims).await {
            outcomes.push(done);
        }
        let won = outcomes
            .iter()
            .filter(|o| matches!(o, Ok(n) if *n == round + 1))
            .count();
        let refused = outcomes
            .iter()
            .filter(|o| matches!(o, Err(PutError::Changed { .. })))
            .count();
        assert_eq!((won, refused), (1, 2), "{outcomes:?}");
        for place in &places {
            let set = place
                .until("the round", |set| set.version == Some(round + 1))
                .await;
            assert_eq!(text(&set, CHANNELS), Some(round.to_string().as_str()));
        }
    }
}

/// Runs futures at the same time.
async fn futures_of<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.map(|f| (Some(Box::pin(f)), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut running {
            if let Some(running) = future
                && let std::task::Poll::Ready(value) = running.as_mut().poll(context)
            {
                (*future, *output) = (None, Some(value));
            }
        }
        if running.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_in_nacos_is_said_and_not_taken_for_a_wish() {
    let place = nacos().await;
    let first = vec![edit(CHANNELS, Some("1"), Expected::Absent)];
    place.publish("mia", first).await.unwrap();
    place.until("version 1", |set| set.version == Some(1)).await;
    place.server.as_ref().unwrap().delete(CHANNELS).await;
    // A deletion is told by nobody: it is found when everything is looked at.
    let wait = tokio::time::timeout(Duration::from_secs(60), async {
        let mut documents = place.source.documents();
        let found = documents.wait_for(|set| !set.problems.is_empty()).await.unwrap();
        found.problems[0].clone()
    });
    let problem = wait.await.expect("the deletion is found");
    assert!(
        problem.is_error() && problem.reason.contains("deleted"),
        "{problem}"
    );
}
