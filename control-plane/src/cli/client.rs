//! The command line's side of the API.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::Value;

use super::Failure;
use crate::secrets::ApiToken;

#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Daemon {
    /// URL of the daemon's API
    #[arg(long, env = "TOLLGATE_URL", default_value = "http://127.0.0.1:9180")]
    url: String,
    /// File with the API's token
    #[arg(
        long,
        value_name = "FILE",
        env = "TOLLGATE_TOKEN_FILE",
        default_value = "/var/lib/tollgate/api.token"
    )]
    token_file: PathBuf,
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
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(30)))
            .http_status_as_error(false)
            .build();
        Ok(Client {
            agent: config.into(),
            base: self.url.trim_end_matches('/').to_owned(),
            token: ApiToken::read(&self.token_file)?,
        })
    }
}

impl Client {
    fn answer(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Value, Failure> {
        let mut response =
            response.map_err(|e| format!("the daemon at {} does not answer: {e}", self.base))?;
        let status = response.status();
        if status.as_u16() == 204 {
            return Ok(Value::Null);
        }
        let body: Value = response.body_mut().with_config().limit(256 << 20).read_json()?;
        if status.is_success() {
            return Ok(body);
        }
        let part = |name: &str| {
            body.get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let mut text = format!("{} {}: {}", status.as_u16(), part("title"), part("detail"));
        let problems = body.get("problems").and_then(Value::as_array);
        for problem in problems.into_iter().flatten() {
            let field = |name: &str| problem.get(name).and_then(Value::as_str).unwrap_or_default();
            let place = (field("document"), field("path"));
            text.push_str(&format!(
                "\n  {} {} {}: {}",
                field("severity"),
                place.0,
                place.1,
                field("reason")
            ));
        }
        Err(text.into())
    }

    /// GET of a path below `/api/v1`.
    pub fn get(&self, path: &str) -> Result<Value, Failure> {
        let url = format!("{}/api/v1{path}", self.base);
        let request = self
            .agent
            .get(&url)
            .header("authorization", self.token.header().as_str());
        self.answer(request.call())
    }

    /// PUT of nothing to a path below `/api/v1`.
    pub fn put(&self, path: &str) -> Result<Value, Failure> {
        let url = format!("{}/api/v1{path}", self.base);
        let request = self
            .agent
            .put(&url)
            .header("authorization", self.token.header().as_str());
        self.answer(request.send_empty())
    }

    /// DELETE of a path below `/api/v1`.
    pub fn delete(&self, path: &str) -> Result<Value, Failure> {
        let url = format!("{}/api/v1{path}", self.base);
        let request = self
            .agent
            .delete(&url)
            .header("authorization", self.token.header().as_str());
        self.answer(request.call())
    }

    /// POST of JSON to a path below `/api/v1`.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let url = format!("{}/api/v1{path}", self.base);
        let request = self
            .agent
            .post(&url)
            .header("authorization", self.token.header().as_str())
            .header("x-tollgate-author", author());
        self.answer(request.send_json(body))
    }
}
