//! The command line's side of the API.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::Value;
use ureq::http::{Method, Request, Response};

use super::Failure;
use crate::outgoing::agent;
use crate::secrets::ApiToken;

/// Environment variable with the token itself. No option, because options are for everybody to see.
const TOKEN: &str = "TOLLGATE_TOKEN";
/// Longest answer.
const LONGEST: u64 = 512 << 20;

#[derive(Debug, Clone, ClapArgs)]
#[command(next_help_heading = "The daemon")]
pub(super) struct Daemon {
    /// URL of the daemon's API
    #[arg(long, env = "TOLLGATE_URL", default_value = "http://127.0.0.1:9180")]
    url: String,
    /// File with a token for the API; TOLLGATE_TOKEN may hold the token itself
    #[arg(
        long,
        value_name = "FILE",
        env = "TOLLGATE_TOKEN_FILE",
        default_value = "/var/lib/tollgate/api.token"
    )]
    token_file: PathBuf,
    /// Certificates that the API's is checked against, PEM; the system's by default
    #[arg(long, value_name = "FILE", env = "TOLLGATE_CA_FILE")]
    ca_file: Option<PathBuf>,
}

/// Who gives the command, for the versions that it makes.
fn author() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok());
    let plain =
        |name: &String| !name.is_empty() && name.len() <= 100 && name.bytes().all(|b| b.is_ascii_graphic());
    user.filter(plain).unwrap_or_else(|| "cli".to_owned())
}

/// A daemon that can be asked.
pub(super) struct Client {
    agent: ureq::Agent,
    base: String,
    token: ApiToken,
}

impl Daemon {
    pub fn client(&self) -> Result<Client, Failure> {
        let token = match std::env::var(TOKEN) {
            Ok(text) if !text.trim().is_empty() => ApiToken::new(text.trim()),
            _ => ApiToken::read(&self.token_file)?,
        };
        Ok(Client {
            agent: agent(self.ca_file.as_deref(), Duration::from_secs(60))?,
            base: self.url.trim_end_matches('/').to_owned(),
            token,
        })
    }
}

/// A text as a part of a path.
pub(super) fn part(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    text.bytes()
        .map(|b| match b {
            b if plain(b) => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}

/// A path with those parameters that there are.
pub(super) fn with_query(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let given = parameters.iter().filter_map(|(name, value)| {
        let value = value.as_ref()?;
        Some(format!("{name}={}", part(value)))
    });
    let query = given.collect::<Vec<_>>().join("&");
    if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    }
}

/// What the API says about why not.
fn failure(status: u16, body: &Value) -> Failure {
    let part = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut text = format!("{status} {}: {}", part("title"), part("detail"));
    let problems = body.get("problems").and_then(Value::as_array);
    for problem in problems.into_iter().flatten() {
        let field = |name: &str| problem.get(name).and_then(Value::as_str).unwrap_or_default();
        text.push_str(&format!(
            "\n  {} {} {}: {}",
            field("severity"),
            field("document"),
            field("path"),
            field("reason")
        ));
    }
    let differences = body.get("diff").and_then(Value::as_array);
    for difference in differences.into_iter().flatten() {
        let shown = |name: &str| {
            difference
                .get(name)
                .map_or("nothing".to_owned(), Value::to_string)
        };
        if let Some(path) = difference.get("path").and_then(Value::as_str) {
            text.push_str(&format!(
                "\n  {path}: {} there, {} here",
                shown("current"),
                shown("yours")
            ));
        }
    }
    text.into()
}

impl Client {
    /// Sends JSON, or nothing, to a path below `/api/v1`.
    pub fn send(
        &self,
        method: &Method,
        path: &str,
        if_match: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let mut request = Request::builder()
            .method(method.clone())
            .uri(format!("{}/api/v1{path}", self.base))
            .header("authorization", self.token.header().as_str())
            .header("x-tollgate-author", author());
        if let Some(etag) = if_match {
            request = request.header("if-match", etag);
        }
        let response = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json");
                self.agent.run(request.body(serde_json::to_vec(body)?)?)
            }
            None => self.agent.run(request.body(())?),
        };
        self.answer(response)
    }

    fn answer(&self, response: Result<Response<ureq::Body>, ureq::Error>) -> Result<Value, Failure> {
        let mut response =
            response.map_err(|e| format!("the daemon at {} does not answer: {e}", self.base))?;
        let status = response.status();
        if status.as_u16() == 204 {
            return Ok(Value::Null);
        }
        let body: Value = response
            .body_mut()
            .with_config()
            .limit(LONGEST)
            .read_json()
            .map_err(|e| format!("{} at {} is not the admin API: {e}", status.as_u16(), self.base))?;
        if status.is_success() {
            Ok(body)
        } else {
            Err(failure(status.as_u16(), &body))
        }
    }

    /// GET of a path below `/api/v1`.
    pub fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(&Method::GET, path, None, None)
    }

    /// PUT of nothing to a path below `/api/v1`.
    pub fn put(&self, path: &str) -> Result<Value, Failure> {
        self.send(&Method::PUT, path, None, None)
    }

    /// DELETE of a path below `/api/v1`.
    pub fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.send(&Method::DELETE, path, None, None)
    }

    /// POST of JSON to a path below `/api/v1`.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.send(&Method::POST, path, None, Some(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_carry_any_name() {
        assert_eq!(part("gpt-4o/azure 微"), "gpt-4o%2Fazure%20%E5%BE%AE");
        let query = with_query(
            "/x",
            &[("a", Some("1 &".into())), ("b", None), ("c", Some("2".into()))],
        );
        assert_eq!(query, "/x?a=1%20%26&c=2");
        assert_eq!(with_query("/x", &[("b", None)]), "/x");
    }

    #[test]
    fn a_refusal_says_where_it_hurts() {
        let body = json!({"title": "invalid", "detail": "1 errors", "problems": [
            {"severity": "error", "document": "d", "path": "limits[0].max", "reason": "too small"}],
            "diff": [{"path": "name", "current": "x"}]});
        assert_eq!(
            failure(422, &body).to_string(),
            "422 invalid: 1 errors\n  error d limits[0].max: too small\n  name: \"x\" there, nothing here"
        );
    }
}
