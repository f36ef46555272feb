//! The task that keeps leases: hears of shortages, sends reports, takes over answers, connects again.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use redis::aio::PubSub;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tollgate_lease::{Answer, Notice, script};
use tollgate_policy::documents::Settings;
use tollgate_shm::Region;

use super::{Figures, LeaseSettings, Leases, Link, LinkError, LinkOptions, Together};
use crate::config::StatusWatch;
use crate::secrets::CredentialFolder;

/// Time between two looks at rows in use.
const LOOK: Duration = Duration::from_millis(25);
/// The longest sleep of the waker: how long it takes to notice the end.
const NAP: Duration = Duration::from_millis(200);
/// After a shortage the waker stays awake that long: while workers are short they make no system call.
const AWAKE: Duration = Duration::from_millis(1);
/// The first and the longest pause between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How long nothing may fail until trouble is over.
const CALM: Duration = Duration::from_secs(1);
/// Time between two signs of life.
const BEAT: Duration = Duration::from_secs(3);
/// Time between two entries in the list of instances, which lasts three of them.
const LIST: Duration = Duration::from_secs(30);

enum Event {
    Short,
    Connected(Link, Vec<String>),
    NotConnected(LinkError),
    Answer(Together, Duration, Result<Vec<Answer>, LinkError>),
    Beat(Result<(), LinkError>),
    Notice(u64, Notice),
    ClockOffset(u64),
}

/// What keeps this instance's leases.
pub struct Cluster {
    region: Arc<Region>,
    config: StatusWatch,
    folder: CredentialFolder,
    figures: Arc<Figures>,
}

impl Cluster {
    /// Keeps leases of the region's limits as the configuration says.
    pub fn new(
        region: Arc<Region>,
        config: StatusWatch,
        folder: CredentialFolder,
        figures: Arc<Figures>,
    ) -> Cluster {
        Cluster {
            region,
            config,
            folder,
            figures,
        }
    }

    fn settings(&mut self) -> Arc<Settings> {
        Arc::clone(&self.config.borrow_and_update().settings)
    }

    /// Runs until it is time to end.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            let settings = self.settings();
            self.figures
                .configured
                .store(settings.redis.is_some().into(), Relaxed);
            tokio::select! {
                _ = stop.wait_for(|s| *s) => return,
                () = self.serve(settings) => {}
            }
        }
    }

    /// Serves under these settings; returns when the way to Redis has changed.
    async fn serve(&mut self, settings: Arc<Settings>) {
        let way = |s: &Settings| format!("{:?}", s.redis);
        let mine = way(&settings);
        // The link of former settings is gone.
        self.figures.connected.store(0, Relaxed);
        let Some(redis) = settings.redis.clone() else {
            self.figures.well();
            return self.until_changed(&mine, way).await;
        };
        let access = Access {
            redis: Arc::new(redis),
            folder: self.folder.clone(),
        };
        let (events, mut inbox) = mpsc::unbounded_channel();
        let _waker = Waker::start(Arc::clone(&self.region), events.clone());
        let _listener = Task(tokio::spawn(listen(access.clone(), events.clone())));
        let mut session = Session {
            leases: Leases::resume(
                Arc::clone(&self.region),
                LeaseSettings::of(&settings),
                Arc::clone(&self.figures),
            ),
            region: Arc::clone(&self.region),
            figures: Arc::clone(&self.figures),
            access,
            events,
            link: None,
            connecting: false,
            was_well: false,
            failed_at: None,
            attempt: 0,
            try_at: Instant::now(),
            beat_at: Instant::now(),
            list_at: Instant::now(),
        };
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = self.config.changed() => {
                    let now = self.settings();
                    if changed.is_err() || way(&now) != mine {
                        return;
                    }
                    session.leases.set(LeaseSettings::of(&now));
                }
                Some(event) = inbox.recv() => {
                    session.take(event);
                    while let Ok(event) = inbox.try_recv() {
                        session.take(event);
                    }
                }
                _ = looks.tick() => {}
            }
            session.go_on();
        }
    }

    async fn until_changed(&mut self, mine: &str, way: impl Fn(&Settings) -> String) {
        while self.config.changed().await.is_ok() {
            if way(&self.settings()) != mine {
                return;
            }
        }
        std::future::pending().await
    }
}

/// A task that ends with whoever holds it.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The thread that sleeps until a worker is short.
struct Waker {
    end: Arc<std::sync::atomic::AtomicBool>,
    region: Arc<Region>,
}

impl Waker {
    fn start(region: Arc<Region>, events: mpsc::UnboundedSender<Event>) -> Waker {
        let end = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let waker = Waker {
            end: Arc::clone(&end),
            region: Arc::clone(&region),
        };
        let sleep = move || {
            while !end.load(Relaxed) {
                region.wait_for_shortage(NAP);
                if events.send(Event::Short).is_err() {
                    return;
                }
                std::thread::sleep(AWAKE);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("leases".into()).spawn(sleep) {
            tracing::error!(%error, "shortages are noticed late");
        }
        waker
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        self.end.store(true, Relaxed);
        self.region.wake_daemon();
    }
}

/// The way to Redis. What it names is read anew for each attempt: a password may have been changed.
#[derive(Clone)]
struct Access {
    redis: Arc<tollgate_policy::documents::Redis>,
    folder: CredentialFolder,
}

impl Access {
    fn options(&self) -> Result<LinkOptions, LinkError> {
        LinkOptions::of(&self.redis, &self.folder)
    }

    async fn connect(&self, attempt: usize) -> Result<(Link, Vec<String>), LinkError> {
        let mut link = self.options()?.connect(attempt).await?;
        link.agree().await?;
        link.touch().await?;
        let unsuitable = link.unsuitable().await;
        Ok((link, unsuitable))
    }

    async fn listen(&self, attempt: usize) -> Result<PubSub, LinkError> {
        self.options()?.listen(attempt).await
    }
}

async fn listen(access: Access, events: mpsc::UnboundedSender<Event>) {
    for attempt in 0.. {
        if let Ok(listener) = access.listen(attempt).await {
            let mut messages = listener.into_on_message();
            while let Some(message) = messages.next().await {
                let text: Result<String, _> = message.get_payload();
                if let Some((limit, notice)) = text.ok().as_deref().and_then(script::notice)
                    && events.send(Event::Notice(limit, notice)).is_err()
                {
                    return;
                }
            }
        }
        tokio::time::sleep(BACKOFF.0 * 4).await;
    }
}

struct Session {
    leases: Leases,
    region: Arc<Region>,
    figures: Arc<Figures>,
    access: Access,
    events: mpsc::UnboundedSender<Event>,
    link: Option<Link>,
    connecting: bool,
    /// Whether Redis has ever done what it should.
    was_well: bool,
    /// When it last did not.
    failed_at: Option<Instant>,
    /// Attempts since it last did.
    attempt: u32,
    try_at: Instant,
    beat_at: Instant,
    /// When it is next put on the list of instances.
    list_at: Instant,
}

impl Session {
    fn take(&mut self, event: Event) {
        match event {
            Event::Short => {}
            Event::Connected(link, unsuitable) => {
                // Once, not after every interruption.
                for text in unsuitable.iter().filter(|_| !self.was_well) {
                    tracing::warn!("Redis: {text}");
                }
                self.figures.set_unsuitable(unsuitable);
                self.connecting = false;
                self.link = Some(link);
                self.beat_at = Instant::now();
                self.list_at = Instant::now();
                self.figures.connections.fetch_add(1, Relaxed);
                self.figures.connected.store(1, Relaxed);
            }
            Event::NotConnected(error) => {
                self.connecting = false;
                self.figures.connected.store(0, Relaxed);
                self.troubled(&error);
            }
            Event::Beat(Ok(())) => self.well(),
            Event::Beat(Err(error)) => self.failed(&error),
            Event::Answer(together, took, answers) => {
                let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                self.figures.waited_us.fetch_add(us, Relaxed);
                match answers {
                    Ok(answers) => {
                        for (out, answer) in together.iter().zip(&answers) {
                            self.leases.answered(out.row, &out.report, answer);
                        }
                        self.well();
                    }
                    Err(error) => {
                        let refused = !error.trouble().is_of_connection();
                        for out in &together {
                            self.leases.failed(out.row, out.report.seq, refused);
                        }
                        self.failed(&error);
                    }
                }
            }
            Event::Notice(limit, notice) => self.leases.noticed(limit, &notice),
            Event::ClockOffset(offset) => self.leases.set_clock_offset(offset),
        }
    }

    /// Redis did what it should, once. It is well if nothing else has failed for a while.
    fn well(&mut self) {
        if self.failed_at.is_some_and(|at| at.elapsed() < CALM) {
            return;
        }
        self.attempt = 0;
        let first = !std::mem::replace(&mut self.was_well, true);
        if let Some(found) = self.figures.well() {
            let seconds = found.since.elapsed().as_secs();
            tracing::info!(seconds, "limits over all instances: Redis answers again");
        } else if first {
            tracing::info!("limits over all instances: Redis answers");
        }
    }

    /// It does not: the next attempt comes later than the last. Told once for each kind of trouble, not once per attempt.
    fn troubled(&mut self, error: &LinkError) {
        self.failed_at = Some(Instant::now());
        if self.figures.troubled(error) {
            tracing::error!(trouble = error.trouble().name(), %error, "limits over all instances");
        }
        let pause = match self.attempt {
            0 => Duration::ZERO,
            attempt => BACKOFF.0 * 2u32.saturating_pow((attempt - 1).min(10)),
        };
        self.try_at = Instant::now() + pause.min(BACKOFF.1);
        self.attempt = self.attempt.saturating_add(1);
    }

    /// A question failed. After an answer that did not come everything begins anew: the connection may be stuck, or lead to a
    /// server that is no longer the master. What else fails on a connection that is given up already is no news.
    fn failed(&mut self, error: &LinkError) {
        if self.link.is_none() {
            return;
        }
        self.troubled(error);
        if error.trouble().is_of_connection() {
            self.link = None;
            self.figures.connected.store(0, Relaxed);
        }
    }

    fn connect(&mut self) {
        if self.connecting || Instant::now() < self.try_at {
            return;
        }
        self.connecting = true;
        let (access, events, attempt) = (self.access.clone(), self.events.clone(), self.attempt as usize);
        tokio::spawn(async move {
            let event = match access.connect(attempt).await {
                Ok((link, unsuitable)) => Event::Connected(link, unsuitable),
                Err(error) => Event::NotConnected(error),
            };
            let _ = events.send(event);
        });
    }

    fn go_on(&mut self) {
        self.leases.take_shortages();
        let Some(link) = self.link.clone() else {
            self.connect();
            self.leases.without_redis();
            return;
        };
        for together in self.leases.step() {
            let (mut link, events) = (link.clone(), self.events.clone());
            tokio::spawn(async move {
                let begun = Instant::now();
                let answers = link.report(&together).await;
                let _ = events.send(Event::Answer(together, begun.elapsed(), answers));
            });
        }
        if Instant::now() >= self.beat_at {
            self.beat_at = Instant::now() + BEAT;
            let lists = Instant::now() >= self.list_at;
            if lists {
                self.list_at = Instant::now() + LIST;
            }
            self.beat(link, lists);
        }
    }

    /// Registers the instance, on the list of all too if it is time, and compares the clocks.
    fn beat(&self, mut link: Link, lists: bool) {
        let (region, events) = (Arc::clone(&self.region), self.events.clone());
        let figures = Arc::clone(&self.figures);
        tokio::spawn(async move {
            let about = format!(
                r#"{{"version":"{}","generation":{}}}"#,
                env!("CARGO_PKG_VERSION"),
                region.generation()
            );
            let ttl = u64::try_from(BEAT.as_millis()).unwrap_or(u64::MAX) * 3;
            let before = region.now_ms();
            let beat = link.beat(region.id(), &about, ttl, lists).await;
            if let Ok(theirs) = beat {
                figures.beat_ms.store(region.now_ms(), Relaxed);
                let ours = before.midpoint(region.now_ms());
                let _ = events.send(Event::ClockOffset(ours.abs_diff(theirs)));
            }
            let _ = events.send(Event::Beat(beat.map(|_| ())));
        });
    }
}
