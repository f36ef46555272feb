//! A small HTTP/1.1 server, written by hand because its answers must be able to be wrong.

use super::answer::{self, Answer};
use super::ask::{Ask, base_model};
use super::behaviour::{Behaviour, Fault, Framing, Point};
use super::stats::{Arrival, End, Entry, Stats};
use super::stream;
use super::wire::{Gone, Wire};
use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const MAX_HEAD: usize = 256 * 1024;
const MAX_BODY: usize = 512 * 1024 * 1024;
/// Answers that are kept ready: equal requests are then answered without reading JSON or counting tokens.
const KEPT_ANSWERS: usize = 512;
/// Longest request and answer that are kept, bytes.
const KEPT_SIZE: usize = 64 * 1024;

type Ready = Arc<(Ask, Answer)>;

/// What the connections of one mock share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub stats: Stats,
    default_tokens: Arc<AtomicU64>,
    ready: Arc<Mutex<HashMap<Vec<u8>, Ready>>>,
    released: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new(stats: Stats) -> Self {
        Self {
            stats,
            default_tokens: Arc::new(AtomicU64::new(Behaviour::default().tokens)),
            ready: Arc::default(),
            released: watch::Sender::new(false),
        }
    }

    /// Answers that were kept ready have the former number.
    pub(super) fn set_default_tokens(&self, tokens: u64) {
        self.default_tokens.store(tokens, Ordering::Relaxed);
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The answer to a request, from memory if the very same was asked before.
    fn ready(&self, path: &str, options: Option<&str>, body: &[u8]) -> Result<Ready, Answer> {
        let key = (body.len() <= KEPT_SIZE).then(|| {
            let mut key = Vec::with_capacity(path.len() + body.len() + 16);
            key.extend_from_slice(path.as_bytes());
            key.push(0);
            key.extend_from_slice(options.unwrap_or_default().as_bytes());
            key.push(0);
            key.extend_from_slice(body);
            key
        });
        let lock = || self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = key.as_ref().and_then(|key| lock().get(key).cloned()) {
            return Ok(found);
        }
        let ask = Ask::read(path, options, body, self.default_tokens.load(Ordering::Relaxed)).map_err(
            |(api, message)| {
                let status = if api.is_none() { 404 } else { 400 };
                answer::error(api, status, &message)
            },
        )?;
        let answer = answer::answer(&ask);
        let size: usize = answer.pieces.iter().map(|piece| piece.bytes.len()).sum();
        let made = Arc::new((ask, answer));
        if let Some(key) = key.filter(|_| size <= KEPT_SIZE) {
            let mut ready = lock();
            if ready.len() < KEPT_ANSWERS {
                ready.insert(key, Arc::clone(&made));
            }
        }
        Ok(made)
    }
}

/// Accepts until the task is dropped.
pub(super) async fn serve(listener: TcpListener, shared: Shared) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                let shared = shared.clone();
                tokio::spawn(async move {
                    shared.stats.connection_opened();
                    let counted = Counted(&shared.stats);
                    Connection {
                        stream,
                        buffer: Vec::new(),
                        shared: &shared,
                    }
                    .run()
                    .await;
                    drop(counted);
                });
            }
            // Out of descriptors: those in use come free again.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Counts a connection as closed, also when its task is dropped.
struct Counted<'a>(&'a Stats);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.connection_closed();
    }
}

struct Connection<'a> {
    stream: TcpStream,
    buffer: Vec<u8>,
    shared: &'a Shared,
}

/// What the head says about the body and the connection.
struct Head {
    length: usize,
    body: Body,
    close: bool,
}

enum Body {
    Length(usize),
    Chunked,
}

/// Whether the connection can take another request.
enum Next {
    Keep,
    Close,
}

impl Connection<'_> {
    async fn run(mut self) {
        loop {
            let head = match self.read_head().await {
                Ok(Some(head)) => head,
                // The client left, or is not speaking HTTP.
                Ok(None) | Err(_) => return,
            };
            let Ok((body, taken)) = self.read_body(&head).await else {
                return;
            };
            let request = std::mem::take(&mut self.buffer);
            let next = self
                .answer(
                    &request[..head.length],
                    body_slice(&request, &head, &body),
                    head.close,
                )
                .await;
            // What is left of a pipelined request.
            self.buffer = request;
            self.buffer.drain(..taken);
            if self.buffer.is_empty() && self.buffer.capacity() > KEPT_SIZE {
                self.buffer = Vec::new();
            }
            match next {
                Ok(Next::Keep) => {}
                Ok(Next::Close) => {
                    let _ = self.stream.shutdown().await;
                    return;
                }
                Err(Gone) => return,
            }
        }
    }

    async fn read_head(&mut self) -> Result<Option<Head>, Gone> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                return Ok(parse_head(&self.buffer[..end + 4]));
            }
            if self.buffer.len() > MAX_HEAD || !self.fill().await? {
                return Ok(None);
            }
        }
    }

    async fn fill(&mut self) -> Result<bool, Gone> {
        self.buffer.reserve(8 * 1024);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// Reads the body; returns it if it had to be put together, and where the request ends in the buffer.
    async fn read_body(&mut self, head: &Head) -> Result<(Option<Vec<u8>>, usize), Gone> {
        match head.body {
            Body::Length(length) => {
                let end = head.length + length.min(MAX_BODY);
                while self.buffer.len() < end {
                    if !self.fill().await? {
                        return Err(Gone);
                    }
                }
                Ok((None, end))
            }
            Body::Chunked => {
                let mut body = Vec::new();
                let mut at = head.length;
                loop {
                    match httparse::parse_chunk_size(&self.buffer[at..]) {
                        Ok(httparse::Status::Complete((skip, size))) => {
                            let from = at + skip;
                            let to = from + usize::try_from(size).map_err(|_| Gone)?;
                            if to - head.length > MAX_BODY {
                                return Err(Gone);
                            }
                            while self.buffer.len() < to + 2 {
                                if !self.fill().await? {
                                    return Err(Gone);
                                }
                            }
                            body.extend_from_slice(&self.buffer[from..to]);
                            at = to + 2;
                            if size == 0 {
                                return Ok((Some(body), at));
                            }
                        }
                        Ok(httparse::Status::Partial) => {
                            if !self.fill().await? {
                                return Err(Gone);
                            }
                        }
                        Err(_) => return Err(Gone),
                    }
                }
            }
        }
    }

    async fn answer(&mut self, head: &[u8], body: &[u8], close: bool) -> Result<Next, Gone> {
        let mut headers = [httparse::EMPTY_HEADER; 128];
        let mut request = httparse::Request::new(&mut headers);
        if request.parse(head).is_err() {
            return Err(Gone);
        }
        let method = request.method.unwrap_or_default();
        let target = request.path.unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let header = |name: &str| {
            request
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case(name))
                .and_then(|header| std::str::from_utf8(header.value).ok())
        };
        if path.starts_with("/mock/") {
            return self.control(method, path, close).await;
        }
        let ready = self.shared.ready(path, header("x-mock"), body);
        let (model, prompt_tokens) = match &ready {
            Ok(ready) if ready.1.status == 200 => (ready.0.model.as_str(), ready.0.prompt_tokens),
            Ok(ready) => (ready.0.model.as_str(), 0),
            Err(_) => ("", 0),
        };
        let model = base_model(model);
        let mut entry = self.shared.stats.begin(Arrival {
            method,
            target,
            headers: request.headers,
            body,
            model,
            prompt_tokens,
        });
        if header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")) {
            return self.echo(entry).await;
        }
        match ready {
            Ok(ready) => self.send(&ready.0, &ready.1, entry, close).await,
            Err(error) => {
                entry.end(End::Failed);
                let mut wire = Wire::new(&mut self.stream, &Behaviour::default(), Framing::Length);
                wire.hold(head_of(&error, Framing::Length, false, close).as_bytes());
                for piece in &error.pieces {
                    wire.body(&piece.bytes).await?;
                }
                Ok(if close { Next::Close } else { Next::Keep })
            }
        }
    }

    async fn control(&mut self, method: &str, path: &str, close: bool) -> Result<Next, Gone> {
        let body = match (method, path) {
            ("GET", "/mock/stats") => Some(self.shared.stats.to_json()),
            ("GET", "/mock/requests") => Some(self.shared.stats.records_json()),
            ("GET", "/mock/health") => Some(serde_json::json!({ "ok": true })),
            ("POST", "/mock/release") => {
                self.shared.released.send_replace(true);
                Some(serde_json::json!({ "ok": true }))
            }
            ("POST", "/mock/reset") => {
                self.shared.stats.reset();
                Some(serde_json::json!({ "ok": true }))
            }
            _ => None,
        };
        let (status, body) = body.map_or((404, "{}".to_owned()), |body| (200, body.to_string()));
        let connection = if close { "close" } else { "keep-alive" };
        let answer = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{body}",
            reason(status),
            body.len()
        );
        self.stream.write_all(answer.as_bytes()).await?;
        Ok(if close { Next::Close } else { Next::Keep })
    }

    /// A WebSocket that sends back whatever bytes come, frames and all; ends with the client.
    async fn echo(&mut self, mut entry: Entry) -> Result<Next, Gone> {
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        self.stream.write_all(head.as_bytes()).await?;
        let mut buffer = vec![0; 4096];
        loop {
            let read = self.stream.read(&mut buffer).await?;
            if read == 0 {
                entry.end(End::Completed);
                return Ok(Next::Close);
            }
            self.stream.write_all(&buffer[..read]).await?;
        }
    }

    async fn send(
        &mut self,
        ask: &Ask,
        answer: &Answer,
        mut entry: Entry,
        close: bool,
    ) -> Result<Next, Gone> {
        let behaviour = &ask.behaviour;
        let streams = answer.content_type == "text/event-stream";
        // A compressed body's length is not known beforehand, nor is that of an endless one.
        let unknown = behaviour.gzip || answer.repeat.is_some();
        let framing = match behaviour.framing {
            Some(Framing::Length) | None if unknown || (streams && behaviour.framing.is_none()) => {
                Framing::Chunked
            }
            Some(framing) => framing,
            None => Framing::Length,
        };
        let close = close || !behaviour.keepalive || framing == Framing::Close;
        let mut wire = Wire::new(&mut self.stream, behaviour, framing);
        let mut released = self.shared.released.subscribe();
        let sent = write_answer(&mut wire, ask, answer, &mut entry, &mut released, framing, close).await;
        match sent {
            Ok(Sent::Whole) => Ok(if close { Next::Close } else { Next::Keep }),
            Ok(Sent::Fault(Fault::Reset)) => {
                entry.end(End::Failed);
                let _ = rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
                Err(Gone)
            }
            Ok(Sent::Fault(_)) => {
                entry.end(End::Failed);
                Ok(Next::Close)
            }
            Err(gone) => {
                entry.end(End::Aborted);
                Err(gone)
            }
        }
    }
}

enum Sent {
    Whole,
    Fault(Fault),
}

async fn write_answer(
    wire: &mut Wire<'_>,
    ask: &Ask,
    answer: &Answer,
    entry: &mut Entry,
    released: &mut watch::Receiver<bool>,
    framing: Framing,
    close: bool,
) -> Result<Sent, Gone> {
    let behaviour = &ask.behaviour;
    wire.pause(behaviour.latency).await?;
    if let Some(sent) = fault(wire, behaviour, Point::Before).await? {
        return Ok(sent);
    }
    let head = head_of(answer, framing, behaviour.gzip, close);
    let plain = answer.content_type != "text/event-stream";
    if !behaviour.slow_headers.is_zero() {
        for line in head.split_inclusive('\n') {
            wire.raw(line.as_bytes()).await?;
            wire.pause(behaviour.slow_headers).await?;
        }
    } else if plain && behaviour.fault.is_none() {
        wire.hold(head.as_bytes());
    } else {
        wire.raw(head.as_bytes()).await?;
    }
    if let Some(sent) = fault(wire, behaviour, Point::Head).await? {
        return Ok(sent);
    }
    let broken = behaviour
        .fault
        .filter(|(_, point)| *point == Point::Mid)
        .map(|(fault, _)| fault);
    if let (true, Some(_), Some(piece)) = (plain, broken, answer.pieces.first()) {
        let at = usize::try_from(behaviour.at.unwrap_or(piece.bytes.len() as u64 / 2)).unwrap_or(usize::MAX);
        wire.body(&piece.bytes[..at.min(piece.bytes.len())]).await?;
        return Ok(fault(wire, behaviour, Point::Mid).await?.unwrap_or(Sent::Whole));
    }
    let end = if answer.status == 200 && broken.is_none() {
        End::Completed
    } else {
        End::Failed
    };
    let stop = broken.map(|_| behaviour.at.unwrap_or(answer.pieces.len() as u64 / 2));
    let mut number = 0;
    let mut index = 0;
    while let Some(piece) = answer.pieces.get(index) {
        if number > 0 {
            wire.pause(behaviour.interval).await?;
        }
        if behaviour.hold == Some(number) {
            wire.wait_for(released).await?;
        }
        if stop == Some(number) {
            if broken == Some(Fault::Fail) {
                wire.body(&stream::error_event(ask)).await?;
                break;
            }
            return Ok(fault(wire, behaviour, Point::Mid).await?.unwrap_or(Sent::Whole));
        }
        index += 1;
        // The client has everything with these bytes: it must then find the request ended.
        if framing == Framing::Length && index == answer.pieces.len() {
            entry.end(end);
        }
        entry.writes(piece.tokens, piece.reported);
        if let Err(gone) = wire.body(&piece.bytes).await {
            entry.takes_back(piece.tokens, piece.reported);
            return Err(gone);
        }
        number += 1;
        if index == answer.pieces.len() {
            index = answer.repeat.unwrap_or(index);
        }
        // An endless stream to a fast reader must not keep the other connections waiting.
        if answer.repeat.is_some() && behaviour.interval.is_zero() {
            tokio::task::yield_now().await;
        }
    }
    entry.end(end);
    wire.end().await?;
    Ok(Sent::Whole)
}

/// Does what is asked for at this point, if anything is.
async fn fault(wire: &mut Wire<'_>, behaviour: &Behaviour, point: Point) -> Result<Option<Sent>, Gone> {
    let Some((fault, _)) = behaviour.fault.filter(|(_, at)| *at == point) else {
        return Ok(None);
    };
    match fault {
        Fault::Hang => return Err(wire.hang().await),
        Fault::Garbage if point == Point::Before => {
            wire.raw(b"\x16\x03\x01\0 this is not HTTP\r\n\r\n").await?
        }
        Fault::Garbage => {
            wire.body(b"\xff\xfe{]data: {\"usage\":{\"prompt_tokens\":-1,\n\n")
                .await?
        }
        Fault::Reset | Fault::Close | Fault::Fail => {}
    }
    Ok(Some(Sent::Fault(fault)))
}

fn head_of(answer: &Answer, framing: Framing, gzip: bool, close: bool) -> String {
    let mut head = Vec::with_capacity(256);
    let _ = write!(
        head,
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nServer: mock-llm\r\n{}",
        answer.status,
        reason(answer.status),
        answer.content_type,
        answer.headers
    );
    if gzip {
        head.extend_from_slice(b"Content-Encoding: gzip\r\n");
    }
    match framing {
        Framing::Chunked => head.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::Length => {
            let length: usize = answer.pieces.iter().map(|piece| piece.bytes.len()).sum();
            let _ = write!(head, "Content-Length: {length}\r\n");
        }
        Framing::Close => {}
    }
    head.extend_from_slice(if close {
        b"Connection: close\r\n\r\n"
    } else {
        b"Connection: keep-alive\r\n\r\n"
    });
    String::from_utf8(head).unwrap_or_default()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        529 => "Overloaded",
        _ => "Status",
    }
}

fn parse_head(bytes: &[u8]) -> Option<Head> {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(bytes).ok()?;
    let mut head = Head {
        length: bytes.len(),
        body: Body::Length(0),
        close: request.version == Some(0),
    };
    for header in request.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or_default();
        if header.name.eq_ignore_ascii_case("content-length") {
            head.body = Body::Length(value.parse().ok()?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            head.body = Body::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") {
            if value.eq_ignore_ascii_case("close") {
                head.close = true;
            } else if value.eq_ignore_ascii_case("keep-alive") {
                head.close = false;
            }
        }
    }
    Some(head)
}

fn body_slice<'a>(request: &'a [u8], head: &Head, body: &'a Option<Vec<u8>>) -> &'a [u8] {
    match (body, &head.body) {
        (Some(body), _) => body,
        (None, Body::Length(length)) => &request[head.length..(head.length + length).min(request.len())],
        (None, Body::Chunked) => &[],
    }
}
