//! Signing in and out, and whose credentials a request presents.

use super::account::{self, Account};
use super::directory::{Accounts, AccountsError, SignedIn, invalid};
use super::records::{Expected, Table};
use super::roles::{self, Permissions, Role};
use super::session::{self, Session};
use super::tokens::{self, Token};
use super::{Action, Credentials, Principal, Resource, Via, random_text, throttle};

impl Accounts {
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

    pub(super) fn open_session(&self, account: &Account) -> Result<String, AccountsError> {
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
        // That it cannot be noted is no reason to keep somebody out.
        match self.edit(&account.name, None, |a| a.last_login_ms = Some(now)) {
            Ok(_) | Err(AccountsError::Store(_)) => {}
            Err(error) => return Err(error),
        }
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
            let ends = token.expires_at_ms;
            // That its use cannot be noted is no reason to refuse it.
            let _ = self.put(Table::Tokens, id, &token, ends, Expected::Version(version));
        }
        let mut principal = self.principal(&account, Via::Token(token.id.clone()))?;
        if let Some(allowed) = &token.permissions {
            principal.permissions = principal.permissions.intersection(allowed);
        }
        principal.channels.extend(token.channels);
        principal.must_change_password = false;
        Ok(Some(principal))
    }

    /// Whether an account might do this if it signed in now, with regard to all channels.
    ///
    /// # Errors
    /// If the store fails.
    pub fn could(&self, name: &str, resource: Resource, action: Action) -> Result<bool, AccountsError> {
        let found = self.get::<Account>(Table::Accounts, name)?;
        let Some((account, _)) = found.filter(|(account, _)| account.enabled) else {
            return Ok(false);
        };
        let who = self.principal(&account, Via::BreakGlass)?;
        Ok(who.may(resource, action) && !who.is_limited())
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
}
