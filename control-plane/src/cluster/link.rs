//! The connection to Redis: a single server, a cluster, or a master that sentinels name.

use std::sync::LazyLock;
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo,
    Pipeline, RedisResult, ServerErrorKind, TlsCertificates, TlsMode, ToRedisArgs,
};
use tollgate_lease::Answer;
use tollgate_lease::script::{self, SCRIPT};
use tollgate_policy::documents::{Redis, RedisKind};
use zeroize::Zeroizing;

use super::Outgoing;
use super::trouble::{LinkError, Trouble};
use crate::secrets::CredentialFolder;

/// Version of what daemons keep in Redis and tell each other there. Whoever changes the meaning of a field raises it.
const SCHEMA: &str = "1";

static LEASE: LazyLock<Script> = LazyLock::new(|| Script::new(SCRIPT));
static BEAT: LazyLock<Script> = LazyLock::new(|| {
    Script::new("redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return redis.call('TIME')")
});

/// A script of ours.
pub struct Script {
    text: &'static str,
    sha: String,
    repeatable: bool,
}

impl Script {
    /// A script with this text.
    pub fn new(text: &'static str) -> Script {
        Script {
            text,
            sha: redis::Script::new(text).get_hash().to_owned(),
            repeatable: false,
        }
    }

    /// One that may be run twice: the second time changes nothing and is answered as the first was.
    pub fn repeatable(text: &'static str) -> Script {
        Script {
            repeatable: true,
            ..Script::new(text)
        }
    }

    /// Whether it may be run twice.
    pub fn is_repeatable(&self) -> bool {
        self.repeatable
    }
}

/// How to get to Redis.
#[derive(Clone)]
pub struct LinkOptions {
    urls: Vec<String>,
    kind: RedisKind,
    master: String,
    username: Option<String>,
    password: Option<Zeroizing<String>>,
    certificates: Option<Vec<u8>>,
    timeout: Duration,
    /// What all keys begin with.
    pub prefix: String,
}

impl LinkOptions {
    /// From the settings, with the password that they name.
    ///
    /// # Errors
    /// If the password or the certificates cannot be read.
    pub fn of(redis: &Redis, folder: &CredentialFolder) -> Result<LinkOptions, LinkError> {
        let password = redis.password_ref.as_ref().map(|name| folder.named(name));
        let certificates = redis.ca_file.as_ref().map(|path| {
            std::fs::read(path).map_err(|e| {
                LinkError::new(
                    Trouble::Settings,
                    format!("cannot read the certificates in {path}: {e}"),
                )
            })
        });
        Ok(LinkOptions {
            urls: redis.urls.clone(),
            kind: redis.kind,
            master: redis.master.clone(),
            username: redis.username.clone(),
            password: password
                .transpose()
                .map_err(|text| LinkError::new(Trouble::Settings, text))?,
            certificates: certificates.transpose()?,
            timeout: Duration::from_millis(redis.timeout.as_millis()),
            prefix: redis.prefix.clone(),
        })
    }

    fn is_tls(&self) -> bool {
        self.urls.iter().any(|url| url.starts_with("rediss://"))
    }

    fn certificates(&self) -> TlsCertificates {
        TlsCertificates {
            client_tls: None,
            root_cert: self.certificates.clone(),
        }
    }

    fn infos(&self) -> RedisResult<Vec<ConnectionInfo>> {
        let info = |url: &String| {
            let info = url.as_str().into_connection_info()?;
            let mut settings = info.redis_settings().clone();
            if let Some(username) = &self.username {
                settings = settings.set_username(username);
            }
            if let Some(password) = &self.password {
                settings = settings.set_password(password.as_str());
            }
            Ok(info.set_redis_settings(settings))
        };
        self.urls.iter().map(info).collect()
    }

    /// A client of the server, of the master, or of one node of a cluster: the `attempt`-th, in turn.
    async fn client(&self, attempt: usize) -> Result<Client, LinkError> {
        let infos = self.infos()?;
        if self.kind == RedisKind::Sentinel {
            let addresses = infos.iter().map(|i| i.addr().clone());
            let mut builder =
                SentinelClientBuilder::new(addresses, &self.master, SentinelServerType::Master)?;
            if let Some(username) = &self.username {
                builder = builder.set_client_to_redis_username(username);
            }
            if let Some(password) = &self.password {
                builder = builder.set_client_to_redis_password(password.as_str());
            }
            if self.is_tls() {
                builder = builder
                    .set_client_to_redis_tls_mode(TlsMode::Secure)
                    .set_client_to_redis_certificates(self.certificates())
                    .set_client_to_sentinel_tls_mode(TlsMode::Secure)
                    .set_client_to_sentinel_certificates(self.certificates());
            }
            return Ok(builder.build()?.async_get_client().await?);
        }
        let count = infos.len().max(1);
        let info = infos
            .into_iter()
            .nth(attempt % count)
            .ok_or_else(|| LinkError::new(Trouble::Settings, "no address of Redis is given"))?;
        Ok(if self.is_tls() {
            Client::build_with_tls(info, self.certificates())?
        } else {
            Client::open(info)?
        })
    }

    /// Connects. Of several addresses of single servers the `attempt`-th is taken.
    ///
    /// # Errors
    /// If nobody answers in time, or not to this user.
    pub async fn connect(&self, attempt: usize) -> Result<Link, LinkError> {
        let wire = if self.kind == RedisKind::Cluster {
            let mut builder = ClusterClientBuilder::new(self.infos()?)
                .connection_timeout(self.timeout)
                .response_timeout(self.timeout)
                .retries(2);
            if let Some(username) = &self.username {
                builder = builder.username(username);
            }
            if let Some(password) = &self.password {
                builder = builder.password(password.as_str());
            }
            if self.is_tls() {
                builder = builder.tls(TlsMode::Secure).certs(self.certificates());
            }
            Wire::Cluster(builder.build()?.get_async_connection().await?)
        } else {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(self.timeout))
                .set_response_timeout(Some(self.timeout));
            let client = self.client(attempt).await?;
            Wire::One(
                client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await?,
            )
        };
        Ok(Link {
            wire,
            prefix: self.prefix.clone(),
        })
    }

    /// Listens to what instances tell each other.
    ///
    /// # Errors
    /// As [`LinkOptions::connect`].
    pub async fn listen(&self, attempt: usize) -> Result<PubSub, LinkError> {
        self.subscribe(attempt, &script::channel(&self.prefix)).await
    }

    /// Listens to one channel.
    ///
    /// # Errors
    /// As [`LinkOptions::connect`].
    pub async fn subscribe(&self, attempt: usize, channel: &str) -> Result<PubSub, LinkError> {
        let mut listener = self.client(attempt).await?.get_async_pubsub().await?;
        listener.subscribe(channel).await?;
        Ok(listener)
    }
}

#[derive(Clone)]
enum Wire {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// A connection; clones share it, and what they ask at the same time goes out together.
#[derive(Clone)]
pub struct Link {
    wire: Wire,
    prefix: String,
}

impl Link {
    async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        match &mut self.wire {
            Wire::One(one) => command.query_async(one).await,
            Wire::Cluster(cluster) => command.query_async(cluster).await,
        }
    }

    /// What all keys begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Sends one command.
    ///
    /// # Errors
    /// If there is no answer, or another one than expected.
    pub async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, LinkError> {
        Ok(self.ask(command).await?)
    }

    /// Sends several commands at once; in a cluster they must be about keys of one tag.
    ///
    /// # Errors
    /// As [`Link::query`].
    pub async fn pipe<T: FromRedisValue>(&mut self, commands: &Pipeline) -> Result<T, LinkError> {
        Ok(match &mut self.wire {
            Wire::One(one) => commands.query_async(one).await?,
            Wire::Cluster(cluster) => commands.query_async(cluster).await?,
        })
    }

    /// Runs a script by its digest; by its text where Redis does not know it.
    ///
    /// # Errors
    /// As [`Link::query`].
    pub async fn script<T: FromRedisValue>(
        &mut self,
        script: &Script,
        keys: &[String],
        arguments: &[impl ToRedisArgs],
    ) -> Result<T, LinkError> {
        let command = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
            command
        };
        match self.ask(&command("EVALSHA", &script.sha)).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                Ok(self.ask(&command("EVAL", script.text)).await?)
            }
            other => Ok(other?),
        }
    }

    /// Sends reports on limits of one tag; an answer for each.
    ///
    /// # Errors
    /// If there is no answer, or one that makes no sense.
    pub async fn report(&mut self, together: &[Outgoing]) -> Result<Vec<Answer>, LinkError> {
        let Some(first) = together.first() else {
            return Ok(Vec::new());
        };
        let limits = together.iter().map(|out| out.limit);
        let reports = together.iter().map(|out| (out.limit, &out.report));
        let keys = script::keys(&self.prefix, script::tag_of(first.limit), limits);
        let arguments = script::arguments(&self.prefix, first.report.id, reports);
        let numbers: Vec<Vec<i64>> = self.script(&LEASE, &keys, &arguments).await?;
        let answers: Option<Vec<Answer>> = numbers.iter().map(|one| script::answer(one)).collect();
        answers
            .filter(|answers| answers.len() == together.len())
            .ok_or_else(|| LinkError::new(Trouble::Failing, format!("the answer was {numbers:?}")))
    }

    /// Enters the era of every tag, so that a limit that is new is not taken for one that was lost. The first brings the script
    /// along if Redis does not know it, the others go out together.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn touch(&mut self) -> Result<(), LinkError> {
        self.enter(0).await?;
        let mut others = tokio::task::JoinSet::new();
        for tag in 1..script::TAGS {
            let mut link = self.clone();
            others.spawn(async move { link.enter(tag).await });
        }
        while let Some(entered) = others.join_next().await {
            entered.map_err(|error| LinkError::new(Trouble::Failing, error.to_string()))??;
        }
        Ok(())
    }

    async fn enter(&mut self, tag: u64) -> Result<(), LinkError> {
        let keys = [script::era_key(&self.prefix, tag)];
        self.script::<Vec<u64>>(&LEASE, &keys, &[] as &[String]).await?;
        Ok(())
    }

    /// Makes sure that what stands in Redis is of a version that this one understands, or says that it is of this one.
    ///
    /// # Errors
    /// If there is no answer, or it is of another version.
    pub async fn agree(&mut self) -> Result<(), LinkError> {
        let key = format!("{}:schema", self.prefix);
        let mut claim = redis::cmd("SET");
        claim.arg(&key).arg(SCHEMA).arg("NX");
        self.ask::<Option<String>>(&claim).await?;
        let found: Option<String> = self.ask(redis::cmd("GET").arg(&key)).await?;
        match found {
            Some(found) if found != SCHEMA => Err(LinkError::new(
                Trouble::Settings,
                format!(
                    "the keys below `{}` are of schema {found}, this version knows schema {SCHEMA}: run instances of one \
                     version, or give the newer ones another `redis.prefix`",
                    self.prefix
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Registers the instance for `ttl_ms`, and if `lists` enters it in the list of all for ten times as long. Returns Redis'
    /// clock, milliseconds.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn beat(&mut self, id: u64, about: &str, ttl_ms: u64, lists: bool) -> Result<u64, LinkError> {
        let keys = [format!("{}:instance:{id:016x}", self.prefix)];
        let arguments = [about.to_owned(), ttl_ms.to_string()];
        let (seconds, micros): (u64, u64) = self.script(&BEAT, &keys, &arguments).await?;
        if lists {
            let set = format!("{}:instances", self.prefix);
            let mut commands = redis::pipe();
            commands.sadd(&set, format!("{id:016x}")).ignore();
            commands
                .cmd("PEXPIRE")
                .arg(&set)
                .arg(ttl_ms.saturating_mul(10))
                .ignore();
            self.pipe::<()>(&commands).await?;
        }
        Ok(seconds.saturating_mul(1_000).saturating_add(micros / 1_000))
    }

    /// What of Redis' settings does not suit limits: for the log.
    pub async fn unsuitable(&mut self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, good, why) in [
            (
                "maxmemory-policy",
                "noeviction",
                "Redis may drop leases, which then count as lost writes",
            ),
            (
                "appendonly",
                "yes",
                "a restart loses leases, and all limits pause for one lease",
            ),
        ] {
            let asked: RedisResult<Vec<String>> = self.ask(redis::cmd("CONFIG").arg("GET").arg(name)).await;
            // Not every user may ask; then nothing is known.
            if let Ok(pair) = asked
                && let Some(value) = pair.get(1)
                && value != good
            {
                found.push(format!("`{name}` is `{value}` and should be `{good}`: {why}"));
            }
        }
        found
    }
}
