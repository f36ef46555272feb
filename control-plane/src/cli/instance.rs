//! `tollgate instance`: the cluster's instances, through any of them.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};
use ureq::http::Method;

use super::client::{Daemon, part};
use super::status::number;
use super::{Failure, print};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List instances: state, load, leases, and whether they agree
    List {
        #[command(flatten)]
        daemon: Daemon,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Take an instance out of the cluster; what is in flight ends by itself
    Drain {
        /// Its name
        instance: String,
        /// Take it in again
        #[arg(long)]
        off: bool,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Set an instance's share of the front balancer's clients
    Weight {
        /// Its name
        instance: String,
        /// 0..=256; 100 by default, 0 for none
        weight: u32,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Write the configuration of a new instance into a folder
    Join {
        /// The name that it will have
        instance: String,
        /// Address at which the front balancer will reach its nginx
        #[arg(long, value_name = "ADDR")]
        advertise: SocketAddr,
        /// Where to
        #[arg(long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Take away what an instance that is gone had of its own
    Remove {
        /// Its name
        instance: String,
        #[command(flatten)]
        daemon: Daemon,
    },
}

fn path(instance: &str) -> String {
    format!("/instances/{}", part(instance))
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::List { daemon, json } => {
            let found = daemon.client()?.get("/instances")?;
            if *json {
                return print(&format!("{}\n", serde_json::to_string_pretty(&found)?));
            }
            print(&listed(&found))
        }
        Command::Drain {
            instance,
            off,
            daemon,
        } => {
            let body = json!({ "drain": !off });
            daemon
                .client()?
                .send(&Method::PATCH, &path(instance), None, Some(&body))?;
            let told = if *off {
                "takes clients again"
            } else {
                "takes no new clients"
            };
            print(&format!("{instance} {told}\n"))
        }
        Command::Weight {
            instance,
            weight,
            daemon,
        } => {
            let body = json!({ "weight": weight });
            daemon
                .client()?
                .send(&Method::PATCH, &path(instance), None, Some(&body))?;
            print(&format!("{instance} has the weight {weight}\n"))
        }
        Command::Join {
            instance,
            advertise,
            dir,
            daemon,
        } => {
            let advertise = part(&advertise.to_string());
            let asked = format!("{}/configuration?advertise={advertise}", path(instance));
            join(&daemon.client()?.get(&asked)?, dir)
        }
        Command::Remove { instance, daemon } => {
            daemon.client()?.delete(&path(instance))?;
            print(&format!("{instance} has nothing of its own any more\n"))
        }
    }
}

fn join(found: &Value, dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir)?;
    let mut out = String::new();
    for (name, text) in found["files"].as_object().into_iter().flatten() {
        let file = dir.join(name);
        if file.exists() {
            return Err(format!("{} is there already", file.display()).into());
        }
        std::fs::write(&file, text.as_str().unwrap_or_default())?;
        let _ = writeln!(out, "{}", file.display());
    }
    for (n, step) in found["steps"].as_array().into_iter().flatten().enumerate() {
        let _ = writeln!(out, "{}. {}", n + 1, step.as_str().unwrap_or_default());
    }
    print(&out)
}

fn listed(found: &Value) -> String {
    let mut out = String::new();
    let members = || found["instances"].as_array().into_iter().flatten();
    let requests: u64 = members().map(|member| number(member, "/requests")).sum();
    for member in members() {
        let word = |name: &str| member[name].as_str().unwrap_or_default();
        let state = match (&member["refusing"], &member["draining"], &member["serving"]) {
            (Value::Bool(true), _, _) => "refuses the documents",
            (_, Value::Bool(true), _) => "drained",
            (_, _, Value::Bool(false)) => "no nginx",
            _ => "serves",
        };
        let _ = writeln!(
            out,
            "{:20} {:21} {state}, version {}, weight {}, {} in flight, {:.0} % of the requests, {} leases",
            word("instance"),
            word("address"),
            number(member, "/version"),
            number(member, "/weight"),
            number(member, "/in_flight"),
            number(member, "/requests") as f64 / requests.max(1) as f64 * 100.0,
            number(member, "/leases"),
        );
    }
    if let Some(failure) = found["failure"].as_str() {
        let _ = writeln!(out, "the others cannot be seen: {failure}");
    } else if found["converged"] == false {
        out.push_str("they do not have the same version in force\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_listed_with_what_is_wrong() {
        let found = json!({ "converged": false, "failure": null, "instances": [
            { "instance": "one", "address": "10.0.0.1:80", "version": 3, "weight": 100, "in_flight": 2, "requests": 75,
              "leases": 4, "draining": true, "refusing": false, "serving": true },
            { "instance": "two", "requests": 25 } ] });
        let text = listed(&found);
        let line = "drained, version 3, weight 100, 2 in flight, 75 % of the requests, 4 leases";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("do not have the same version"));
    }
}
