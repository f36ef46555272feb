//! Nacos naming: the service `tollgate` in the group `TOLLGATE`. An entry lives as long as its instance's connection.

use std::sync::Arc;
use std::time::Duration;

use nacos_sdk::api::naming::{NamingService, NamingServiceBuilder, ServiceInstance};
use nacos_sdk::api::plugin::AuthPlugin;

use super::Member;
use crate::config::{NacosOptions, nacos_props};

/// Service and group.
const SERVICE: &str = "tollgate";
const GROUP: &str = "TOLLGATE";
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where instances register.
pub struct Registry {
    options: NacosOptions,
    login: Option<Arc<dyn AuthPlugin>>,
    service: Option<NamingService>,
    registered: Option<ServiceInstance>,
}

async fn patient<T, E: std::fmt::Display>(asked: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map_err(|e| e.to_string()),
        Err(_) => Err(format!("Nacos' naming does not answer within {PATIENCE:?}")),
    }
}

impl Registry {
    /// A registry that is not connected yet.
    pub fn new(options: NacosOptions, login: Option<Arc<dyn AuthPlugin>>) -> Registry {
        Registry {
            options,
            login,
            service: None,
            registered: None,
        }
    }

    async fn service(&mut self) -> Result<NamingService, String> {
        if let Some(service) = &self.service {
            return Ok(service.clone());
        }
        let mut builder = NamingServiceBuilder::new(nacos_props(&self.options));
        if let Some(login) = &self.login {
            builder = builder.with_auth_plugin(Arc::clone(login));
        }
        let service = patient(builder.build()).await?;
        self.service = Some(service.clone());
        Ok(service)
    }

    /// Registers this instance as it is now; one that is drained leaves.
    pub(super) async fn tell(&mut self, own: &Member) -> Result<(), String> {
        let service = self.service().await?;
        let group = Some(GROUP.to_owned());
        if own.draining {
            let Some(entry) = self.registered.clone() else {
                return Ok(());
            };
            patient(service.deregister_instance(SERVICE.to_owned(), group, entry)).await?;
            self.registered = None;
            return Ok(());
        }
        // Without an address for clients it is there to be seen, and gets none. Not `enabled: false`: such entries are
        // shown to nobody.
        let has_clients = !own.address.is_empty();
        let place = if has_clients { &own.address } else { &own.api };
        let (host, port) = place.rsplit_once(':').unwrap_or((place, "0"));
        let entry = ServiceInstance {
            ip: host.trim_matches(['[', ']']).to_owned(),
            port: port.parse().unwrap_or(0),
            weight: if has_clients {
                f64::from(own.weight) / 100.0
            } else {
                0.0
            },
            metadata: own.metadata().into_iter().collect(),
            ..ServiceInstance::default()
        };
        patient(service.register_instance(SERVICE.to_owned(), group, entry.clone())).await?;
        self.registered = Some(entry);
        Ok(())
    }

    /// The other instances that are registered, by name.
    pub(super) async fn others(&mut self, own: &str) -> Result<Vec<Member>, String> {
        let service = self.service().await?;
        let asked = service.get_all_instances(SERVICE.to_owned(), Some(GROUP.to_owned()), Vec::new(), false);
        let mut others: Vec<Member> = patient(asked)
            .await?
            .iter()
            .filter(|entry| entry.healthy)
            .filter_map(|entry| Member::from_metadata(|name| entry.metadata.get(name).map(String::as_str)))
            .filter(|member| member.instance != own)
            .collect();
        others.sort_by(|a, b| a.instance.cmp(&b.instance));
        Ok(others)
    }
}
