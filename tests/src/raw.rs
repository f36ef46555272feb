//! A server that says whatever bytes a test gives it: for answers that no server should give.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Its request line and header lines.
    pub head: String,
    /// The connection, counted from 0.
    pub connection: usize,
}

impl Arrived {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// What is sent back.
#[derive(Clone, Debug)]
pub struct Say {
    /// These bytes,
    pub first: Vec<u8>,
    /// then these,
    pub bytes: Vec<u8>,
    /// as often as this.
    pub times: usize,
    /// And then the connection is closed.
    pub close: bool,
}

impl Say {
    /// An answer with a body, after which the connection stays.
    pub fn answer(status: &str, headers: &str, body: &str) -> Self {
        let bytes = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        Self {
            first: Vec::new(),
            bytes: bytes.into_bytes(),
            times: 1,
            close: false,
        }
    }

    /// Bytes, and then the connection is closed.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            first: Vec::new(),
            bytes: bytes.into(),
            times: 1,
            close: true,
        }
    }

    /// A short chat completion.
    pub fn completion() -> Self {
        let body = r#"{"id":"x","object":"chat.completion","created":1,"model":"x","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#;
        Self::answer("200 OK", "Content-Type: application/json\r\n", body)
    }
}

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct RawServer {
    address: SocketAddr,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    task: JoinHandle<()>,
}

impl RawServer {
    /// Starts on a free port of the loopback interface. `say` is asked for each request.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start(say: impl Fn(&Arrived) -> Say + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let (say, noted) = (Arc::new(say), Arc::clone(&arrived));
        let task = tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                let (say, noted) = (Arc::clone(&say), Arc::clone(&noted));
                tokio::spawn(async move { serve(stream, connection, &*say, &noted).await });
            }
        });
        Self {
            address,
            arrived,
            task,
        }
    }

    /// `http://address`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests so far.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.arrived
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    say: &(dyn Fn(&Arrived) -> Say + Send + Sync),
    noted: &Mutex<Vec<Arrived>>,
) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = memchr::memmem::find(&buffer, b"\r\n\r\n") {
                break end + 4;
            }
            (stream.read_buf(&mut buffer).await.ok()? > 0).then_some(())?;
        };
        let arrived = Arrived {
            head: String::from_utf8_lossy(&buffer[..end]).into_owned(),
            connection,
        };
        let length: usize = arrived
            .header("content-length")
            .map_or(0, |l| l.parse().unwrap_or(0));
        while buffer.len() < end + length {
            (stream.read_buf(&mut buffer).await.ok()? > 0).then_some(())?;
        }
        buffer.drain(..end + length);
        noted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(arrived.clone());
        let said = say(&arrived);
        stream.write_all(&said.first).await.ok()?;
        for _ in 0..said.times {
            stream.write_all(&said.bytes).await.ok()?;
        }
        if said.close {
            return stream.shutdown().await.ok();
        }
    }
}
