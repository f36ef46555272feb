//! Writing an answer to a socket: framing, compression, cutting into pieces, and noticing that the client left.

use super::behaviour::{Behaviour, Cut, Framing};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write as _;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Sizes for cutting, pseudo-random and the same for the same seed (xorshift64).
struct Sizes {
    cut: Option<Cut>,
    state: u64,
}

impl Sizes {
    fn new(cut: Option<Cut>, seed: u64) -> Self {
        Self {
            cut,
            state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        }
    }

    fn next(&mut self, left: usize) -> usize {
        let Some(cut) = self.cut else { return left };
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let span = (cut.to - cut.from + 1) as u64;
        let size = cut.from + usize::try_from(self.state % span).unwrap_or(0);
        size.min(left)
    }
}

/// The answer's way out.
pub(super) struct Wire<'a> {
    stream: &'a mut TcpStream,
    framing: Framing,
    gzip: Option<GzEncoder<Vec<u8>>>,
    split: Sizes,
    wire: Sizes,
    out: Vec<u8>,
}

/// The other side is gone.
#[derive(Debug)]
pub(super) struct Gone;

impl From<std::io::Error> for Gone {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

impl<'a> Wire<'a> {
    pub(super) fn new(stream: &'a mut TcpStream, behaviour: &Behaviour, framing: Framing) -> Self {
        Self {
            stream,
            framing,
            gzip: behaviour
                .gzip
                .then(|| GzEncoder::new(Vec::new(), Compression::fast())),
            split: Sizes::new(behaviour.split, behaviour.seed),
            wire: Sizes::new(behaviour.wire, behaviour.seed.wrapping_add(1)),
            out: Vec::new(),
        }
    }

    /// Bytes outside the body: the head.
    pub(super) async fn raw(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.out.extend_from_slice(bytes);
        self.flush().await
    }

    /// Bytes that leave with the next write: the head of a plain answer and its body are one write.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// A part of the body, sent before this returns.
    pub(super) async fn body(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        match &mut self.gzip {
            Some(gzip) => {
                gzip.write_all(bytes)?;
                gzip.flush()?;
                let packed = std::mem::take(gzip.get_mut());
                self.framed(&packed).await
            }
            None => self.framed(bytes).await,
        }
    }

    /// The end of the body.
    pub(super) async fn end(&mut self) -> Result<(), Gone> {
        if let Some(gzip) = self.gzip.take() {
            let rest = gzip.finish()?;
            self.framed(&rest).await?;
        }
        if self.framing == Framing::Chunked {
            self.out.extend_from_slice(b"0\r\n\r\n");
        }
        self.flush().await
    }

    async fn framed(&mut self, mut bytes: &[u8]) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(self.split.next(bytes.len()));
            bytes = rest;
            if self.framing == Framing::Chunked {
                write!(self.out, "{:x}\r\n", piece.len())?;
                self.out.extend_from_slice(piece);
                self.out.extend_from_slice(b"\r\n");
            } else {
                self.out.extend_from_slice(piece);
            }
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        let mut rest: &[u8] = &self.out;
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(self.wire.next(rest.len()));
            self.stream.write_all(piece).await?;
            rest = later;
            if self.wire.cut.is_some() {
                // Lets the reader see this piece alone, as far as the scheduler plays along.
                tokio::task::yield_now().await;
            }
        }
        self.out.clear();
        // A large plain body must not stay allocated for the life of a connection.
        if self.out.capacity() > 256 * 1024 {
            self.out = Vec::new();
        }
        Ok(())
    }

    /// Waits, but no longer than the client is there.
    pub(super) async fn pause(&mut self, time: Duration) -> Result<(), Gone> {
        if time.is_zero() {
            return Ok(());
        }
        pause(self.stream, time).await
    }

    /// Waits until the signal is given, but no longer than the client is there.
    pub(super) async fn wait_for(&mut self, signal: &mut watch::Receiver<bool>) -> Result<(), Gone> {
        // A closed channel is a mock that ends.
        let given = async { signal.wait_for(|given| *given).await.is_ok() };
        if until(self.stream, given).await? {
            Ok(())
        } else {
            Err(Gone)
        }
    }

    /// Nothing more happens until the client goes away.
    pub(super) async fn hang(&mut self) -> Gone {
        loop {
            if let Err(gone) = pause(self.stream, Duration::from_secs(3600)).await {
                return gone;
            }
        }
    }
}

async fn pause(stream: &TcpStream, time: Duration) -> Result<(), Gone> {
    until(stream, tokio::time::sleep(time)).await
}

async fn until<T>(stream: &TcpStream, event: impl Future<Output = T>) -> Result<T, Gone> {
    tokio::pin!(event);
    let mut byte = [0];
    tokio::select! {
        happened = &mut event => return Ok(happened),
        // Zero bytes: the client closed its side. Data would be a pipelined request, which waits.
        seen = stream.peek(&mut byte) => if seen? == 0 { return Err(Gone) },
    }
    Ok(event.await)
}
