//! A TCP proxy between two programs that delays, drips, holds back or cuts what passes.

use crate::port::Port;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often what is held back is looked after.
const HELD: Duration = Duration::from_millis(5);

/// What happens to bytes, both ways.
#[derive(Debug, Default)]
struct Faults {
    /// Microseconds that each piece is held back.
    delay: AtomicU64,
    /// Most bytes in a piece; 0 for any.
    drip: AtomicU64,
    /// Bytes are swallowed, connections stay: a network that loses everything.
    silent: AtomicBool,
    /// Bytes wait, connections stay: a network that is cut, and after which the kernels send again.
    held: AtomicBool,
}

/// A proxy in front of one address. Dropped, it ends with all its connections.
#[derive(Debug)]
pub struct FaultProxy {
    port: Port,
    faults: Arc<Faults>,
    target: Arc<Mutex<SocketAddr>>,
    /// Which connections live: those of the present epoch, and none while it is odd.
    epoch: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl FaultProxy {
    /// Starts one on a free port.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start(target: SocketAddr) -> Self {
        Self::on(Port::free(), target).await
    }

    /// Starts one on this port.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn on(port: Port, target: SocketAddr) -> Self {
        let listener = TcpListener::bind(port.address())
            .await
            .expect("the proxy listens");
        let faults = Arc::new(Faults::default());
        let epoch = watch::Sender::new(0);
        let target = Arc::new(Mutex::new(target));
        let task = tokio::spawn(accept(
            listener,
            Arc::clone(&target),
            Arc::clone(&faults),
            epoch.subscribe(),
        ));
        Self {
            port,
            faults,
            target,
            epoch,
            task,
        }
    }

    /// Where clients go.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Holds each piece back for this long.
    pub fn delay(&self, time: Duration) {
        let microseconds = u64::try_from(time.as_micros()).expect("a reasonable time");
        self.faults.delay.store(microseconds, Ordering::Relaxed);
    }

    /// Passes on at most so many bytes at a time, each after the delay; 0 for no limit.
    pub fn drip(&self, bytes: u64) {
        self.faults.drip.store(bytes, Ordering::Relaxed);
    }

    /// Swallows everything, without ending a connection, or passes it again.
    pub fn silence(&self, silent: bool) {
        self.faults.silent.store(silent, Ordering::Relaxed);
    }

    /// Holds everything back, without ending a connection, or lets it go, late.
    pub fn hold(&self, held: bool) {
        self.faults.held.store(held, Ordering::Relaxed);
    }

    /// Ends all connections and lets no new one through, until [`Self::mend`].
    pub fn cut(&self) {
        self.epoch.send_if_modified(|epoch| {
            let whole = epoch.is_multiple_of(2);
            *epoch += u64::from(whole);
            whole
        });
    }

    /// Leads new connections to another address; those that are open end.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
        self.epoch.send_modify(|epoch| *epoch += 2);
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.epoch.send_if_modified(|epoch| {
            let cut = !epoch.is_multiple_of(2);
            *epoch += u64::from(cut);
            cut
        });
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
        // Connections see that nobody holds the epoch any more.
    }
}

async fn accept(
    listener: TcpListener,
    target: Arc<Mutex<SocketAddr>>,
    faults: Arc<Faults>,
    epoch: watch::Receiver<u64>,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        let born = *epoch.borrow();
        if !born.is_multiple_of(2) {
            continue;
        }
        let target = *target.lock().unwrap_or_else(PoisonError::into_inner);
        let (faults, mut epoch) = (Arc::clone(&faults), epoch.clone());
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(target).await else {
                return;
            };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::select! {
                () = pass(from_client, to_server, &faults) => {}
                () = pass(from_server, to_client, &faults) => {}
                _ = epoch.wait_for(|now| *now != born) => {}
            }
        });
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, faults: &Faults) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let most = match usize::try_from(faults.drip.load(Ordering::Relaxed)) {
            Ok(0) | Err(_) => buffer.len(),
            Ok(some) => some.min(buffer.len()),
        };
        let read = match from.read(&mut buffer[..most]).await {
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        let delay = faults.delay.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_micros(delay)).await;
        }
        if faults.silent.load(Ordering::Relaxed) {
            continue;
        }
        while faults.held.load(Ordering::Relaxed) {
            tokio::time::sleep(HELD).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{self, Request};
    use crate::mock::MockLlm;
    use std::time::Instant;

    #[tokio::test]
    async fn passes_delays_drips_and_cuts() {
        let mock = MockLlm::start().await;
        let proxy = FaultProxy::start(mock.address()).await;
        let request = Request::chat("mock?tokens=3", " hello");
        let send = || http::send(proxy.address(), &request);
        assert_eq!(send().await.unwrap().status(), 200);
        proxy.delay(Duration::from_millis(50));
        let begun = Instant::now();
        assert_eq!(send().await.unwrap().status(), 200);
        assert!(begun.elapsed() >= Duration::from_millis(100));
        proxy.delay(Duration::from_micros(10));
        proxy.drip(100);
        assert_eq!(send().await.unwrap().status(), 200);
        let mut open = http::Connection::open(proxy.address()).await.unwrap();
        assert_eq!(open.exchange(&request).await.unwrap().status(), 200);
        proxy.cut();
        assert!(open.exchange(&request).await.is_err());
        assert!(send().await.is_err());
        proxy.mend();
        assert_eq!(send().await.unwrap().status(), 200);
        proxy.hold(true);
        let held = send();
        tokio::pin!(held);
        let waited = tokio::time::timeout(Duration::from_millis(100), &mut held).await;
        assert!(waited.is_err());
        proxy.hold(false);
        assert_eq!(held.await.unwrap().status(), 200);
        proxy.silence(true);
        let silent = tokio::time::timeout(Duration::from_millis(200), send()).await;
        assert!(silent.is_err());
    }
}
