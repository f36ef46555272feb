//! What can be wrong with Redis, in words for the log, the API and metrics.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// A kind of trouble; each asks for something else from the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The settings, or what they name, cannot be used.
    Settings,
    /// Nobody is there.
    Unreachable,
    /// No answer in time.
    Slow,
    /// Not to this user, or not with this password.
    Refused,
    /// Redis has no memory left.
    Full,
    /// It takes no writes: it is a replica, or has too few of its own.
    ReadOnly,
    /// It answers with an error.
    Failing,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Trouble; 7] = [
        Trouble::Settings,
        Trouble::Unreachable,
        Trouble::Slow,
        Trouble::Refused,
        Trouble::Full,
        Trouble::ReadOnly,
        Trouble::Failing,
    ];

    /// Its name in metrics and in the API.
    pub fn name(self) -> &'static str {
        match self {
            Trouble::Settings => "settings",
            Trouble::Unreachable => "unreachable",
            Trouble::Slow => "slow",
            Trouble::Refused => "refused",
            Trouble::Full => "full",
            Trouble::ReadOnly => "read_only",
            Trouble::Failing => "failing",
        }
    }

    /// Whether another connection may help. An answer to one question says nothing of the connection.
    pub fn is_of_connection(self) -> bool {
        !matches!(self, Trouble::Full | Trouble::Failing)
    }

    /// What it means, and what to look at.
    pub fn text(self) -> &'static str {
        match self {
            Trouble::Settings => "Redis cannot be used with these settings",
            Trouble::Unreachable => "Redis cannot be reached",
            Trouble::Slow => "Redis does not answer in time (`redis.timeout`)",
            Trouble::Refused => {
                "Redis refuses this user or password (`redis.username`, `redis.password_ref`, its ACL)"
            }
            Trouble::Full => "Redis is out of memory (`maxmemory`)",
            Trouble::ReadOnly => "Redis takes no writes: a replica, or a master without its replicas",
            Trouble::Failing => "Redis answers with an error",
        }
    }
}

/// Why there is no connection, or no answer. The text holds no password.
#[derive(Clone, Debug)]
pub struct LinkError {
    trouble: Trouble,
    text: String,
}

impl LinkError {
    pub(super) fn new(trouble: Trouble, text: impl Into<String>) -> LinkError {
        LinkError {
            trouble,
            text: text.into(),
        }
    }

    /// What kind of trouble it is.
    pub fn trouble(&self) -> Trouble {
        self.trouble
    }
}

impl std::fmt::Display for LinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.trouble.text(), self.text)
    }
}

impl std::error::Error for LinkError {}

impl From<RedisError> for LinkError {
    fn from(error: RedisError) -> LinkError {
        let text = error.to_string();
        // Below Redis 7 what a command of a script is answered stands in the text of the script's error.
        let within = |code: &&str| text.contains(&format!(": -{code} "));
        let within = ["OOM", "READONLY", "NOREPLICAS", "MISCONF"]
            .into_iter()
            .find(within);
        let trouble = match (error.kind(), within.or(error.code())) {
            (ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm), _)
            | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => Trouble::Refused,
            (_, Some("OOM")) => Trouble::Full,
            (ErrorKind::Server(ServerErrorKind::ReadOnly), _)
            | (_, Some("READONLY" | "NOREPLICAS" | "MISCONF")) => Trouble::ReadOnly,
            (ErrorKind::InvalidClientConfig | ErrorKind::EmptySentinelList, _) => Trouble::Settings,
            _ if error.is_timeout() => Trouble::Slow,
            (
                ErrorKind::Io
                | ErrorKind::ClusterConnectionNotFound
                | ErrorKind::MasterNameNotFoundBySentinel
                | ErrorKind::NoValidReplicasFoundBySentinel,
                _,
            ) => Trouble::Unreachable,
            _ => Trouble::Failing,
        };
        LinkError::new(trouble, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(line: &str) -> LinkError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
        let value = value.and_then(redis::Value::extract_error);
        value
            .err()
            .map_or_else(|| LinkError::new(Trouble::Slow, ""), LinkError::from)
    }

    #[test]
    fn answers_of_redis_are_told_apart() {
        for (line, trouble) in [
            ("WRONGPASS invalid username-password pair", Trouble::Refused),
            ("NOAUTH Authentication required.", Trouble::Refused),
            ("NOPERM this user has no permissions", Trouble::Refused),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                Trouble::Full,
            ),
            (
                "READONLY You can't write against a read only replica.",
                Trouble::ReadOnly,
            ),
            ("NOREPLICAS Not enough good replicas to write.", Trouble::ReadOnly),
            (
                "ERR Error running script (call to f_aa): @user_script:8: @user_script: 8: -OOM command not allowed when used memory > 'maxmemory'.",
                Trouble::Full,
            ),
            ("ERR unknown command", Trouble::Failing),
        ] {
            let error = answered(line);
            assert_eq!(error.trouble(), trouble, "{line}: {error}");
            assert!(error.to_string().starts_with(trouble.text()), "{error}");
        }
    }
}
