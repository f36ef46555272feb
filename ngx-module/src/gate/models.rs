//! Which models there are for this channel, in the shape of the API that asks.

use std::fmt::Write;
use std::rc::Rc;

use tollgate_meter::Api;
use tollgate_policy::{ModelView, Snapshot};
use tollgate_shm::Class;

use super::decide::Decider;
use super::find::find;
use super::pool;
use super::reply::{ErrorKind, Reply, quote};
use super::translate::{self, Way};
use crate::ngx::request::Request;

impl Decider<'_> {
    /// `GET …/models` and `GET …/models/{model}`.
    pub(super) fn models(&mut self, request: &Request) -> Reply {
        let path = String::from_utf8_lossy(request.path()).into_owned();
        match path.split_once("/models/") {
            Some((_, name)) if !name.is_empty() => self.one_model(name.trim_end_matches('/')),
            _ => self.list_models(),
        }
    }

    /// Whether the channel may use the model by the API that asks. OpenAI's list has all models: most are served by one
    /// of its APIs or another.
    fn shows(&self, model: &ModelView<'_>) -> bool {
        let api = match self.context.api {
            Api::AnthropicModels => Api::AnthropicMessages,
            Api::GeminiModels => Api::GeminiGenerate,
            _ => Api::Other,
        };
        let able = || {
            model.deployments().filter(pool::is_usable).any(|d| {
                d.provider()
                    .is_some_and(|p| translate::way(api, p.protocol()) != Way::Unable)
            })
        };
        self.context
            .channel_view()
            .is_some_and(|c| c.permits(model.name()))
            && (api == Api::Other || able())
    }

    fn list_models(&mut self) -> Reply {
        let api = self.context.api;
        let generation = Rc::clone(&self.context.generation);
        let mut list = String::new();
        let (mut first, mut last) = (String::from("null"), String::from("null"));
        for model in generation.snapshot().models().filter(|m| self.shows(m)) {
            if list.is_empty() {
                first.clear();
                quote(model.name(), &mut first);
            } else {
                list.push(',');
            }
            last.clear();
            quote(model.name(), &mut last);
            describe(api, &model, &mut list);
        }
        let body = match api {
            Api::GeminiModels => format!("{{\"models\":[{list}]}}"),
            Api::AnthropicModels => {
                format!("{{\"data\":[{list}],\"has_more\":false,\"first_id\":{first},\"last_id\":{last}}}")
            }
            _ => format!("{{\"object\":\"list\",\"data\":[{list}]}}"),
        };
        self.context.class = Class::Ok;
        Reply::ok(body, self.context.request_id())
    }

    fn one_model(&mut self, name: &str) -> Reply {
        let generation = Rc::clone(&self.context.generation);
        let snapshot = generation.snapshot();
        let Some(model) = find(snapshot, name).0.filter(|m| self.shows(m)) else {
            return self.no_such_model(snapshot, name);
        };
        let mut body = String::new();
        describe(self.context.api, &model, &mut body);
        self.context.class = Class::Ok;
        Reply::ok(body, self.context.request_id())
    }

    /// 404, with the names that are near: of models that the channel may use, so that no other is told.
    pub(super) fn no_such_model(&mut self, snapshot: Snapshot<'_>, name: &str) -> Reply {
        const NEAR: usize = 3;
        let shown = name.chars().take(128).collect::<String>();
        let mut text = format!("the model {shown:?} does not exist");
        let permitted = snapshot.models().filter(|m| self.shows(m));
        let near = tollgate_policy::near(&shown, permitted.map(|m| m.name()), NEAR);
        if !near.is_empty() {
            let names: Vec<String> = near.iter().map(|name| format!("{name:?}")).collect();
            let _ = write!(text, "; did you mean {}?", names.join(" or "));
        }
        self.fail(Class::Client, 404, ErrorKind::NotFound, "model_not_found", &text)
    }
}

fn describe(api: Api, model: &ModelView<'_>, out: &mut String) {
    let name = model.name();
    match api {
        Api::GeminiModels => {
            out.push_str("{\"name\":");
            quote(&format!("models/{name}"), out);
            out.push_str(",\"baseModelId\":");
            quote(name, out);
            out.push_str(",\"version\":\"\",\"displayName\":");
            quote(name, out);
            let _ = write!(
                out,
                ",\"outputTokenLimit\":{},\"supportedGenerationMethods\":[\"generateContent\",\"streamGenerateContent\",\
                 \"countTokens\"]}}",
                model.max_output_tokens(),
            );
        }
        Api::AnthropicModels => {
            out.push_str("{\"type\":\"model\",\"id\":");
            quote(name, out);
            out.push_str(",\"display_name\":");
            quote(name, out);
            // Nobody knows when: the beginning of time says so, as in OpenAI's list.
            out.push_str(",\"created_at\":\"1970-01-01T00:00:00Z\"}");
        }
        _ => {
            out.push_str("{\"id\":");
            quote(name, out);
            out.push_str(",\"object\":\"model\",\"created\":0,\"owned_by\":\"tollgate\"}");
        }
    }
}
