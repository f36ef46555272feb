//! Alerts: receivers and rules.

use super::{Context, Named, Path, check_name};
use crate::documents::{AlertReceiver, AlertRuleName, Alerts, Location, ReceiverKind, Span, StoredSecret};

/// Most receivers: each is told by itself.
const MOST_RECEIVERS: usize = 20;

pub(super) fn check(context: &mut Context<'_>, at: &Location, alerts: &Alerts) {
    context.within = "alerts.".to_owned();
    let (least, most) = (Span::from_millis(60_000), Span::from_millis(31 * 86_400_000));
    if alerts.repeat_interval < least || alerts.repeat_interval > most {
        context.error(at, "repeat_interval", format!("must be {least}..={most}"));
    }
    if alerts.receivers.len() > MOST_RECEIVERS {
        context.error(at, "receivers", format!("at most {MOST_RECEIVERS} receivers"));
    }
    for name in AlertRuleName::ALL {
        check_rule(context, at, *name, alerts);
    }
    for (index, receiver) in alerts.receivers.iter().enumerate() {
        context.within = format!("alerts.receivers[{index}].");
        check_receiver(context, at, receiver);
    }
    context.within.clear();
    context.unique(
        alerts
            .receivers
            .iter()
            .enumerate()
            .map(|(index, receiver)| Named {
                key: receiver.name.as_str(),
                at,
                path: Path::Of("alerts.receivers", index, "name"),
                what: "a receiver of this name",
            }),
    );
}

fn check_rule(context: &mut Context<'_>, at: &Location, name: AlertRuleName, alerts: &Alerts) {
    let rule = alerts.rules.of(name);
    let most = Span::from_millis(86_400_000);
    for (field, span) in [("for", rule.lasting), ("clear_after", rule.clear_after)] {
        if span.is_some_and(|span| span > most) {
            let path = format!("rules.{}.{field}", name.name());
            context.error(at, path, format!("must be 0..={most}"));
        }
    }
    let Some(value) = rule.threshold else {
        return;
    };
    let path = format!("rules.{}.threshold", name.name());
    match name.defaults().threshold {
        None => context.error(at, path, "this rule has none: it is so or it is not"),
        Some(t) if !(t.least..=t.most).contains(&value) => {
            let reason = format!("must be {}..={} ({})", t.least, t.most, t.unit);
            context.error(at, path, reason);
        }
        Some(_) => {}
    }
}

fn check_secret(context: &mut Context<'_>, at: &Location, field: &str, secret: Option<&StoredSecret>) {
    if secret.is_some_and(|secret| secret.source().is_none()) {
        let reason = "needs exactly one of `key`, `encrypted`, `key_ref`";
        context.error(at, field, reason);
    }
}

fn check_receiver(context: &mut Context<'_>, at: &Location, receiver: &AlertReceiver) {
    check_name(context, at, "name", &receiver.name, 64);
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ' ');
    if !receiver.name.chars().all(plain) {
        let reason = "must be letters, digits, `.`, `_`, `-` and spaces";
        context.error(at, "name", reason);
    }
    check_secret(context, at, "secret", receiver.secret.as_ref());
    check_secret(context, at, "secret_url", receiver.secret_url.as_ref());
    match (&receiver.url, &receiver.secret_url) {
        (Some(url), None) => {
            if let Err(reason) = is_address(url) {
                context.error(at, "url", reason);
            } else if receiver.kind != ReceiverKind::Webhook {
                let reason = "addresses of chats hold a token; in `secret_url` nobody reads it";
                context.warning(at, "url", reason);
            }
        }
        (None, Some(_)) => {}
        (None, None) => context.error(at, "url", "needs `url` or `secret_url`"),
        (Some(_), Some(_)) => context.error(at, "secret_url", "stands beside `url`: one of them"),
    }
    let signs = matches!(
        receiver.kind,
        ReceiverKind::Webhook | ReceiverKind::Dingtalk | ReceiverKind::Feishu
    );
    if receiver.secret.is_some() && !signs {
        context.error(at, "secret", "this kind of receiver checks no signature");
    }
}

/// Whether a message can be sent there. What is wrong is said without repeating it: it may hold a token.
fn is_address(url: &str) -> Result<(), &'static str> {
    let rest = ["https://", "http://"].iter().find_map(|s| url.strip_prefix(s));
    let rest = rest.ok_or("must begin with `https://` or `http://`")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || url.len() > 2_048 || !url.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("must name a host, in at most 2048 visible ASCII characters");
    }
    if authority.contains('@') {
        return Err("must hold no user and no password");
    }
    Ok(())
}
