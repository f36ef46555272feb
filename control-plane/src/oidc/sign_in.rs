//! The two halves of a sign-in. Blocks.

use std::sync::Arc;

use tollgate_policy::documents::Oidc;

use super::mapping::{NotMapped, identity};
use super::pending;
use super::provider::Providers;
use crate::accounts::{Accounts, AccountsError, RecordsError, SignedIn};
use crate::secrets::CredentialFolder;

/// Why nobody is signed in.
#[derive(Debug)]
pub enum OidcError {
    /// The provider cannot be asked, or is not what the settings say; worth another try later.
    Provider(String),
    /// The provider, or what it sent, says no.
    Refused(String),
    /// The browser did not begin this, or took too long.
    Unknown,
    /// The provider knows them, but they have nothing here.
    NotMapped(NotMapped),
    /// The account cannot be made or used.
    Accounts(AccountsError),
}

impl std::fmt::Display for OidcError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OidcError::Provider(why) => write!(f, "the identity provider cannot be used: {why}"),
            OidcError::Refused(why) => write!(f, "the sign-in was refused: {why}"),
            OidcError::Unknown => f.write_str("this sign-in has expired or began elsewhere; begin again"),
            OidcError::NotMapped(why) => why.fmt(f),
            OidcError::Accounts(error) => write!(f, "the account cannot be used: {error:?}"),
        }
    }
}
impl std::error::Error for OidcError {}

impl From<RecordsError> for OidcError {
    fn from(error: RecordsError) -> OidcError {
        OidcError::Accounts(error.into())
    }
}

/// A sign-in that has begun.
#[derive(Debug)]
pub struct Begun {
    /// Where to send the browser.
    pub url: String,
    /// What it must bring back as a cookie.
    pub cookie: String,
}

/// Sign-ins at a provider. Clones share what is known of it.
#[derive(Clone)]
pub struct SignIns {
    accounts: Accounts,
    folder: CredentialFolder,
    providers: Providers,
}

impl SignIns {
    /// Sign-ins for these accounts; the client's secret lies in that folder.
    pub fn new(accounts: Accounts, folder: CredentialFolder) -> SignIns {
        SignIns {
            accounts,
            folder,
            providers: Providers::default(),
        }
    }

    /// Begins one; `back` is where in the dashboard it shall end.
    ///
    /// # Errors
    /// See [`OidcError`].
    pub fn begin(&self, settings: &Oidc, back: &str) -> Result<Begun, OidcError> {
        let taken = pending::fresh()?;
        let sent = self.providers.begin(settings, &taken.state)?;
        let kept = (sent.nonce, sent.verifier, back.to_owned());
        pending::keep(&self.accounts.records(), &taken, kept)?;
        Ok(Begun {
            url: sent.url,
            cookie: taken.cookie,
        })
    }

    /// Ends one: who it is, and where they wanted to go.
    ///
    /// # Errors
    /// See [`OidcError`].
    pub fn finish(
        &self,
        settings: &Oidc,
        (state, cookie): (&str, &str),
        code: String,
    ) -> Result<(SignedIn, String), OidcError> {
        let records: Arc<_> = self.accounts.records();
        let pending = pending::take(&records, state, cookie)?.ok_or(OidcError::Unknown)?;
        let secret = match &settings.client_secret_ref {
            Some(name) => Some(self.folder.named(name).map_err(OidcError::Provider)?),
            None => None,
        };
        let proof = (pending.nonce, pending.verifier);
        let claims = self.providers.finish(settings, secret.as_ref(), code, proof)?;
        let who = identity(settings, &claims).map_err(OidcError::NotMapped)?;
        let signed_in = self.accounts.sign_in_from(&who).map_err(OidcError::Accounts)?;
        Ok((signed_in, pending.back))
    }

    /// Forgets one that came to nothing.
    ///
    /// # Errors
    /// If the store fails.
    pub fn drop_pending(&self, state: &str, cookie: &str) -> Result<(), OidcError> {
        pending::take(&self.accounts.records(), state, cookie)?;
        Ok(())
    }
}
