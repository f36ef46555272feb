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
    /// Books of alerts, by who answers for them, and what people say of alerts.
    Alerts,
}

impl Table {
    /// All of them.
    pub const ALL: [Table; 7] = [
        Table::Accounts,
        Table::Roles,
        Table::Sessions,
        Table::Tokens,
        Table::Throttles,
        Table::Schedules,
        Table::Alerts,
    ];

    /// Those that an instance keeps a copy of when they lie elsewhere.
    pub const KEPT: [Table; 6] = [
        Table::Accounts,
        Table::Roles,
        Table::Sessions,
        Table::Tokens,
        Table::Schedules,
        Table::Alerts,
    ];

    /// Whether its records are of the moment, so that nothing is lost with them but a login.
    pub const fn is_momentary(self) -> bool {
        matches!(self, Table::Sessions | Table::Throttles)
    }

    /// Whether an instance writes into its copy while the others cannot be reached.
    pub const fn is_written_alone(self) -> bool {
        self.is_momentary() || matches!(self, Table::Alerts)
    }

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
            Table::Alerts => "alerts",
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
