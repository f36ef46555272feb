//! The steps between a read body and the proxy.

use tollgate_meter::request::{FieldPath, RequestFacts, scan};
use tollgate_meter::{Api, GeminiCall};
use tollgate_policy::documents::{Enforcement, Metric};
use tollgate_policy::{ChannelView, Decision, LimitView, ModelView, Outcome, RuleSet, Snapshot};

use super::identify::identify;
use super::request::DryFacts;
use super::route::{self, Asking, Narrowed};
use super::{
    Changes, ExplainRequest, ExplainedInput, ExplainedLimit, ExplainedModel, ExplainedOutput, ExplainedRule,
    Explanation,
};
use crate::counting::{Tokenizers, What};
use crate::live::{self, Levels, LiveLimit};

struct Refused {
    by: &'static str,
    status: u16,
    code: String,
    message: String,
}

fn refused(by: &'static str, status: u16, code: &str, message: impl Into<String>) -> Refused {
    Refused {
        by,
        status,
        code: code.to_owned(),
        message: message.into(),
    }
}

/// What the gateway would do with a request, at the given levels. Reserves nothing.
pub fn explain(
    snapshot: Snapshot<'_>,
    rules: &RuleSet,
    request: &ExplainRequest,
    levels: &dyn Levels,
    tokenizers: &Tokenizers,
) -> Explanation {
    let mut shown = Explanation::default();
    match steps(snapshot, rules, request, levels, tokenizers, &mut shown) {
        Ok(()) => {
            shown.admitted = true;
            shown.decided_by = "admitted";
        }
        Err(refused) => {
            shown.decided_by = refused.by;
            shown.status = Some(refused.status);
            shown.code = refused.code;
            shown.message = refused.message;
        }
    }
    shown
}

fn steps(
    snapshot: Snapshot<'_>,
    rules: &RuleSet,
    request: &ExplainRequest,
    levels: &dyn Levels,
    tokenizers: &Tokenizers,
    shown: &mut Explanation,
) -> Result<(), Refused> {
    let api = Api::from_path(request.plain_path());
    if let Some((message, _)) = snapshot.settings().maintenance() {
        return Err(refused("maintenance", 503, "maintenance", message));
    }
    let channel = identify(&snapshot, request, api, &mut shown.channel)
        .map_err(|(status, code, message)| refused("channel", status, code, message))?;
    let body = request.body_bytes();
    let scanned = scanned(&body, api, rules)?;

    let query_model = request.query("model");
    let path_model = GeminiCall::parse(request.plain_path()).map(|call| call.model);
    let asked = path_model
        .or(scanned.model.as_ref().map(|m| m.value.as_str()))
        .or(query_model.as_deref());
    let (outcome, traces) = rules.explain(&DryFacts {
        request,
        scanned: &scanned,
        snapshot,
        channel: Some(channel.code()),
        model: asked,
    });
    shown.rules = traces
        .into_iter()
        .map(|t| ExplainedRule {
            rule: t.rule.to_string(),
            matched: t.matched,
            failed: t.failed,
        })
        .collect();
    shown.changes = changes(&outcome);
    let channel = after_rules(&snapshot, channel, &outcome)?;

    let (mut model, version) = find_model(&snapshot, &channel, &outcome, asked, shown)?;
    let mut narrowed = Narrowed::new(&snapshot, &outcome, version);
    if let Some(version) = &narrowed.version
        && !model.deployments().any(|d| d.version() == version)
    {
        let text = format!("the model {:?} has no version {version:?}", model.name());
        return Err(refused("model", 404, "version_not_found", text));
    }
    narrowed.follow(&channel, &model);
    let mut cap = outcome.cap_max_tokens;
    let asking = Asking {
        snapshot: &snapshot,
        channel: &channel,
        request,
        body: &body,
        api,
    };
    if let Some(group) = narrowed.sort(&asking, &model, shown) {
        cap = group.cap_max_tokens().into_iter().chain(cap).min();
        model = group.model().unwrap_or(model);
        narrowed.join(&group);
        narrowed.follow(&channel, &model);
    }
    if body.len() as u64 > model.max_body_bytes() {
        let (length, most) = (body.len(), model.max_body_bytes());
        let text = format!("the body has {length} bytes, the model takes at most {most}");
        return Err(refused("body", 413, "body_too_large", text));
    }
    narrowed.show(&model, shown);
    shown.deployments = narrowed.deployments(&model);
    let fits = limits(
        &snapshot, &channel, &model, api, &body, &scanned, cap, levels, tokenizers, shown,
    );
    if let Some(limit) = fits {
        return Err(refused("limit", 429, "rate_limit_exceeded", limit));
    }
    if shown.deployments.iter().all(|d| !d.usable) {
        return Err(refused(
            "route",
            503,
            "no_deployment",
            "no deployment of the model is enabled, has a weight and an address",
        ));
    }
    Ok(())
}

fn scanned(body: &[u8], api: Api, rules: &RuleSet) -> Result<RequestFacts, Refused> {
    let mut facts = RequestFacts::new();
    let paths: Vec<FieldPath> = rules
        .body_paths()
        .iter()
        .filter_map(|p| FieldPath::parse(p).ok())
        .collect();
    if !api.takes_any_body() || body.trim_ascii_start().first() == Some(&b'{') {
        scan(body, api, &paths, &mut facts)
            .map_err(|e| refused("body", 400, "invalid_body", e.to_string()))?;
    }
    Ok(facts)
}

fn changes(outcome: &Outcome) -> Changes {
    Changes {
        channel: outcome.set_channel.as_deref().map(str::to_owned),
        model: outcome.set_model.as_deref().map(str::to_owned),
        version: outcome.set_version.as_deref().map(str::to_owned),
        deployment: outcome.set_deployment.as_deref().map(str::to_owned),
        cap_max_tokens: outcome.cap_max_tokens,
        tags: outcome.tags.iter().map(|t| t.to_string()).collect(),
        shadow: outcome
            .shadow
            .iter()
            .flat_map(|hit| {
                let words = |what: &std::sync::Arc<str>| (hit.rule.to_string(), what.to_string());
                hit.actions.iter().map(words)
            })
            .collect(),
    }
}

fn after_rules<'a>(
    snapshot: &Snapshot<'a>,
    channel: ChannelView<'a>,
    outcome: &Outcome,
) -> Result<ChannelView<'a>, Refused> {
    if let Decision::Deny {
        rule,
        status,
        code,
        message,
    } = &outcome.decision
    {
        let text = if message.is_empty() {
            format!("denied by the rule {rule:?}")
        } else {
            message.to_string()
        };
        return Err(refused("rule", *status, code, text));
    }
    let Some(code) = &outcome.set_channel else {
        return Ok(channel);
    };
    snapshot
        .channel_by_code(code.as_bytes())
        .filter(|c| c.enabled())
        .ok_or_else(|| {
            let text = format!(
                "a rule moved the request to the channel {code:?}, which does not exist or is disabled"
            );
            refused("rule", 403, "unknown_channel", text)
        })
}

fn find_model<'a>(
    snapshot: &Snapshot<'a>,
    channel: &ChannelView<'_>,
    outcome: &Outcome,
    asked: Option<&str>,
    shown: &mut Explanation,
) -> Result<(ModelView<'a>, Option<String>), Refused> {
    let of_deployment = outcome.set_deployment.as_deref().map(|id| {
        let model = snapshot.deployment_by_id(id).and_then(|d| d.model());
        model.ok_or_else(|| {
            let text = format!("a rule moved the request to the deployment {id:?}, which does not exist");
            refused("rule", 503, "unknown_deployment", text)
        })
    });
    let of_deployment = of_deployment.transpose()?;
    let name = of_deployment
        .map(|model| model.name())
        .or(outcome.set_model.as_deref())
        .or(asked)
        .ok_or_else(|| refused("model", 400, "model_required", "the request names no model"))?;
    let explained = shown.model.insert(ExplainedModel {
        asked: name.to_owned(),
        ..ExplainedModel::default()
    });
    let (model, version) = match of_deployment {
        Some(model) => (Some(model), None),
        None => route::named(snapshot, name),
    };
    let model = model.ok_or_else(|| {
        refused(
            "model",
            404,
            "model_not_found",
            format!("the model {name:?} does not exist"),
        )
    })?;
    explained.name = Some(model.name().to_owned());
    explained.permitted = channel.permits(model.name());
    if !explained.permitted {
        let text = format!("the channel may not use the model {:?}", model.name());
        return Err(refused("permission", 403, "model_not_permitted", text));
    }
    Ok((model, version))
}

fn count(model: &ModelView<'_>, api: Api, body: &[u8], tokenizers: &Tokenizers) -> ExplainedInput {
    let Some(view) = model.counting() else {
        return ExplainedInput::default();
    };
    let what = What::Request { api, body };
    // Other bodies than JSON have no tokens that anybody could count.
    let counted = crate::counting::count(&view, tokenizers, what).unwrap_or_default();
    ExplainedInput {
        tokens: counted.tokens,
        bound: counted.bound,
        estimated: counted.estimated || view.is_estimate(),
        rule: view.rule().to_owned(),
        version: format!("{:06x}", view.version()),
        tokenizer: view.tokenizer().to_owned(),
    }
}

/// What so many tokens cost at so much per million, rounded up.
fn priced(tokens: u64, per_million: u32) -> u64 {
    let cost = (u128::from(tokens) * u128::from(per_million)).div_ceil(1_000_000);
    u64::try_from(cost).unwrap_or(u64::MAX)
}

/// Fills in tokens and limits; returns why a limit refuses.
#[expect(
    clippy::too_many_arguments,
    reason = "one step of `steps`, which has all of these at hand"
)]
fn limits(
    snapshot: &Snapshot<'_>,
    channel: &ChannelView<'_>,
    model: &ModelView<'_>,
    api: Api,
    body: &[u8],
    scanned: &RequestFacts,
    cap: Option<u64>,
    levels: &dyn Levels,
    tokenizers: &Tokenizers,
    shown: &mut Explanation,
) -> Option<String> {
    let answers = scanned.answers().max(1);
    let ceiling = model.max_output_tokens().min(cap.unwrap_or(u64::MAX));
    let each = scanned
        .max_output()
        .unwrap_or(model.default_max_tokens())
        .min(ceiling);
    let wanted = if api.produces() {
        each.saturating_mul(answers)
    } else {
        0
    };
    let least = snapshot
        .settings()
        .min_output_reservation()
        .saturating_mul(answers)
        .min(wanted);
    let input = count(model, api, body, tokenizers);
    let applying = live::applying(snapshot, Some(channel), Some(model));
    let before: Vec<(LimitView<'_>, LiveLimit)> = applying
        .into_iter()
        .filter_map(|l| live::level(levels, &l, model.name()).map(|level| (l, level)))
        .collect();
    // An output reservation is clamped to what every strict limit has left.
    let [input_price, output_price] = model.price().map_or([0; 2], |price| price.rates.most());
    let part_of_input = |l: &LimitView<'_>| match l.metric() {
        Metric::TotalTokens => input.tokens,
        Metric::Cost => priced(input.tokens, input_price),
        _ => 0,
    };
    let tokens_within = |l: &LimitView<'_>, units: u64| match (l.metric(), output_price) {
        (Metric::Cost, 0) => u64::MAX,
        (Metric::Cost, price) => {
            u64::try_from(u128::from(units) * 1_000_000 / u128::from(price)).unwrap_or(u64::MAX)
        }
        _ => units,
    };
    let mut reserved = wanted;
    for (limit, level) in &before {
        let bounds = matches!(
            limit.metric(),
            Metric::OutputTokens | Metric::TotalTokens | Metric::Cost
        );
        if bounds && limit.enforcement() == Enforcement::Strict {
            reserved = reserved
                .min(tokens_within(
                    limit,
                    level.left.saturating_sub(part_of_input(limit)),
                ))
                .max(least);
        }
    }
    let expected = wanted.min(model.default_max_tokens()) / 4;
    let mut refusing = None;
    for (limit, level) in before {
        let output = if limit.enforcement() == Enforcement::Strict {
            reserved
        } else {
            expected
        };
        let units = match limit.metric() {
            Metric::Connections | Metric::Requests => 1,
            Metric::InputTokens => input.tokens,
            Metric::OutputTokens => output,
            Metric::TotalTokens => input.tokens.saturating_add(output),
            Metric::Cost => priced(input.tokens, input_price).saturating_add(priced(output, output_price)),
        };
        // A leaky bucket makes requests wait rather than refusing them; by how much its level does not say.
        let fits =
            limit.algorithm() == tollgate_policy::documents::Algorithm::LeakyBucket || units <= level.left;
        if !fits && refusing.is_none() {
            refusing = Some(format!(
                "the limit {:?} has {} of {} left, the request needs {units}; something is freed in {} ms",
                level.name, level.left, level.max, level.reset_ms
            ));
        }
        shown.limits.push(ExplainedLimit {
            after: level.used.saturating_add(units),
            before: level,
            wanted: units,
            fits,
        });
    }
    shown.input = Some(input);
    shown.output = Some(ExplainedOutput { wanted, reserved });
    refusing
}
