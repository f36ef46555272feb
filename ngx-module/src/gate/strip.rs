//! What of a client's request no provider may see: its credentials, and the channel code wherever it stands.

use tollgate_meter::request::{FieldPath, without_member};
use tollgate_policy::SettingsView;
use tollgate_policy::snapshot::SourceView;

use super::decide::Decider;
use super::facts;
use crate::ngx::request::Request;

/// Header lines of the client that no provider may see, whatever the configuration says.
pub(super) fn is_private(name: &[u8]) -> bool {
    match name.len() {
        6 => name == b"cookie",
        7 => name == b"api-key",
        9 => name == b"x-api-key",
        13 => name == b"authorization",
        14 => name == b"x-goog-api-key",
        // These two the gateway writes itself, with the client's value if it is fit.
        11 => name == b"traceparent",
        12 => name == b"x-request-id",
        // Answers must come as plain text, or they could not be metered as they stream.
        15 => name == b"accept-encoding",
        19 => name == b"proxy-authorization",
        _ => false,
    }
}

/// Whether a header line is one that names the channel.
pub(super) fn is_channel_header(settings: SettingsView<'_>, name: &[u8]) -> bool {
    settings
        .channel_sources()
        .any(|s| matches!(s, SourceView::Header(h) if name.eq_ignore_ascii_case(h.as_bytes())))
}

impl Decider<'_> {
    /// The channel code is between the client and the gateway, wherever the client has put it. Headers are taken out
    /// with the credentials. Returns whether the body is another one now.
    pub(super) fn strip_channel(&mut self, request: &mut Request, settings: SettingsView<'_>) -> bool {
        let mut changed = false;
        for source in settings.channel_sources() {
            match source {
                SourceView::Query(name) => {
                    if let Some(args) = facts::without(request.args(), name) {
                        request.set_args(&args);
                    }
                }
                SourceView::Body(path) => {
                    let without = FieldPath::parse(path)
                        .ok()
                        .zip(request.body(self.scratch).ok())
                        .and_then(|(path, body)| without_member(body, &path));
                    if let Some(body) = without {
                        changed |= request.replace_body(&body).is_some();
                    }
                }
                _ => {}
            }
        }
        changed
    }
}
