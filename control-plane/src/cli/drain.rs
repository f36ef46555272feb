//! `tollgate drain`: takes an instance out of the cluster, and in again.

use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use serde_json::Value;

use super::client::Daemon;
use super::{Failure, print};

/// Time between two looks at what is in flight.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, ClapArgs)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    daemon: Daemon,
    /// Take clients again
    #[arg(long, conflicts_with = "wait")]
    off: bool,
    /// Wait up to so many seconds until nothing is in flight; exit code 1 if something still is
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
}

fn in_flight(state: &Value) -> u64 {
    state.get("in_flight").and_then(Value::as_u64).unwrap_or(0)
}

pub(super) fn run(args: &DrainArgs) -> Result<bool, Failure> {
    let client = args.daemon.client()?;
    if args.off {
        client.delete("/drain")?;
        print("takes clients again\n")?;
        return Ok(true);
    }
    let mut left = in_flight(&client.put("/drain")?);
    let patience = Duration::from_secs(args.wait.unwrap_or(0));
    let began = Instant::now();
    while left > 0 && began.elapsed() < patience {
        std::thread::sleep(LOOK);
        left = in_flight(&client.get("/drain")?);
    }
    print(&format!("takes no new clients; {left} requests in flight\n"))?;
    Ok(args.wait.is_none() || left == 0)
}
