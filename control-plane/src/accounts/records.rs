//! Where accounts and what belongs to them are kept: small records by key, each with a version for compare-and-swap.

/// A kind of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Accounts, by name.
    Accounts,
    /// Custom roles, by name.
    Roles,
    /// Sessions, by the digest of their secret.
    Sessions,
    /// API tokens, by id.
    Tokens,
    /// Failed logins, by whom or from where.
    Throttles,
    /// Changes that are published later, by id.
    Schedules,
    /// Sign-ins at an identity provider that have begun, by the digest of their state.
    SignIns,
}

impl Table {
    /// Its name in the store.
    pub const fn name(self) -> &'static str {
        match self {
            Table::Accounts => "accounts",
            Table::Roles => "roles",
            Table::Sessions => "sessions",
            Table::Tokens => "tokens",
            Table::Throttles => "throttles",
            Table::Schedules => "schedules",
            Table::SignIns => "sign_ins",
        }
    }
}

/// A record as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: String,
    /// Grows with every change of the record.
    pub version: u64,
    /// JSON.
    pub value: Vec<u8>,
    /// From this time on it is absent, Unix milliseconds.
    pub expires_ms: Option<u64>,
}

/// What a writer expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Absent,
    /// This version.
    Version(u64),
    /// Whatever there is.
    Anything,
}

/// The store failed; worth another try.
#[derive(Debug)]
pub struct RecordsError {
    /// What was being done.
    pub action: &'static str,
    /// Why it failed.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl std::fmt::Display for RecordsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {}: {}", self.action, self.source)
    }
}
impl std::error::Error for RecordsError {}

/// A store of records. Calls may block; a record that has expired is absent for all of them.
pub trait Records: Send + Sync {
    /// The record of that key.
    ///
    /// # Errors
    /// If the store fails.
    fn get(&self, table: Table, key: &str, now_ms: u64) -> Result<Option<Record>, RecordsError>;

    /// All records, ordered by key.
    ///
    /// # Errors
    /// If the store fails.
    fn list(&self, table: Table, now_ms: u64) -> Result<Vec<Record>, RecordsError>;

    /// Writes a record if what is there is as expected; its new version, or `None` if it is not. Atomic.
    ///
    /// # Errors
    /// If the store fails.
    fn put(
        &self,
        table: Table,
        record: &Record,
        expected: Expected,
        now_ms: u64,
    ) -> Result<Option<u64>, RecordsError>;

    /// Removes a record; whether it was there.
    ///
    /// # Errors
    /// If the store fails.
    fn remove(&self, table: Table, key: &str) -> Result<bool, RecordsError>;

    /// Forgets what has expired.
    ///
    /// # Errors
    /// If the store fails.
    fn prune(&self, now_ms: u64) -> Result<(), RecordsError>;
}

/// What every store must do, as a test.
#[cfg(test)]
pub(crate) fn conformance(store: &dyn Records) {
    let record = |key: &str, value: &str, expires_ms| Record {
        key: key.into(),
        version: 0,
        value: value.as_bytes().to_vec(),
        expires_ms,
    };
    let put = |r: &Record, expected, now| {
        store
            .put(Table::Accounts, r, expected, now)
            .expect("the store works")
    };
    let get = |key: &str, now| {
        store
            .get(Table::Accounts, key, now)
            .expect("the store works")
            .map(|r| (r.version, String::from_utf8(r.value).expect("text")))
    };
    assert_eq!(get("a", 0), None);
    let first = put(&record("a", "1", None), Expected::Absent, 0).expect("nothing was there");
    assert_eq!(put(&record("a", "2", None), Expected::Absent, 0), None);
    assert_eq!(
        put(&record("a", "2", None), Expected::Version(first + 7), 0),
        None
    );
    assert_eq!(get("a", 0), Some((first, "1".into())));
    let second = put(&record("a", "2", None), Expected::Version(first), 0).expect("the version was right");
    assert!(second > first);
    assert_eq!(put(&record("a", "3", None), Expected::Version(first), 0), None);
    assert!(put(&record("a", "3", None), Expected::Anything, 0).is_some());
    assert_eq!(
        store.get(Table::Roles, "a", 0).expect("the store works"),
        None,
        "tables are apart"
    );

    // What has expired is absent for every call, and a new record may take its place.
    put(&record("b", "x", Some(100)), Expected::Absent, 0);
    assert!(get("b", 99).is_some() && get("b", 100).is_none());
    let keys = |now| -> Vec<String> {
        let all = store.list(Table::Accounts, now).expect("the store works");
        all.into_iter().map(|r| r.key).collect()
    };
    assert_eq!(keys(99), ["a", "b"]);
    assert_eq!(keys(100), ["a"]);
    assert_eq!(put(&record("b", "y", None), Expected::Version(1), 100), None);
    assert!(put(&record("b", "y", Some(200)), Expected::Absent, 100).is_some());
    store.prune(300).expect("the store works");
    assert_eq!(keys(0), ["a"]);
    assert!(store.remove(Table::Accounts, "a").expect("the store works"));
    assert!(!store.remove(Table::Accounts, "a").expect("the store works"));

    // A key that comes back does not come back as a version that somebody may still know.
    let again = put(&record("a", "1", None), Expected::Absent, 0).expect("nothing was there");
    assert!(again > second, "{again} after {second}");
}
