//! What accounts are given: tokens and roles.

use tollgate_policy::Span;

use super::account::{self, Account, Wrong};
use super::directory::{Accounts, AccountsError, invalid};
use super::records::{Expected, Table};
use super::roles::{self, Permissions, Role, Wanted};
use super::tokens::{self, NewToken, Token, TokenView};
use super::{Principal, Via};

impl Accounts {
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
