//! Accounts of people whom an identity provider vouches for. Their roles and channels are what the provider's claims say
//! at each sign-in; they have no password here.

use super::Credentials;
use super::account::{self, Account};
use super::directory::{Accounts, AccountsError, SignedIn, invalid};
use super::records::{Expected, Table};
use crate::oidc::Identity;

impl Accounts {
    /// Signs in whom a provider vouches for, with an account that is made if need be.
    ///
    /// # Errors
    /// [`AccountsError::Refused`] if the account is disabled, or of that name but not theirs; else see [`AccountsError`].
    pub fn sign_in_from(&self, who: &Identity) -> Result<SignedIn, AccountsError> {
        let name = account::name(&who.name).map_err(|wrong| invalid(vec![wrong]))?;
        let faults = account::faults(Some(&who.display_name), Some(&who.channels), None);
        if !faults.is_empty() {
            return Err(invalid(faults));
        }
        let account = match self.get::<Account>(Table::Accounts, &name)? {
            // A local account is never taken over by whoever has the same name elsewhere.
            Some((account, _)) if account.subject.as_ref() != Some(&who.subject) || !account.enabled => {
                return Err(AccountsError::Refused);
            }
            Some((account, _)) => self.updated(account, who)?,
            None => self.made(name, who)?,
        };
        let secret = self.open_session(&account)?;
        let principal = self
            .identify(Credentials::Session(&secret))?
            .ok_or(AccountsError::Refused)?;
        Ok(SignedIn { secret, principal })
    }

    fn updated(&self, account: Account, who: &Identity) -> Result<Account, AccountsError> {
        let same = account.roles == who.roles
            && account.channels == who.channels
            && account.display_name == who.display_name;
        if same {
            return Ok(account);
        }
        self.edit(&account.name, None, |account| {
            account.roles.clone_from(&who.roles);
            account.channels.clone_from(&who.channels);
            account.display_name.clone_from(&who.display_name);
        })?;
        Ok(self.account(&account.name)?.0)
    }

    fn made(&self, name: String, who: &Identity) -> Result<Account, AccountsError> {
        let now = self.now();
        let account = Account {
            name,
            display_name: who.display_name.clone(),
            password: None,
            subject: Some(who.subject.clone()),
            roles: who.roles.clone(),
            channels: who.channels.clone(),
            enabled: true,
            must_change_password: false,
            epoch: 0,
            created_at_ms: now,
            changed_at_ms: now,
            last_login_ms: None,
        };
        match self.put(Table::Accounts, &account.name, &account, None, Expected::Absent)? {
            Some(_) => Ok(account),
            // Somebody was faster: with the same sign-in twice it is theirs, else it is not.
            None => match self.get::<Account>(Table::Accounts, &account.name)? {
                Some((there, _)) if there.subject == account.subject && there.enabled => Ok(there),
                _ => Err(AccountsError::Refused),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::{NewAccount, SqliteRecords};
    use std::sync::Arc;

    fn mia() -> Identity {
        Identity {
            subject: "https://id.example#7".into(),
            name: "mia".into(),
            display_name: "Mia".into(),
            roles: vec!["operator".into()],
            channels: vec!["*".into()],
        }
    }

    #[test]
    fn roles_follow_the_provider_and_nobody_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let records = SqliteRecords::open(&dir.path().join("accounts.db")).unwrap();
        let accounts = Accounts::new(Arc::new(records)).unwrap();
        let first = accounts.sign_in_from(&mia()).unwrap();
        assert_eq!(
            (first.principal.name.as_str(), &first.principal.roles[..]),
            ("mia", &["operator".to_owned()][..])
        );
        // No password opens it.
        assert!(matches!(
            accounts.sign_in("mia", "", "192.0.2.1"),
            Err(AccountsError::Refused)
        ));
        let demoted = Identity {
            roles: vec!["viewer".into()],
            ..mia()
        };
        let second = accounts.sign_in_from(&demoted).unwrap();
        assert_eq!(second.principal.roles, ["viewer"]);
        let still = accounts
            .identify(Credentials::Session(&first.secret))
            .unwrap()
            .unwrap();
        assert_eq!(still.roles, ["viewer"], "sessions that are open follow at once");

        let other = Identity {
            subject: "https://id.example#8".into(),
            ..mia()
        };
        assert!(matches!(
            accounts.sign_in_from(&other),
            Err(AccountsError::Refused)
        ));
        accounts
            .create(NewAccount {
                name: "bo".into(),
                roles: vec!["admin".into()],
                ..NewAccount::default()
            })
            .unwrap();
        let bo = Identity {
            name: "bo".into(),
            ..mia()
        };
        assert!(matches!(accounts.sign_in_from(&bo), Err(AccountsError::Refused)));
        let unnamed = Identity {
            name: "no name at all".into(),
            ..mia()
        };
        assert!(matches!(
            accounts.sign_in_from(&unnamed),
            Err(AccountsError::Invalid(_))
        ));
    }
}
