//! Everything that can be done with accounts. Calls may block: hashing a password takes milliseconds, a store may be
//! elsewhere.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tollgate_policy::Span;

use super::account::{self, Account, AccountChange, AccountView, NewAccount, Wrong};
use super::records::{Expected, Record, Records, RecordsError, Table};
use super::roles::{self, Permissions, Role, Wanted};
use super::session::{self, Session};
use super::tokens::{self, NewToken, Token, TokenView};
use super::{Credentials, Hasher, Principal, Via, generated, random_text, throttle};

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

fn invalid(faults: Vec<Wrong>) -> AccountsError {
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
    records: Arc<dyn Records>,
    hasher: Arc<Hasher>,
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

    fn now(&self) -> u64 {
        (self.clock)()
    }

    fn get<T: DeserializeOwned>(&self, table: Table, key: &str) -> Result<Option<(T, u64)>, RecordsError> {
        match self.records.get(table, key, self.now())? {
            Some(record) => Ok(Some((decode(&record)?, record.version))),
            None => Ok(None),
        }
    }

    fn put<T: Serialize>(
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

    fn all<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<(T, u64)>, RecordsError> {
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

    fn account(&self, name: &str) -> Result<(Account, u64), AccountsError> {
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
    fn edit(
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

    /// Changes one's own password. Other sessions end; this one goes on.
    ///
    /// # Errors
    /// See [`AccountsError`].
    pub fn change_password(
        &self,
        who: &Principal,
        address: &str,
        current: &str,
        new: &str,
    ) -> Result<(), AccountsError> {
        let (account, _) = self.account(&who.name)?;
        self.check_password(&account.name, address, Some(&account), current)?;
        let mut faults = account::faults(None, None, Some((new, account.name.as_str())));
        for (field, _) in &mut faults {
            *field = "new".into();
        }
        if !faults.is_empty() {
            return Err(invalid(faults));
        }
        let hash = self.hasher.hash(new)?;
        self.edit(&account.name, None, |account| {
            account.password = Some(hash.clone());
            account.must_change_password = false;
            account.epoch += 1;
        })?;
        if let Via::Session { key, .. } = &who.via
            && let Some((mut session, _)) = self.get::<Session>(Table::Sessions, key)?
        {
            session.epoch = self.account(&account.name)?.0.epoch;
            let ends = session.ends_ms();
            self.put(Table::Sessions, key, &session, Some(ends), Expected::Anything)?;
        }
        Ok(())
    }

    /// Ends all sessions of an account.
    ///
    /// # Errors
    /// See [`AccountsError`].
    pub fn end_sessions(&self, name: &str) -> Result<(), AccountsError> {
        self.edit(name, None, |account| account.epoch += 1).map(drop)
    }

    fn check_password(
        &self,
        name: &str,
        address: &str,
        account: Option<&Account>,
        password: &str,
    ) -> Result<(), AccountsError> {
        let now = self.now();
        if let Err(until) = throttle::begin(&*self.records, name, address, now)? {
            return Err(AccountsError::Throttled(until.saturating_sub(now)));
        }
        let usable = account.filter(|a| a.enabled);
        if !self
            .hasher
            .verify(password, usable.and_then(|a| a.password.as_deref()))
        {
            return Err(AccountsError::Refused);
        }
        throttle::succeeded(&*self.records, name, address)?;
        Ok(())
    }

    /// Signs somebody in.
    ///
    /// # Errors
    /// See [`AccountsError`].
    pub fn sign_in(&self, name: &str, password: &str, address: &str) -> Result<SignedIn, AccountsError> {
        // A name that cannot exist is looked up, throttled and refused like any other.
        let name: String = name.to_ascii_lowercase().chars().take(64).collect();
        let found = self.get::<Account>(Table::Accounts, &name)?;
        self.check_password(&name, address, found.as_ref().map(|(a, _)| a), password)?;
        let Some((account, _)) = found else {
            return Err(AccountsError::Refused);
        };
        let secret = self.open_session(&account)?;
        let principal = self
            .identify(Credentials::Session(&secret))?
            .ok_or(AccountsError::Refused)?;
        Ok(SignedIn { secret, principal })
    }

    fn open_session(&self, account: &Account) -> Result<String, AccountsError> {
        let now = self.now();
        let secret = random_text(32)?;
        let session = Session {
            account: account.name.clone(),
            epoch: account.epoch,
            created_ms: now,
            used_ms: now,
        };
        let ends = session.ends_ms();
        self.put(
            Table::Sessions,
            &session::key(&secret),
            &session,
            Some(ends),
            Expected::Absent,
        )?;
        self.edit(&account.name, None, |a| a.last_login_ms = Some(now))?;
        self.records.prune(now)?;
        Ok(secret)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// If the store fails.
    pub fn sign_out(&self, key: &str) -> Result<(), AccountsError> {
        self.records.remove(Table::Sessions, key)?;
        Ok(())
    }

    /// Whose credentials these are; `None` if they are nobody's, or nobody's any more.
    ///
    /// # Errors
    /// If the store fails.
    pub fn identify(&self, credentials: Credentials<'_>) -> Result<Option<Principal>, AccountsError> {
        match credentials {
            Credentials::Session(secret) => self.by_session(secret),
            Credentials::Bearer(text) => self.by_token(text),
        }
    }

    fn by_session(&self, secret: &str) -> Result<Option<Principal>, AccountsError> {
        let key = session::key(secret);
        let Some((mut session, version)) = self.get::<Session>(Table::Sessions, &key)? else {
            return Ok(None);
        };
        let account = self.get::<Account>(Table::Accounts, &session.account)?;
        let Some((account, _)) = account.filter(|(a, _)| a.enabled && a.epoch == session.epoch) else {
            return Ok(None);
        };
        let now = self.now();
        if now.saturating_sub(session.used_ms) >= session::NOTED_EVERY_MS {
            session.used_ms = now;
            // Whoever was faster noted the same.
            let ends = session.ends_ms();
            self.put(
                Table::Sessions,
                &key,
                &session,
                Some(ends),
                Expected::Version(version),
            )?;
        }
        let via = Via::Session {
            csrf: session::csrf(secret),
            expires_at_ms: session.ends_ms(),
            key,
        };
        self.principal(&account, via).map(Some)
    }

    fn by_token(&self, text: &str) -> Result<Option<Principal>, AccountsError> {
        let Some(id) = tokens::id_of(text) else {
            return Ok(None);
        };
        let found = self.get::<Token>(Table::Tokens, id)?;
        let Some((mut token, version)) = found.filter(|(token, _)| token.is(text)) else {
            return Ok(None);
        };
        let account = self.get::<Account>(Table::Accounts, &token.account)?;
        let Some((account, _)) = account.filter(|(a, _)| a.enabled) else {
            return Ok(None);
        };
        let now = self.now();
        if token
            .last_used_ms
            .is_none_or(|used| now.saturating_sub(used) >= session::NOTED_EVERY_MS)
        {
            token.last_used_ms = Some(now);
            self.put(
                Table::Tokens,
                id,
                &token,
                token.expires_at_ms,
                Expected::Version(version),
            )?;
        }
        let mut principal = self.principal(&account, Via::Token(token.id.clone()))?;
        if let Some(allowed) = &token.permissions {
            principal.permissions = principal.permissions.intersection(allowed);
        }
        principal.channels.extend(token.channels);
        principal.must_change_password = false;
        Ok(Some(principal))
    }

    fn principal(&self, account: &Account, via: Via) -> Result<Principal, AccountsError> {
        let mut permissions = Permissions::default();
        for name in &account.roles {
            let role = match roles::built_in(name) {
                Some(role) => Some(role),
                None => self.get::<Role>(Table::Roles, name)?.map(|(role, _)| role),
            };
            if let Some(role) = role {
                permissions.extend(&role.permissions);
            }
        }
        Ok(Principal {
            name: account.name.clone(),
            display_name: account.display_name.clone(),
            via,
            roles: account.roles.clone(),
            permissions,
            channels: vec![account.channels.clone()],
            must_change_password: account.must_change_password,
        })
    }

    /// Tokens of an account, or all.
    ///
    /// # Errors
    /// If the store fails.
    pub fn tokens(&self, of: Option<&str>) -> Result<Vec<TokenView>, AccountsError> {
        let all = self.all::<Token>(Table::Tokens)?;
        let wanted = all
            .iter()
            .filter(|(t, _)| of.is_none_or(|name| t.account == name));
        Ok(wanted.map(|(t, _)| t.view()).collect())
    }

    /// Makes a token for whoever asks; with its text, which nobody can show again. It may do nothing that its maker may
    /// not.
    ///
    /// # Errors
    /// See [`AccountsError`].
    pub fn create_token(
        &self,
        who: &Principal,
        wanted: &NewToken,
    ) -> Result<(TokenView, String), AccountsError> {
        let mut faults = Vec::new();
        if wanted.label.is_empty() || wanted.label.len() > 128 || wanted.label.chars().any(char::is_control) {
            faults.push((
                "label".into(),
                "must be 1 to 128 bytes without control characters".into(),
            ));
        }
        let lifetime = wanted
            .expires_in
            .as_deref()
            .map(Span::parse)
            .transpose()
            .unwrap_or_else(|reason| {
                faults.push(("expires_in".into(), reason));
                None
            });
        let permissions = match wanted.permissions.as_ref().map(Permissions::parse) {
            None => None,
            Some(Ok(permissions)) => Some(permissions),
            Some(Err(wrong)) => {
                faults.push(wrong);
                None
            }
        };
        faults.extend(account::faults(None, wanted.channels.as_deref(), None));
        if !faults.is_empty() {
            return Err(invalid(faults));
        }
        let (account, _) = self.account(&who.name)?;
        let (id, text) = tokens::generate()?;
        let now = self.now();
        // A token made by means of a token inherits its bounds.
        let permissions = match (permissions, &who.via) {
            (Some(wanted), _) => Some(wanted.intersection(&who.permissions)),
            (None, Via::Token(_)) => Some(who.permissions.clone()),
            (None, _) => None,
        };
        let channels = match (&wanted.channels, &who.via) {
            (Some(globs), _) => Some(globs.clone()),
            (None, Via::Token(_)) => Some(who.shown_channels()),
            (None, _) => None,
        };
        let token = Token {
            digest: tokens::digest_of(&text),
            account: account.name,
            label: wanted.label.clone(),
            permissions,
            channels,
            created_at_ms: now,
            expires_at_ms: lifetime.map(|l| now.saturating_add(l.as_millis())),
            last_used_ms: None,
            id,
        };
        self.put(
            Table::Tokens,
            &token.id,
            &token,
            token.expires_at_ms,
            Expected::Absent,
        )?
        .ok_or(AccountsError::Exists)?;
        Ok((token.view(), text))
    }

    /// One token.
    ///
    /// # Errors
    /// If there is none, or the store fails.
    pub fn token(&self, id: &str) -> Result<TokenView, AccountsError> {
        let found = self.get::<Token>(Table::Tokens, id)?;
        Ok(found.ok_or(AccountsError::NotFound("token"))?.0.view())
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// If there is none, or the store fails.
    pub fn revoke(&self, id: &str) -> Result<(), AccountsError> {
        if self.records.remove(Table::Tokens, id)? {
            Ok(())
        } else {
            Err(AccountsError::NotFound("token"))
        }
    }

    /// All roles, those first that the program brings.
    ///
    /// # Errors
    /// If the store fails.
    pub fn roles(&self) -> Result<Vec<Role>, AccountsError> {
        let mut all: Vec<Role> = roles::BUILT_IN
            .iter()
            .filter_map(|n| roles::built_in(n))
            .collect();
        all.extend(self.all::<Role>(Table::Roles)?.into_iter().map(|(role, _)| role));
        Ok(all)
    }

    /// One role.
    ///
    /// # Errors
    /// If there is none, or the store fails.
    pub fn role(&self, name: &str) -> Result<Role, AccountsError> {
        match roles::built_in(name) {
            Some(role) => Ok(role),
            None => {
                let found = self.get::<Role>(Table::Roles, name)?;
                Ok(found.ok_or(AccountsError::NotFound("role"))?.0)
            }
        }
    }

    /// Makes or replaces a custom role.
    ///
    /// # Errors
    /// See [`AccountsError`].
    pub fn put_role(
        &self,
        name: &str,
        description: &str,
        wanted: &Wanted,
        is_new: bool,
    ) -> Result<Role, AccountsError> {
        if roles::built_in(name).is_some() {
            return Err(AccountsError::BuiltIn);
        }
        let mut faults: Vec<Wrong> = account::name(name).err().into_iter().collect();
        if description.len() > 256 || description.chars().any(char::is_control) {
            faults.push((
                "description".into(),
                "must be at most 256 bytes without control characters".into(),
            ));
        }
        let permissions = Permissions::parse(wanted).unwrap_or_else(|wrong| {
            faults.push(wrong);
            Permissions::default()
        });
        if name.bytes().any(|b| b.is_ascii_uppercase()) {
            faults.push(("name".into(), "must be in lower case".into()));
        }
        if !faults.is_empty() {
            return Err(invalid(faults));
        }
        let role = Role {
            name: name.to_owned(),
            description: description.to_owned(),
            permissions,
            built_in: false,
        };
        if !is_new {
            self.role(name)?;
        }
        let expected = if is_new {
            Expected::Absent
        } else {
            Expected::Anything
        };
        match self.put(Table::Roles, name, &role, None, expected)? {
            Some(_) => Ok(role),
            None => Err(AccountsError::Exists),
        }
    }

    /// Removes a custom role that no account has.
    ///
    /// # Errors
    /// See [`AccountsError`].
    pub fn remove_role(&self, name: &str) -> Result<(), AccountsError> {
        if roles::built_in(name).is_some() {
            return Err(AccountsError::BuiltIn);
        }
        self.role(name)?;
        let accounts = self.all::<Account>(Table::Accounts)?;
        if let Some((account, _)) = accounts.iter().find(|(a, _)| a.roles.iter().any(|r| r == name)) {
            return Err(AccountsError::Used(account.name.clone()));
        }
        self.records.remove(Table::Roles, name)?;
        Ok(())
    }
}
