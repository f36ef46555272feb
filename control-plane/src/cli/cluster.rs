//! Options of `tollgate serve` for an instance among others.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use zeroize::Zeroizing;

use super::Failure;
use crate::balancer::BalancerOptions;
use crate::config::{Account, NacosOptions};
use crate::daemon::host_name;

/// Environment variable with Nacos' password itself. No option, because options are for everybody to see.
const PASSWORD: &str = "TOLLGATE_NACOS_PASSWORD";

#[derive(Debug, ClapArgs)]
pub(super) struct ClusterArgs {
    /// Take the documents from Nacos; several servers with commas
    #[arg(long, value_name = "URL", env = "TOLLGATE_NACOS", conflicts_with_all = ["config", "sample"])]
    nacos: Option<String>,
    /// Namespace in Nacos
    #[arg(
        long,
        value_name = "ID",
        env = "TOLLGATE_NACOS_NAMESPACE",
        default_value = "",
        hide_default_value = true
    )]
    nacos_namespace: String,
    /// User in Nacos
    #[arg(long, value_name = "USER", env = "TOLLGATE_NACOS_USER")]
    nacos_user: Option<String>,
    /// File with the user's password. TOLLGATE_NACOS_PASSWORD may hold the password itself
    #[arg(long, value_name = "FILE", env = "TOLLGATE_NACOS_PASSWORD_FILE")]
    nacos_password_file: Option<PathBuf>,
    /// Name of this instance, different for each; with Nacos the host's name by default, without it one that is made up and stays
    #[arg(long, value_name = "ID", env = "TOLLGATE_INSTANCE")]
    instance: Option<String>,
    /// Address at which the front balancer reaches this instance's nginx
    #[arg(long, value_name = "ADDR", env = "TOLLGATE_ADVERTISE")]
    advertise: Option<SocketAddr>,
    /// Runtime socket of a HAProxy whose servers follow the instances: a path, or address:port; several with commas
    #[arg(long, value_name = "SOCKET", env = "TOLLGATE_HAPROXY")]
    haproxy: Option<String>,
    /// HAProxy's backend with the instances
    #[arg(
        long,
        value_name = "NAME",
        env = "TOLLGATE_HAPROXY_BACKEND",
        default_value = "tollgate",
        requires = "haproxy"
    )]
    haproxy_backend: String,
}

impl ClusterArgs {
    /// This instance's name: one was given, or it is among others.
    pub fn instance(&self) -> Result<Option<String>, Failure> {
        let name = match &self.instance {
            Some(name) => name.clone(),
            None if self.nacos.is_some() => {
                host_name().ok_or("this host has no name; say which instance this is with --instance")?
            }
            None => return Ok(None),
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            let rule = "letters, digits, `.`, `-` and `_`, 64 at most";
            return Err(format!("`{name}` is no name for an instance: {rule}").into());
        }
        Ok(Some(name))
    }

    /// Where clients reach this instance.
    pub fn advertise(&self) -> Option<SocketAddr> {
        self.advertise
    }

    /// The front balancers that follow the instances.
    pub fn balancer(&self) -> Result<Option<BalancerOptions>, Failure> {
        let Some(sockets) = &self.haproxy else {
            return Ok(None);
        };
        let sockets = sockets
            .split(',')
            .map(|socket| socket.trim().parse().map_err(|e| format!("--haproxy: {e}")))
            .collect::<Result<Vec<_>, _>>()?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':');
        if self.haproxy_backend.is_empty() || !self.haproxy_backend.bytes().all(plain) {
            return Err(format!("`{}` is no name of a backend", self.haproxy_backend).into());
        }
        Ok(Some(BalancerOptions {
            sockets,
            backend: self.haproxy_backend.clone(),
        }))
    }

    fn account(&self) -> Result<Option<Account>, Failure> {
        let Some(user) = self.nacos_user.clone() else {
            return Ok(None);
        };
        let text = match (&self.nacos_password_file, std::env::var(PASSWORD)) {
            (Some(path), _) => Zeroizing::new(
                std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?,
            ),
            (None, Ok(text)) => Zeroizing::new(text),
            (None, Err(_)) => {
                return Err(format!(
                    "`--nacos-user` needs a password: --nacos-password-file, or {PASSWORD} in the environment"
                )
                .into());
            }
        };
        let password = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
        Ok(Some(Account { user, password }))
    }

    /// Where Nacos is, if it is to be used.
    pub fn nacos(&self) -> Result<Option<NacosOptions>, Failure> {
        let Some(url) = &self.nacos else {
            return Ok(None);
        };
        Ok(Some(NacosOptions {
            servers: NacosOptions::servers(url)?,
            namespace: self.nacos_namespace.clone(),
            account: self.account()?,
            instance: self.instance()?.unwrap_or_default(),
        }))
    }
}
