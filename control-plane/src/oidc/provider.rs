//! The provider: its description and keys, the address to send a browser to, the code that comes back. Blocks.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreAuthenticationFlow, CoreErrorResponseType, CoreGenderClaim,
    CoreJsonWebKey, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreProviderMetadata,
    CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AdditionalClaims, AuthorizationCode, Client, ClientId, ClientSecret, CsrfToken, EmptyExtraTokenFields,
    EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IdTokenFields, IssuerUrl,
    Nonce, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, StandardErrorResponse,
    StandardTokenResponse, TokenResponse,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tollgate_policy::documents::Oidc;
use zeroize::Zeroizing;

use super::sign_in::OidcError;
use crate::outgoing::agent;

/// How long a provider may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long its description and keys are good for.
const FRESH: Duration = Duration::from_secs(15 * 60);
/// Longest answer.
const LONGEST: u64 = 1 << 20;

/// Claims that the standard does not name.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Others {
    #[serde(flatten)]
    all: Map<String, Value>,
}
impl AdditionalClaims for Others {}

type Fields = IdTokenFields<
    Others,
    EmptyExtraTokenFields,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;
type Discovered = Client<
    Others,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    StandardTokenResponse<Fields, CoreTokenType>,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// A provider cannot be asked.
#[derive(Debug)]
struct Unreached(String);

impl std::fmt::Display for Unreached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for Unreached {}

/// The text of an error and of what caused it. None of these holds a secret.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn ask(agent: &ureq::Agent, request: HttpRequest) -> Result<HttpResponse, Unreached> {
    let unreached = |error: ureq::Error| Unreached(error.to_string());
    let response = if request.body().is_empty() {
        agent.run(request.map(|_| ()))
    } else {
        agent.run(request)
    };
    let (parts, mut body) = response.map_err(unreached)?.into_parts();
    let bytes = body
        .with_config()
        .limit(LONGEST)
        .read_to_vec()
        .map_err(unreached)?;
    Ok(HttpResponse::from_parts(parts, bytes))
}

/// What was read of a provider.
struct Known {
    settings: Oidc,
    read: Instant,
    metadata: CoreProviderMetadata,
}

/// What to send a browser to a provider with.
pub(super) struct Sent {
    pub url: String,
    pub nonce: String,
    pub verifier: String,
}

/// Providers as they were last read.
#[derive(Clone, Default)]
pub(super) struct Providers(Arc<Mutex<Option<Known>>>);

impl Providers {
    fn metadata(&self, settings: &Oidc, agent: &ureq::Agent) -> Result<CoreProviderMetadata, OidcError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref()
            && known.settings == *settings
            && known.read.elapsed() < FRESH
        {
            return Ok(known.metadata.clone());
        }
        let issuer = IssuerUrl::new(settings.issuer.clone()).map_err(|e| OidcError::Provider(chain(&e)))?;
        let client = |request: HttpRequest| ask(agent, request);
        let metadata =
            CoreProviderMetadata::discover(&issuer, &client).map_err(|e| OidcError::Provider(chain(&e)))?;
        *known = Some(Known {
            settings: settings.clone(),
            read: Instant::now(),
            metadata: metadata.clone(),
        });
        Ok(metadata)
    }

    /// Reads everything anew when it is next needed: keys may have been rotated.
    fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn client(
        &self,
        settings: &Oidc,
        secret: Option<&Zeroizing<String>>,
        agent: &ureq::Agent,
    ) -> Result<Discovered, OidcError> {
        let metadata = self.metadata(settings, agent)?;
        let redirect =
            RedirectUrl::new(settings.redirect_url.clone()).map_err(|e| OidcError::Provider(chain(&e)))?;
        let id = ClientId::new(settings.client_id.clone());
        let secret = secret.map(|s| ClientSecret::new(s.to_string()));
        Ok(Client::from_provider_metadata(metadata, id, secret).set_redirect_uri(redirect))
    }

    fn agent(settings: &Oidc) -> Result<ureq::Agent, OidcError> {
        agent(settings.ca_file.as_deref().map(Path::new), PATIENCE).map_err(OidcError::Provider)
    }

    /// Where to send a browser.
    pub fn begin(&self, settings: &Oidc, state: &str) -> Result<Sent, OidcError> {
        let client = self.client(settings, None, &Providers::agent(settings)?)?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let state = state.to_owned();
        let mut request = client.authorize_url(
            CoreAuthenticationFlow::AuthorizationCode,
            || CsrfToken::new(state),
            Nonce::new_random,
        );
        for scope in &settings.scopes {
            request = request.add_scope(Scope::new(scope.clone()));
        }
        let (url, _, nonce) = request.set_pkce_challenge(challenge).url();
        Ok(Sent {
            url: url.to_string(),
            nonce: nonce.secret().clone(),
            verifier: verifier.into_secret(),
        })
    }

    /// Exchanges a code, and verifies the ID token that comes for it; its claims.
    pub fn finish(
        &self,
        settings: &Oidc,
        secret: Option<&Zeroizing<String>>,
        code: String,
        (nonce, verifier): (String, String),
    ) -> Result<Value, OidcError> {
        let agent = Providers::agent(settings)?;
        let client = self.client(settings, secret, &agent)?;
        let http = |request: HttpRequest| ask(&agent, request);
        let response = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|e| OidcError::Provider(chain(&e)))?
            .set_pkce_verifier(PkceCodeVerifier::new(verifier))
            .request(&http)
            .map_err(|e| OidcError::Refused(chain(&e)))?;
        let token = response
            .id_token()
            .ok_or_else(|| OidcError::Refused("the provider sent no ID token".into()))?;
        let nonce = Nonce::new(nonce);
        let claims = match token.claims(&client.id_token_verifier(), &nonce) {
            Ok(claims) => claims,
            // The provider may have another key by now.
            Err(_) => {
                self.forget();
                let client = self.client(settings, secret, &agent)?;
                token
                    .claims(&client.id_token_verifier(), &nonce)
                    .map_err(|e| OidcError::Refused(chain(&e)))?
            }
        };
        serde_json::to_value(claims).map_err(|e| OidcError::Refused(e.to_string()))
    }
}
