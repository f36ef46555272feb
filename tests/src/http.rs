//! An HTTP/1.1 client that hides nothing: what it sends is written byte for byte, what arrives is given as it came.

use serde_json::Value;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Header fields in order; `Host` and `Content-Length` are added if missing.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Request {
    /// Any request.
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// A GET.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST of JSON.
    pub fn post(target: &str, body: &Value) -> Self {
        Self::post_bytes(target, body.to_string().into_bytes())
    }

    /// A POST of bytes that are called JSON.
    pub fn post_bytes(target: &str, body: Vec<u8>) -> Self {
        Self {
            body,
            ..Self::new("POST", target)
        }
        .header("Content-Type", "application/json")
    }

    /// A chat request with one user message.
    pub fn chat(model: &str, text: &str) -> Self {
        let messages = serde_json::json!([{ "role": "user", "content": text }]);
        Self::post(
            "/v1/chat/completions",
            &serde_json::json!({ "model": model, "messages": messages }),
        )
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds the channel code in its default header.
    #[must_use]
    pub fn channel(self, code: &str) -> Self {
        self.header("channelcode", code)
    }

    /// Sets a member of the JSON body.
    ///
    /// # Panics
    /// If the body is not a JSON object.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        let mut body: Value = serde_json::from_slice(&self.body).expect("a JSON body");
        body.as_object_mut()
            .expect("a JSON object")
            .insert(key.to_owned(), value.into());
        self.body = body.to_string().into_bytes();
        self
    }

    /// The bytes on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        let has = |name: &str| self.headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
        if !has("host") {
            head.push_str("Host: localhost\r\n");
        }
        for (key, value) in &self.headers {
            head.push_str(&format!("{key}: {value}\r\n"));
        }
        if !has("content-length")
            && !has("transfer-encoding")
            && (!self.body.is_empty() || self.method == "POST")
        {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Status line and header fields.
#[derive(Clone, Debug)]
pub struct Head {
    /// Status code.
    pub status: u16,
    /// Header fields in order, names as they were written.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first field of that name, in any letter case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status line and header fields.
    pub head: Head,
    /// The body, without its framing.
    pub body: Vec<u8>,
}

impl Response {
    /// Status code.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// See [`Head::header`].
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The model that a mock says it is, without the options behind its name.
    ///
    /// # Panics
    /// If the body is no JSON.
    pub fn model(&self) -> String {
        let model = self.json()["model"].as_str().unwrap_or_default().to_owned();
        model.split('?').next().unwrap_or_default().to_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the body {:?}", self.text()))
    }

    /// The body as server-sent events.
    pub fn events(&self) -> Vec<crate::sse::Event> {
        crate::sse::SseReader::read_all(&self.body)
    }
}

/// How much of the body is still to come.
#[derive(Clone, Copy, Debug)]
enum Rest {
    Bytes(u64),
    /// Bytes of the chunk that are left.
    Chunk(u64),
    UntilClose,
    Nothing,
}

/// A connection. The parts of a response are read one after the other: head, then body pieces.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    rest: Rest,
    reusable: bool,
    /// Whether any byte of the current answer has arrived.
    answered: bool,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// As the system says.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        Self::with(stream)
    }

    /// Connects from a given local address: one address has only some 28,000 ports for outgoing connections.
    ///
    /// # Errors
    /// As the system says.
    pub async fn open_from(local: SocketAddr, address: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(local)?;
        Self::with(socket.connect(address).await?)
    }

    fn with(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
            rest: Rest::Nothing,
            reusable: true,
            answered: false,
        })
    }

    /// The socket, for what only a test does: half-closing, resetting.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// As the system says.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.answered = false;
        self.stream.write_all(bytes).await
    }

    /// Sends a request and reads the head of its answer.
    ///
    /// # Errors
    /// As the system says; `UnexpectedEof` when the connection ends first; `InvalidData` when it is not HTTP.
    pub async fn send(&mut self, request: &Request) -> io::Result<Head> {
        self.write(&request.to_bytes()).await?;
        self.read_head(&request.method).await
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn exchange(&mut self, request: &Request) -> io::Result<Response> {
        let head = self.send(request).await?;
        let body = self.read_body().await?;
        Ok(Response { head, body })
    }

    /// Whether another request can be sent after the answer was read.
    pub fn is_reusable(&self) -> bool {
        self.reusable && matches!(self.rest, Rest::Nothing)
    }

    /// Whether the answer to the last request has begun.
    pub fn is_answered(&self) -> bool {
        self.answered
    }

    /// Reads a head; interim answers (1xx but 101) are skipped.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn read_head(&mut self, method: &str) -> io::Result<Head> {
        loop {
            while memchr::memmem::find(&self.buffer, b"\r\n\r\n").is_none() {
                self.fill().await?;
            }
            let (head, length, rest, reusable) = parse_head(&self.buffer, method)?;
            self.buffer.drain(..length);
            if (100..200).contains(&head.status) && head.status != 101 {
                continue;
            }
            self.rest = rest;
            self.reusable = reusable;
            return Ok(head);
        }
    }

    /// The next piece of the body as it arrives; `None` at its end.
    ///
    /// # Errors
    /// As [`Self::send`]; `UnexpectedEof` when the body is cut short.
    pub async fn piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            match self.rest {
                Rest::Nothing | Rest::Bytes(0) => {
                    self.rest = Rest::Nothing;
                    return Ok(None);
                }
                Rest::Bytes(left) => {
                    let piece = self.take(left).await?;
                    self.rest = Rest::Bytes(left - piece.len() as u64);
                    return Ok(Some(piece));
                }
                Rest::UntilClose => {
                    if self.buffer.is_empty() && !self.try_fill().await? {
                        self.rest = Rest::Nothing;
                        return Ok(None);
                    }
                    return Ok(Some(std::mem::take(&mut self.buffer)));
                }
                Rest::Chunk(0) => {
                    if !self.begin_chunk().await? {
                        self.rest = Rest::Nothing;
                        return Ok(None);
                    }
                }
                Rest::Chunk(left) => {
                    let piece = self.take(left).await?;
                    let left = left - piece.len() as u64;
                    self.rest = Rest::Chunk(left);
                    if left == 0 {
                        while self.buffer.len() < 2 {
                            self.fill().await?;
                        }
                        self.buffer.drain(..2);
                    }
                    return Ok(Some(piece));
                }
            }
        }
    }

    /// The rest of the body.
    ///
    /// # Errors
    /// As [`Self::piece`].
    pub async fn read_body(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece().await? {
            if body.is_empty() {
                body = piece;
            } else {
                body.extend_from_slice(&piece);
            }
        }
        Ok(body)
    }

    /// Everything until the other side closes, framing included.
    ///
    /// # Errors
    /// As the system says.
    pub async fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        while self.try_fill().await? {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Reads the size line of a chunk; false if it was the last.
    async fn begin_chunk(&mut self) -> io::Result<bool> {
        loop {
            match httparse::parse_chunk_size(&self.buffer) {
                Ok(httparse::Status::Complete((skip, 0))) => {
                    while self.buffer.len() < skip + 2 {
                        self.fill().await?;
                    }
                    self.buffer.drain(..skip + 2);
                    return Ok(false);
                }
                Ok(httparse::Status::Complete((skip, size))) => {
                    self.buffer.drain(..skip);
                    self.rest = Rest::Chunk(size);
                    return Ok(true);
                }
                Ok(httparse::Status::Partial) => self.fill().await?,
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
            }
        }
    }

    /// At most `limit` bytes, at least one.
    async fn take(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() {
            self.fill().await?;
        }
        let count = self
            .buffer
            .len()
            .min(usize::try_from(limit).unwrap_or(usize::MAX));
        if count == self.buffer.len() {
            return Ok(std::mem::take(&mut self.buffer));
        }
        Ok(self.buffer.drain(..count).collect())
    }

    async fn fill(&mut self) -> io::Result<()> {
        if self.try_fill().await? {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    async fn try_fill(&mut self) -> io::Result<bool> {
        self.buffer.reserve(4096);
        let read = self.stream.read_buf(&mut self.buffer).await?;
        self.answered |= read > 0;
        Ok(read > 0)
    }
}

/// Sends a request on its own connection and reads the whole answer.
///
/// # Errors
/// As [`Connection::send`]; `TimedOut` after 60 s.
pub async fn send(address: SocketAddr, request: &Request) -> io::Result<Response> {
    let exchange = async { Connection::open(address).await?.exchange(request).await };
    tokio::time::timeout(Duration::from_secs(60), exchange).await?
}

fn parse_head(buffer: &[u8], method: &str) -> io::Result<(Head, usize, Rest, bool)> {
    let invalid = |message: &str| io::Error::new(io::ErrorKind::InvalidData, message.to_owned());
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Err(invalid("the head is not complete")),
        Err(error) => return Err(invalid(&error.to_string())),
    };
    let status = response.code.unwrap_or(0);
    let headers = response
        .headers
        .iter()
        .map(|field| {
            (
                field.name.to_owned(),
                String::from_utf8_lossy(field.value).into_owned(),
            )
        })
        .collect();
    let head = Head { status, headers };
    let chunked = head
        .header("transfer-encoding")
        .is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let rest = if status == 101 {
        Rest::UntilClose
    } else if method == "HEAD" || status == 204 || status == 304 || status < 200 {
        Rest::Nothing
    } else if chunked {
        Rest::Chunk(0)
    } else if let Some(value) = head.header("content-length") {
        Rest::Bytes(value.parse().map_err(|_| invalid("the length is not a number"))?)
    } else {
        Rest::UntilClose
    };
    let close = head
        .header("connection")
        .is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok((head, length, rest, !close && !matches!(rest, Rest::UntilClose)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::MockLlm;

    #[tokio::test]
    async fn one_connection_serves_many_requests() {
        let mock = MockLlm::start().await;
        let mut connection = Connection::open(mock.address()).await.unwrap();
        for _ in 0..3 {
            for stream in [false, true] {
                let request = Request::chat("mock?tokens=3", " hello").set("stream", stream);
                let response = connection.exchange(&request).await.unwrap();
                assert_eq!(response.status(), 200);
                assert!(connection.is_reusable());
            }
        }
        assert_eq!(mock.stats().connections(), (1, 1));
    }

    #[tokio::test]
    async fn a_body_cut_short_is_an_error() {
        let mock = MockLlm::start().await;
        for stream in [false, true] {
            let request = Request::chat("mock?close=mid", " hello").set("stream", stream);
            let error = send(mock.address(), &request).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
