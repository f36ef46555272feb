//! Instances as operators change them: weight, draining, what a new one needs, taking one off the books. Each is told by its own
//! document, so that any instance can do it for any other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::FieldProblem;
use super::extract::{Body, Path, Query};
use super::guard::Trail;
use super::session::decoded;
use super::{ApiError, AppState};
use crate::config::{Change, Edit, Expected, PutError};

/// How often a change is made anew because others have changed the document, and the pause before.
const TRIES: usize = 8;
const PAUSE: Duration = Duration::from_millis(50);

/// What can be changed of an instance.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wanted {
    /// Its share of the front balancer's clients, 0..=256.
    weight: Option<u32>,
    /// Whether it takes no new clients.
    drain: Option<bool>,
    /// For the audit log and the version's message.
    reason: String,
}

/// What an instance has of its own.
#[derive(Serialize, JsonSchema)]
pub(super) struct Own {
    /// Its name.
    instance: String,
    /// Its document; null for none.
    document: Option<Value>,
    /// The version of the documents with it; null if it is none.
    version: Option<u64>,
}

/// What a new instance needs.
#[derive(Serialize, JsonSchema)]
pub(super) struct Joining {
    /// Its name.
    instance: String,
    /// Files by their names.
    files: BTreeMap<&'static str, String>,
    /// What to do with them.
    steps: Vec<&'static str>,
}

fn document_of(id: &str) -> Result<String, ApiError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if id.is_empty() || id.len() > 64 || !id.bytes().all(plain) {
        return Err(ApiError::not_found(format!("`{id}` is no name of an instance")));
    }
    Ok(format!("tollgate.instance.{id}.json"))
}

/// Publishes what `edit` makes of the instance's document; `None` takes it away.
async fn publish(
    (state, trail): (&AppState, &Trail),
    id: &str,
    deed: &str,
    edit: impl Fn(Option<Value>) -> Option<Value>,
) -> Result<Json<Own>, ApiError> {
    let name = document_of(id)?;
    trail.target(id);
    for _ in 0..TRIES {
        let set = Arc::clone(&state.status().documents);
        let old = set.get(&name);
        let before: Option<Value> = old
            .map(|d| serde_json::from_slice(&d.bytes))
            .transpose()
            .map_err(|_| ApiError::conflict(format!("`{name}` is not JSON; mend it first")))?;
        let after = edit(before.clone());
        if after == before {
            return Ok(Json(Own {
                instance: id.to_owned(),
                document: after,
                version: set.version,
            }));
        }
        let bytes = after.as_ref().map(serde_json::to_vec_pretty).transpose();
        let change = Change {
            author: trail.who().to_owned(),
            message: trail.message(format!("{deed} the instance {id}")),
            edits: vec![Edit {
                name: name.clone(),
                bytes: bytes.map_err(ApiError::internal)?.map(Arc::from),
                expected: Expected::exactly(old.map(|d| &d.etag)),
            }],
        };
        let source = Arc::clone(&state.source);
        match tokio::task::spawn_blocking(move || source.publish(&change)).await? {
            Ok(version) => {
                trail.changed(before, after.clone());
                return Ok(Json(Own {
                    instance: id.to_owned(),
                    document: after,
                    version: Some(version.number),
                }));
            }
            Err(PutError::Changed { .. }) => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::conflict(
        "others are changing the document all the time; try again",
    ))
}

/// The document with the instance's fields in it.
fn changed(before: Option<Value>, wanted: &Wanted) -> Option<Value> {
    let mut document = before.filter(Value::is_object).unwrap_or_else(|| json!({}));
    let mut place = &mut document;
    for name in ["instance", "settings", "balancer"] {
        place = place.as_object_mut()?.entry(name).or_insert_with(|| json!({}));
        if !place.is_object() {
            *place = json!({});
        }
    }
    let fields = place.as_object_mut()?;
    fields.extend(wanted.weight.map(|weight| ("weight".to_owned(), weight.into())));
    fields.extend(wanted.drain.map(|drain| ("drain".to_owned(), drain.into())));
    Some(document)
}

/// Sets an instance's weight, or takes it out and in again.
pub(super) async fn change(
    State(state): State<AppState>,
    Extension(trail): Extension<Trail>,
    Path(id): Path<String>,
    Body(body): Body,
) -> Result<Json<Own>, ApiError> {
    let wanted: Wanted = decoded(&body)?;
    trail.because(&wanted.reason);
    if wanted.weight.is_some_and(|weight| weight > 256) {
        let problem = FieldProblem::at("weight", "must be 0..=256");
        return Err(ApiError::invalid_fields(vec![problem]));
    }
    publish((&state, &trail), &id, "change", |before| changed(before, &wanted)).await
}

/// Whether an instance of that name is registered.
fn is_there(state: &AppState, id: &str) -> bool {
    let members = state.naming.members();
    members.own.instance == id || members.others.iter().any(|m| m.instance == id)
}

/// Takes away what an instance had of its own, once it is gone.
pub(super) async fn remove(
    State(state): State<AppState>,
    Extension(trail): Extension<Trail>,
    Path(id): Path<String>,
) -> Result<Json<Own>, ApiError> {
    if is_there(&state, &id) {
        let detail = format!("the instance `{id}` is there: drain it and end its daemon first");
        return Err(ApiError::conflict(detail));
    }
    publish((&state, &trail), &id, "remove", |_| None).await
}

/// Where a new instance will be.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    /// Address and port at which the front balancer will reach its nginx.
    advertise: SocketAddr,
}

/// What a new instance needs: files, and what to do with them. No secret is among them.
pub(super) async fn configuration(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Query(place): Query<Place>,
) -> Result<Json<Joining>, ApiError> {
    document_of(&id)?;
    if is_there(&state, &id) {
        return Err(ApiError::conflict(format!("there is an instance `{id}` already")));
    }
    let Some(nacos) = &state.nacos else {
        return Err(ApiError::conflict(
            "the documents are in a folder of this machine: several instances need Nacos (`tollgate serve --nacos`)",
        ));
    };
    let mut environment = format!(
        "TOLLGATE_NACOS={}\nTOLLGATE_NACOS_NAMESPACE={}\nTOLLGATE_INSTANCE={id}\nTOLLGATE_ADVERTISE={}\n\
         TOLLGATE_MASTER_KEY_FILE=/etc/tollgate/master.key\n",
        nacos.servers.join(","),
        nacos.namespace,
        place.advertise,
    );
    if let Some(account) = &nacos.account {
        environment.push_str(&format!(
            "TOLLGATE_NACOS_USER={}\nTOLLGATE_NACOS_PASSWORD_FILE=/etc/tollgate/nacos.password\n",
            account.user
        ));
    }
    let nginx = include_str!("../../../nginx-conf/cluster/join.conf");
    Ok(Json(Joining {
        files: BTreeMap::from([
            ("tollgate.env", environment),
            (
                "tollgate.conf",
                nginx.replace("@LISTEN@", &place.advertise.to_string()),
            ),
            (
                "tollgate_proxy.conf",
                include_str!("../../../nginx-conf/tollgate_proxy.conf").to_owned(),
            ),
            (
                "gateway.conf",
                include_str!("../../../nginx-conf/cluster/gateway.conf").to_owned(),
            ),
        ]),
        instance: id,
        steps: vec![
            "copy the master key of a running instance to /etc/tollgate/master.key, readable for nginx and the daemon alone",
            "put the password of Nacos' user, if it has one, into /etc/tollgate/nacos.password, and those that `password_ref` and \
             `key_ref` name into the credential folder",
            "give tollgate.env to the daemon's service (EnvironmentFile=) and start `tollgate serve`",
            "put the other files into /etc/nginx, load the module, include tollgate.conf in http {}, and start nginx",
            "the front balancer takes the instance in as soon as its health check answers 200",
        ],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_instance_has_of_its_own_stays() {
        let wanted = |weight, drain| Wanted {
            weight,
            drain,
            reason: String::new(),
        };
        assert_eq!(
            changed(None, &wanted(Some(5), None)),
            Some(json!({ "instance": { "settings": { "balancer": { "weight": 5 } } } }))
        );
        let before =
            json!({ "instance": { "providers": { "p": 1 }, "settings": { "balancer": { "weight": 5 } } } });
        assert_eq!(
            changed(Some(before), &wanted(None, Some(true))),
            Some(json!({ "instance": { "providers": { "p": 1 },
                "settings": { "balancer": { "weight": 5, "drain": true } } } }))
        );
        assert!(document_of("../x").is_err() && document_of("gateway-1.a").is_ok());
    }
}
