//! HAProxy's runtime socket: one command a connection, as its management guide (9.3) describes it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::plan::{Admin, Server};

/// Longest wait for an answer, and its longest text.
const PATIENCE: Duration = Duration::from_secs(2);
const MOST: u64 = 1 << 20;

/// Where a runtime socket is: a path, or an address and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A socket in the file system.
    Path(PathBuf),
    /// A socket in the network.
    Net(SocketAddr),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        if text.starts_with('/') {
            return Ok(Address::Path(text.into()));
        }
        text.parse()
            .map(Address::Net)
            .map_err(|_| format!("`{text}` is neither a path from the root nor an address with a port"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Path(path) => path.display().fmt(f),
            Address::Net(address) => address.fmt(f),
        }
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, command: &str) -> std::io::Result<String> {
    stream.write_all(format!("{command}\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.take(MOST).read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn ask(address: &Address, command: &str) -> Result<String, String> {
    let asked = async {
        match address {
            Address::Path(path) => exchange(UnixStream::connect(path).await?, command).await,
            Address::Net(net) => exchange(TcpStream::connect(net).await?, command).await,
        }
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map_err(|error| format!("{address}: {error}")),
        Err(_) => Err(format!("{address} does not answer within {PATIENCE:?}")),
    }
}

/// Gives a command that answers nothing if it succeeds, or what it has changed.
pub(super) async fn set(address: &Address, command: &str) -> Result<(), String> {
    let answer = ask(address, command).await?;
    let told = answer.trim();
    let done = told.is_empty() || told.starts_with("IP changed") || told.starts_with("port changed");
    // The place has that address already.
    let same = told.starts_with("no need to change");
    if done || same {
        Ok(())
    } else {
        Err(format!("`{command}`: {told}"))
    }
}

/// The servers of a backend.
pub(super) async fn servers(address: &Address, backend: &str) -> Result<Vec<Server>, String> {
    let answer = ask(address, &format!("show servers state {backend}")).await?;
    parse(&answer).ok_or_else(|| {
        let told = answer.trim().lines().next().unwrap_or("nothing");
        format!("cannot read the servers of the backend `{backend}`: {told}")
    })
}

/// The answer to `show servers state`: a version, the names of the columns, a line for each server.
fn parse(text: &str) -> Option<Vec<Server>> {
    let mut lines = text.lines().filter(|line| !line.is_empty());
    lines.next().filter(|version| version.trim() == "1")?;
    let names: Vec<&str> = lines.next()?.strip_prefix('#')?.split_whitespace().collect();
    let place = |name| names.iter().position(|n| *n == name);
    let [name, addr, port, op, admin, weight] = [
        place("srv_name")?,
        place("srv_addr")?,
        place("srv_port")?,
        place("srv_op_state")?,
        place("srv_admin_state")?,
        place("srv_uweight")?,
    ];
    let server = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let field = |at: usize| fields.get(at).copied();
        let number = |at: usize| field(at)?.parse::<u32>().ok();
        let ip = field(addr)?.parse::<std::net::IpAddr>().ok();
        let port = number(port).and_then(|port| u16::try_from(port).ok());
        let place = ip
            .zip(port)
            .filter(|(ip, port)| !ip.is_unspecified() && *port > 0);
        Some(Server {
            name: field(name)?.to_owned(),
            address: place.map(|(ip, port)| SocketAddr::new(ip, port)),
            // 0 stopped, 1 starting, 2 running, 3 stopping softly.
            up: number(op)? > 0,
            admin: Admin::from_bits(number(admin)?),
            weight: number(weight)?,
        })
    };
    lines.map(server).collect()
}

/// How a backend spreads its clients. HAProxy tells it to those whose socket has the level `operator` or `admin`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ways {
    /// `leastconn`, `roundrobin`, …; none if it does not say.
    pub algorithm: Option<String>,
    /// The cookie that keeps a client at its server.
    pub cookie: Option<String>,
}

/// How a backend spreads its clients.
pub(super) async fn ways(address: &Address, backend: &str) -> Result<Ways, String> {
    // 2: backends, without their servers.
    let answer = ask(address, &format!("show stat {backend} 2 -1")).await?;
    Ok(parse_ways(&answer))
}

/// The answer to `show stat`: the names of the columns and a line, with commas between (its guide, 9.1).
fn parse_ways(text: &str) -> Ways {
    let mut lines = text.lines();
    let names = lines.next().and_then(|line| line.strip_prefix("# "));
    let (Some(names), Some(line)) = (names, lines.next()) else {
        return Ways::default();
    };
    let field = |wanted: &str| {
        let at = names.split(',').position(|name| name == wanted)?;
        let text = line.split(',').nth(at)?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    };
    Ways {
        algorithm: field("algo"),
        cookie: field("cookie"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As HAProxy 2.6 writes it.
    const STATE: &str = "1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port
3 tollgate 1 gateway1 127.0.0.1 2 4 100 1 0 1 0 1 6 0 0 0 - 18080 - 0 0 - - 0
3 tollgate 2 gateway2 127.0.0.2 0 12 50 1 3 1 0 0 14 0 0 0 - 8080 - 0 0 - - 0
3 tollgate 3 gateway3 0.0.0.0 0 5 1 1 3 1 0 0 14 0 0 0 - 0 - 0 0 - - 0

";

    #[test]
    fn the_state_of_servers_is_read() {
        let servers = parse(STATE).unwrap();
        let shown: Vec<_> = servers
            .iter()
            .map(|s| {
                (
                    s.name.as_str(),
                    s.address.map(|a| a.to_string()),
                    s.up,
                    s.admin,
                    s.weight,
                )
            })
            .collect();
        let address = |text: &str| Some(text.to_owned());
        assert_eq!(
            shown,
            [
                ("gateway1", address("127.0.0.1:18080"), true, Admin::Ready, 100),
                ("gateway2", address("127.0.0.2:8080"), false, Admin::Drain, 50),
                ("gateway3", None, false, Admin::Maintenance, 1),
            ]
        );
        for wrong in ["", "Can't find backend.\n", "2\n# a b\n", "1\nnothing\n"] {
            assert!(parse(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn how_clients_are_spread_is_read() {
        let told = |text: &str| {
            let Ways { algorithm, cookie } = parse_ways(text);
            (algorithm.unwrap_or_default(), cookie.unwrap_or_default())
        };
        let head = "# pxname,svname,status,cookie,mode,algo,";
        let both = format!("{head}\ntollgate,BACKEND,UP,where,http,leastconn,\n\n");
        assert_eq!(told(&both), ("leastconn".to_owned(), "where".to_owned()));
        let plain = format!("{head}\ntollgate,BACKEND,UP,,http,roundrobin,\n\n");
        assert_eq!(told(&plain), ("roundrobin".to_owned(), String::new()));
        for nothing in ["", "\n", head, "Can't find that proxy.\n"] {
            assert_eq!(told(nothing), Default::default(), "{nothing:?}");
        }
    }

    #[test]
    fn addresses_are_paths_or_sockets() {
        assert_eq!("/run/a".parse(), Ok(Address::Path("/run/a".into())));
        assert!(matches!("127.0.0.1:9999".parse(), Ok(Address::Net(_))));
        assert!("haproxy".parse::<Address>().is_err());
    }
}
