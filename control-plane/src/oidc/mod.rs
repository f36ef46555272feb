//! Sign-in at an identity provider (OpenID Connect 1.0): authorization code with PKCE.
//!
//! ```text
//! browser ─/oidc/login─► begin ── state, nonce, verifier ──► store, for ten minutes
//!    │  └─ cookie            └─ redirect ─► provider
//!    └──/oidc/callback─► finish ─ state taken once, cookie compared ─► code exchanged ─► ID token verified
//!                                                                        └─► mapping ─► account, roles, session
//! ```
//! Local accounts stay a way in: a provider that is down or misconfigured locks nobody out.

mod mapping;
mod pending;
mod provider;
mod sign_in;

pub use mapping::{Identity, NotMapped, identity};
pub use sign_in::{Begun, OidcError, SignIns};
