//! A name server on loopback whose answers a test changes: A and AAAA over UDP (RFC 1035), nothing else.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

#[derive(Debug, Default)]
struct Zone {
    names: BTreeMap<String, (Vec<IpAddr>, Duration)>,
    asked: Vec<String>,
    silent: bool,
}

/// A running name server; ends when dropped.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    task: JoinHandle<()>,
}

fn lock(zone: &Mutex<Zone>) -> std::sync::MutexGuard<'_, Zone> {
    zone.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NameServer {
    /// Starts on a free port.
    ///
    /// # Panics
    /// If there is none.
    pub async fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = socket.local_addr().expect("an address");
        let zone = Arc::new(Mutex::new(Zone::default()));
        let served = Arc::clone(&zone);
        let task = tokio::spawn(async move {
            let mut packet = [0; 1_500];
            while let Ok((length, client)) = socket.recv_from(&mut packet).await {
                let answer = answer(&packet[..length], &mut lock(&served));
                if let Some(answer) = answer {
                    let _ = socket.send_to(&answer, client).await;
                }
            }
        });
        Self { address, zone, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on a name has these addresses, each answer for so long; none: there is no such name.
    pub fn set(&self, name: &str, addresses: &[&str], ttl: Duration) {
        let addresses = addresses
            .iter()
            .map(|ip| ip.parse().expect("an address"))
            .collect();
        lock(&self.zone).names.insert(name.to_owned(), (addresses, ttl));
    }

    /// Whether it says nothing at all.
    pub fn silence(&self, silent: bool) {
        lock(&self.zone).silent = silent;
    }

    /// How often a name was asked for, of either kind.
    pub fn asked(&self, name: &str) -> usize {
        lock(&self.zone)
            .asked
            .iter()
            .filter(|asked| *asked == name)
            .count()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `None`: not a question, or not one that is answered.
fn answer(packet: &[u8], zone: &mut Zone) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        name.push(
            std::str::from_utf8(packet.get(at..at + length)?)
                .ok()?
                .to_ascii_lowercase(),
        );
        at += length;
    }
    let kind = u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?);
    let question = packet.get(12..at + 4)?;
    let name = name.join(".");
    zone.asked.push(name.clone());
    if zone.silent {
        return None;
    }
    let known = zone
        .names
        .get(&name)
        .filter(|(addresses, _)| !addresses.is_empty());
    let none = (Vec::new(), Duration::ZERO);
    let (addresses, ttl) = known.unwrap_or(&none);
    let records: Vec<Vec<u8>> = addresses
        .iter()
        .filter_map(|ip| match (ip, kind) {
            (IpAddr::V4(ip), TYPE_A) => Some(ip.octets().to_vec()),
            (IpAddr::V6(ip), TYPE_AAAA) => Some(ip.octets().to_vec()),
            _ => None,
        })
        .collect();
    let mut out = packet.get(..2)?.to_vec();
    // An answer with authority and recursion; 3: no such name.
    out.extend([0x85, if known.is_some() { 0x80 } else { 0x83 }]);
    out.extend([0, 1]);
    out.extend(u16::try_from(records.len()).ok()?.to_be_bytes());
    out.extend([0, 0, 0, 0]);
    out.extend(question);
    for record in records {
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1]);
        out.extend(u32::try_from(ttl.as_secs()).ok()?.to_be_bytes());
        out.extend(u16::try_from(record.len()).ok()?.to_be_bytes());
        out.extend(record);
    }
    Some(out)
}
