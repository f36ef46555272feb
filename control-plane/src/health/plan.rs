//! Who is probed: what the documents ask for.

use tollgate_policy::documents::{Documents, HealthCheck, Provider};

/// A provider, or one deployment at it, that is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The provider's id.
    pub provider: String,
    /// Ids of the deployments that a probe speaks for; more than one only if it speaks for the whole provider.
    pub deployments: Vec<String>,
    /// The model's name at the provider; empty if the probe speaks for the whole provider.
    pub upstream_model: String,
    /// How.
    pub check: HealthCheck,
    /// Whatever makes it another endpoint, of which nothing is known yet.
    pub endpoint: String,
}

/// What a target is known by: its provider, and its deployment unless it speaks for the whole provider.
pub(super) type Key = (String, Option<String>);

impl Target {
    pub(super) fn key(&self) -> Key {
        let own = self
            .check
            .per_deployment()
            .then(|| self.deployments.first().cloned());
        (self.provider.clone(), own.flatten())
    }
}

fn endpoint(provider: &Provider) -> String {
    let Provider {
        base_url,
        host_header,
        protocol,
        tls,
        ..
    } = provider;
    format!("{base_url} {host_header:?} {protocol:?} {tls:?}")
}

/// All targets: enabled providers with a health check and at least one enabled deployment.
pub fn targets(documents: &Documents) -> Vec<Target> {
    let mut found = Vec::new();
    for provider in documents.providers.iter().map(|p| &p.value).filter(|p| p.enabled) {
        let Some(check) = &provider.health_check else {
            continue;
        };
        let target = |deployments: Vec<String>, upstream_model: &str| Target {
            provider: provider.id.clone(),
            deployments,
            upstream_model: upstream_model.to_owned(),
            check: check.clone(),
            endpoint: endpoint(provider),
        };
        let deployments = documents.models.iter().flat_map(|m| {
            let model = &m.value;
            let own = model
                .deployments
                .iter()
                .filter(|d| d.enabled && d.provider == provider.id);
            own.map(|d| {
                (
                    d.id(&model.name),
                    d.upstream_model.as_deref().unwrap_or(&model.name),
                )
            })
        });
        if check.per_deployment() {
            found.extend(deployments.map(|(id, model)| target(vec![id], model)));
        } else {
            let ids: Vec<String> = deployments.map(|(id, _)| id).collect();
            if !ids.is_empty() {
                found.push(target(ids, ""));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_target_a_provider_or_one_a_deployment() {
        let models = br#"{"models":[
            {"name":"m","deployments":[{"provider":"a"},{"provider":"b","upstream_model":"mb"},{"provider":"none"}]},
            {"name":"n","deployments":[{"provider":"a"},{"provider":"b"},{"provider":"off"},
                {"id":"x","provider":"a","enabled":false}]}]}"#;
        let providers = br#"{"providers":[
            {"id":"a","protocol":"openai","base_url":"http://a","health_check":{"path":"/"}},
            {"id":"b","protocol":"openai","base_url":"http://b","health_check":{"type":"completion"}},
            {"id":"off","protocol":"openai","base_url":"http://c","enabled":false,"health_check":{"path":"/"}},
            {"id":"unused","protocol":"openai","base_url":"http://d","health_check":{"path":"/"}},
            {"id":"none","protocol":"openai","base_url":"http://e"}]}"#;
        let (documents, problems) = Documents::parse(&[
            ("models.json".into(), &models[..]),
            ("providers.json".into(), &providers[..]),
        ]);
        assert!(problems.is_empty(), "{problems:?}");
        let found = targets(&documents);
        let seen: Vec<_> = found
            .iter()
            .map(|t| (t.deployments.join(" "), &*t.upstream_model))
            .collect();
        assert_eq!(
            seen,
            [("m/a n/a".into(), ""), ("m/b".into(), "mb"), ("n/b".into(), "n")]
        );
        assert_eq!(found[0].key(), ("a".into(), None));
        assert_eq!(found[1].key(), ("b".into(), Some("m/b".into())));
    }
}
