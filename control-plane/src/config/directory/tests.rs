#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use super::super::Etag;
use super::*;
use std::os::unix::fs::PermissionsExt;

async fn until(source: &Directory, what: impl Fn(&DocumentSet) -> bool) {
    let mut documents = source.documents();
    tokio::time::timeout(Duration::from_secs(30), documents.wait_for(|set| what(set)))
        .await
        .expect("the folder's change was not seen")
        .unwrap();
}

fn open(dir: &Path, state: &Path) -> Directory {
    let versions = VersionFolder::open(&state.join("versions")).unwrap();
    Directory::open(dir, Some(versions), None).unwrap()
}

fn content<'a>(set: &'a DocumentSet, name: &str) -> Option<&'a [u8]> {
    set.get(name).map(|d| &*d.bytes)
}

#[tokio::test]
async fn every_change_of_the_folder_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    fs::write(file("channels.json"), "1").unwrap();
    fs::write(file(".hidden.json"), "x").unwrap();
    fs::write(file("readme.txt"), "x").unwrap();
    let source = Directory::watch(dir.path()).unwrap();
    let names = |set: &DocumentSet| set.documents.iter().map(|d| d.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&source.documents().borrow()), ["channels.json"]);
    // The same size, right after the first: only the content differs.
    for i in 0..5 {
        let text = format!("{i}");
        fs::write(file("channels.json"), &text).unwrap();
        until(&source, |set| {
            content(set, "channels.json") == Some(text.as_bytes())
        })
        .await;
    }
    fs::write(file("new"), "3").unwrap();
    fs::rename(file("new"), file("models.json")).unwrap();
    until(&source, |set| names(set) == ["channels.json", "models.json"]).await;
    fs::remove_file(file("channels.json")).unwrap();
    until(&source, |set| names(set) == ["models.json"]).await;
    fs::create_dir(file("other")).unwrap();
    fs::write(file("other/rules.json"), "4").unwrap();
    std::os::unix::fs::symlink(file("other/rules.json"), file("rules.json")).unwrap();
    until(&source, |set| content(set, "rules.json") == Some(b"4")).await;
    fs::remove_dir_all(dir.path()).unwrap();
    until(&source, |set| !set.problems.is_empty()).await;
    assert_eq!(
        names(&source.documents().borrow()).len(),
        2,
        "what was read stays"
    );
}

#[test]
fn a_document_is_replaced_only_if_it_is_the_version_that_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let state = tempfile::tempdir().unwrap();
    let path = dir.path().join("rules.json");
    let source = open(dir.path(), state.path());
    let put = |bytes: &[u8], expected: Option<&Etag>| source.put("rules.json", bytes, expected, "");
    put(b"1", None).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
    assert!(matches!(
        put(b"2", None),
        Err(PutError::Changed { present: Some(_), .. })
    ));
    put(b"2", Some(&Etag::of(b"1"))).unwrap();
    assert!(put(b"3", Some(&Etag::of(b"1"))).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"2");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o604);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_without_versions_is_for_reading_only() {
    let dir = tempfile::tempdir().unwrap();
    let source = Directory::watch(dir.path()).unwrap();
    let put = source.put("rules.json", b"1", None, "");
    assert!(matches!(put, Err(PutError::ReadOnly)));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_change_that_cannot_be_written_as_a_whole_is_not_written() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = open(dir.path(), state.path());
    source.put("a.json", b"1", None, "").unwrap();
    // A folder in the way of the second document.
    fs::create_dir(dir.path().join("b.json")).unwrap();
    fs::write(dir.path().join("b.json").join("x"), "").unwrap();
    let edit = |name: &str| super::super::version::Edit {
        name: name.into(),
        bytes: Some((*b"2").into()),
        expected: super::super::version::Expected::Anything,
    };
    let change = Change {
        author: "me".into(),
        message: String::new(),
        edits: vec![edit("a.json"), edit("b.json")],
    };
    assert!(matches!(source.publish(&change), Err(PutError::Failed { .. })));
    assert_eq!(fs::read(dir.path().join("a.json")).unwrap(), b"1");
    assert_eq!(source.versions().unwrap().head().unwrap().unwrap().number, 1);
}
