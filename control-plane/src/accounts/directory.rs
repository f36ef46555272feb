//! Everything that can be done with accounts. Calls may block: hashing a password takes milliseconds, a store may be
//! elsewhere.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::account::{self, Account, AccountChange, AccountView, NewAccount, Wrong};
use super::records::{Expected, Record, Records, RecordsError, Table};
use super::roles;
use super::tokens::Token;
use super::{Hasher, Principal, generated};

/// Why something was not done.
#[derive(Debug)]
pub enum AccountsError {
    /// The store failed; worth another try.
    Store(RecordsError),
    /// What was sent is wrong: fields and reasons.
    Invalid(Vec<Fault>),
    /// There is none of that name.
    NotFound(&'static str),
    /// The name is taken.
    Exists,
    /// It was changed meanwhile.
    Changed,
    /// Somebody must be left who may do everything.
    LastAdmin,
    /// It cannot be changed.
    BuiltIn,
    /// It is still used.
    Used(String),
    /// Name or password is wrong, or the account is disabled. Which, nobody is told.
    Refused,
    /// Too many failures; the next try not before so many milliseconds.
    Throttled(u64),
}

/// A field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its path.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl From<RecordsError> for AccountsError {
    fn from(error: RecordsError) -> Self {
        AccountsError::Store(error)
    }
}

pub(super) fn invalid(faults: Vec<Wrong>) -> AccountsError {
    AccountsError::Invalid(
        faults
            .into_iter()
            .map(|(field, reason)| Fault { field, reason })
            .collect(),
    )
}

/// A login that succeeded.
#[derive(Debug)]
pub struct SignedIn {
    /// The session's secret: the cookie's value.
    pub secret: String,
    /// Who it is.
    pub principal: Principal,
}

/// The accounts.
#[derive(Clone)]
pub struct Accounts {
    pub(super) records: Arc<dyn Records>,
    pub(super) hasher: Arc<Hasher>,
    clock: fn() -> u64,
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn decode<T: DeserializeOwned>(record: &Record) -> Result<T, RecordsError> {
    serde_json::from_slice(&record.value).map_err(|source| RecordsError {
        action: "read an account's record",
        source: source.into(),
    })
}

impl Accounts {
    /// The accounts in a store.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn new(records: Arc<dyn Records>) -> Result<Accounts, RecordsError> {
        Ok(Accounts {
            records,
            hasher: Arc::new(Hasher::new()?),
            clock: unix_ms,
        })
    }

    /// The same with another clock, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: fn() -> u64) -> Accounts {
        self.clock = clock;
        self
    }

    /// The store that accounts are in; what else the instances share may stand beside them.
    pub fn records(&self) -> Arc<dyn Records> {
        Arc::clone(&self.records)
    }

    pub(super) fn now(&self) -> u64 {
        (self.clock)()
    }

    pub(super) fn get<T: DeserializeOwned>(
        &self,
        table: Table,
        key: &str,
    ) -> Result<Option<(T, u64)>, RecordsError> {
        match self.records.get(table, key, self.now())? {
            Some(record) => Ok(Some((decode(&record)?, record.version))),
            None => Ok(None),
        }
    }

    pub(super) fn put<T: Serialize>(
        &self,
        table: Table,
        key: &str,
        value: &T,
        expires_ms: Option<u64>,
        expected: Expected,
    ) -> Result<Option<u64>, RecordsError> {
        let value = serde_json::to_vec(value).map_err(|source| RecordsError {
            action: "write an account's record",
            source: source.into(),
        })?;
        let record = Record {
            key: key.to_owned(),
            version: 0,
            value,
            expires_ms,
        };
        self.records.put(table, &record, expected, self.now())
    }

    pub(super) fn all<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<(T, u64)>, RecordsError> {
        let records = self.records.list(table, self.now())?;
        records.iter().map(|r| Ok((decode(r)?, r.version))).collect()
    }

    /// Makes the account `admin` with a password that is made up, if there is no account at all; the password.
    ///
    /// # Errors
    /// If the store fails.
    pub fn first_run(&self) -> Result<Option<String>, AccountsError> {
        if !self.records.list(Table::Accounts, self.now())?.is_empty() {
            return Ok(None);
        }
        let wanted = NewAccount {
            name: "admin".into(),
            roles: vec!["admin".into()],
            ..NewAccount::default()
        };
        match self.create(wanted) {
            Ok((_, password)) => Ok(password),
            // Another instance was first.
            Err(AccountsError::Exists) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All accounts.
    ///
    /// # Errors
    /// If the store fails.
    pub fn list(&self) -> Result<Vec<AccountView>, AccountsError> {
        let all = self.all::<Account>(Table::Accounts)?;
        Ok(all
            .iter()
            .map(|(account, version)| account.view(*version))
            .collect())
    }

    pub(super) fn account(&self, name: &str) -> Result<(Account, u64), AccountsError> {
        self.get(Table::Accounts, &name.to_ascii_lowercase())?
            .ok_or(AccountsError::NotFound("account"))
    }

    /// One account.
    ///
    /// # Errors
    /// If there is none of that name, or the store fails.
    pub fn one(&self, name: &str) -> Result<AccountView, AccountsError> {
        let (account, version) = self.account(name)?;
        Ok(account.view(version))
    }

    /// Makes an account; with its password, if that was made up.
    ///
    /// # Errors
    /// See [`AccountsError`].
    pub fn create(&self, wanted: NewAccount) -> Result<(AccountView, Option<String>), AccountsError> {
        let mut faults = Vec::new();
        let name = account::name(&wanted.name).unwrap_or_else(|wrong| {
            faults.push(wrong);
            String::new()
        });
        let channels = wanted.channels.unwrap_or_else(|| vec!["*".into()]);
        let chosen = wanted.password.as_deref().map(|p| (p, name.as_str()));
        faults.extend(account::faults(
            Some(&wanted.display_name),
            Some(&channels),
            chosen,
        ));
        faults.extend(self.role_faults(&wanted.roles)?);
        if !faults.is_empty() {
            return Err(invalid(faults));
        }
        let made_up = match &wanted.password {
            Some(_) => None,
            None => Some(generated()?),
        };
        let password = wanted.password.as_ref().or(made_up.as_ref());
        let now = self.now();
        let account = Account {
            password: password.map(|p| self.hasher.hash(p)).transpose()?,
            subject: None,
            name,
            display_name: wanted.display_name,
            roles: wanted.roles,
            channels,
            enabled: wanted.enabled.unwrap_or(true),
            must_change_password: true,
            epoch: 0,
            created_at_ms: now,
            changed_at_ms: now,
            last_login_ms: None,
        };
        match self.put(Table::Accounts, &account.name, &account, None, Expected::Absent)? {
            Some(version) => Ok((account.view(version), made_up)),
            None => Err(AccountsError::Exists),
        }
    }

    fn role_faults(&self, wanted: &[String]) -> Result<Vec<Wrong>, RecordsError> {
        let custom = self.records.list(Table::Roles, self.now())?;
        let exists = |name: &str| roles::built_in(name).is_some() || custom.iter().any(|r| r.key == name);
        Ok(account::role_faults(wanted, exists))
    }

    /// Changes an account: `change` edits it, `expected` is the version that the caller knew.
    pub(super) fn edit(
        &self,
        name: &str,
        expected: Option<&str>,
        change: impl Fn(&mut Account),
    ) -> Result<AccountView, AccountsError> {
        loop {
            let (before, version) = self.account(name)?;
            if expected.is_some_and(|known| known != version.to_string()) {
                return Err(AccountsError::Changed);
            }
            let mut account = before.clone();
            change(&mut account);
            if before.is_admin() && !account.is_admin() {
                self.keep_an_admin(&before.name)?;
            }
            if account != before {
                account.changed_at_ms = self.now();
            }
            let put = self.put(
                Table::Accounts,
                &account.name,
                &account,
                None,
                Expected::Version(version),
            )?;
            if let Some(version) = put {
                return Ok(account.view(version));
            }
        }
    }

    fn keep_an_admin(&self, but: &str) -> Result<(), AccountsError> {
        let others = self.all::<Account>(Table::Accounts)?;
        if others.iter().any(|(a, _)| a.name != but && a.is_admin()) {
            Ok(())
        } else {
            Err(AccountsError::LastAdmin)
        }
    }

    /// Changes an account.
    ///
    /// # Errors
    /// See [`AccountsError`].
    pub fn change(
        &self,
        name: &str,
        expected: Option<&str>,
        wanted: &AccountChange,
    ) -> Result<AccountView, AccountsError> {
        let mut faults = account::faults(wanted.display_name.as_deref(), wanted.channels.as_deref(), None);
        if let Some(roles) = &wanted.roles {
            faults.extend(self.role_faults(roles)?);
        }
        if !faults.is_empty() {
            return Err(invalid(faults));
        }
        self.edit(name, expected, |account| {
            if let Some(text) = &wanted.display_name {
                account.display_name.clone_from(text);
            }
            if let Some(roles) = &wanted.roles {
                account.roles.clone_from(roles);
            }
            if let Some(channels) = &wanted.channels {
                account.channels.clone_from(channels);
            }
            account.enabled = wanted.enabled.unwrap_or(account.enabled);
        })
    }

    /// Removes an account with its tokens.
    ///
    /// # Errors
    /// See [`AccountsError`].
    pub fn remove(&self, name: &str) -> Result<(), AccountsError> {
        let (account, _) = self.account(name)?;
        if account.is_admin() {
            self.keep_an_admin(&account.name)?;
        }
        for (token, _) in self.all::<Token>(Table::Tokens)? {
            if token.account == account.name {
                self.records.remove(Table::Tokens, &token.id)?;
            }
        }
        self.records.remove(Table::Accounts, &account.name)?;
        Ok(())
    }

    /// Gives an account another password and ends its sessions; the password, if it was made up.
    ///
    /// # Errors
    /// See [`AccountsError`].
    pub fn reset_password(&self, name: &str, chosen: Option<&str>) -> Result<Option<String>, AccountsError> {
        let (account, _) = self.account(name)?;
        let faults = account::faults(None, None, chosen.map(|p| (p, account.name.as_str())));
        if !faults.is_empty() {
            return Err(invalid(faults));
        }
        let made_up = if chosen.is_some() {
            None
        } else {
            Some(generated()?)
        };
        let hash = self
            .hasher
            .hash(chosen.or(made_up.as_deref()).unwrap_or_default())?;
        self.edit(name, None, |account| {
            account.password = Some(hash.clone());
            account.must_change_password = true;
            account.epoch += 1;
        })?;
        Ok(made_up)
    }

    /// Ends all sessions of an account.
    ///
    /// # Errors
    /// See [`AccountsError`].
    pub fn end_sessions(&self, name: &str) -> Result<(), AccountsError> {
        self.edit(name, None, |account| account.epoch += 1).map(drop)
    }
}
