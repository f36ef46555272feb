//! `tollgate emergency`: what has to act at once.

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};

use super::client::{Daemon, part};
use super::{Failure, print};

#[derive(Debug, ClapArgs)]
pub(super) struct Common {
    #[command(flatten)]
    daemon: Daemon,
    /// Why, for the audit log and the version's message
    #[arg(
        long,
        short = 'm',
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    reason: String,
}

#[derive(Debug, ClapArgs)]
pub(super) struct OfChannel {
    /// The channel's code
    channel: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, ClapArgs)]
#[group(id = "owner", required = true, multiple = false, args = ["channel", "model", "global"])]
pub(super) struct OfLimit {
    /// A channel's limit, inherited ones among them
    #[arg(long, value_name = "CODE")]
    channel: Option<String>,
    /// A model's limit
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// A limit over everything
    #[arg(long)]
    global: bool,
    /// The limit's name, such as input_tokens/10m
    limit: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Refuse all requests of a channel
    Block {
        #[command(flatten)]
        of: OfChannel,
        /// End what it is being served as well
        #[arg(long)]
        end_streams: bool,
    },
    /// Serve a channel again
    Unblock(OfChannel),
    /// End what a channel, or with --all anybody, is being served
    EndStreams {
        /// The channel's code
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        channel: Option<String>,
        /// Of every channel
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Forget what was used of a limit
    Reset(OfLimit),
    /// Give more of a limit for a while
    TopUp {
        #[command(flatten)]
        of: OfLimit,
        /// By how much the maximum is higher; 0 ends it
        #[arg(long, value_name = "N")]
        add: u64,
        /// For how long, such as 10m; the limit's window by default
        #[arg(long = "for", value_name = "SPAN")]
        lasting: Option<String>,
    },
    /// Refuse all requests with 503, or serve them again
    Maintenance {
        /// on or off
        #[arg(value_parser = ["on", "off"])]
        state: String,
        /// What clients are told
        #[arg(long, value_name = "TEXT")]
        message: Option<String>,
        /// After how long they should come again, such as 5m
        #[arg(long, value_name = "SPAN")]
        retry_after: Option<String>,
        /// End what is being served as well
        #[arg(long)]
        end_streams: bool,
        #[command(flatten)]
        common: Common,
    },
}

impl OfLimit {
    fn path(&self, deed: &str) -> String {
        match (&self.channel, &self.model) {
            (Some(code), _) => format!("/emergency/channels/{}/limits/{deed}", part(code)),
            (None, Some(name)) => format!("/emergency/models/{}/limits/{deed}", part(name)),
            (None, None) => format!("/emergency/limits/{deed}"),
        }
    }
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    let of_channel = |of: &OfChannel, deed: &str| format!("/emergency/channels/{}/{deed}", part(&of.channel));
    let (common, path, mut body) = match command {
        Command::Block { of, end_streams } => (
            &of.common,
            of_channel(of, "block"),
            json!({ "end_streams": end_streams }),
        ),
        Command::Unblock(of) => (&of.common, of_channel(of, "unblock"), json!({})),
        Command::EndStreams { channel, common, .. } => {
            let path = match channel {
                Some(code) => format!("/emergency/channels/{}/end-streams", part(code)),
                None => "/emergency/end-streams".to_owned(),
            };
            (common, path, json!({}))
        }
        Command::Reset(of) => (&of.common, of.path("reset"), json!({ "limit": of.limit })),
        Command::TopUp { of, add, lasting } => (
            &of.common,
            of.path("top-up"),
            json!({ "limit": of.limit, "add": add, "for": lasting }),
        ),
        Command::Maintenance {
            state,
            message,
            retry_after,
            end_streams,
            common,
        } => {
            let on = state == "on";
            let body = json!({
                "on": on, "message": message, "retry_after": retry_after, "end_streams": end_streams,
            });
            (common, "/emergency/maintenance".to_owned(), body)
        }
    };
    if let Some(fields) = body.as_object_mut() {
        fields.insert("reason".to_owned(), common.reason.as_str().into());
    }
    let written = common.daemon.client()?.post(&path, &body)?;
    print(&told(&written))
}

fn told(written: &Value) -> String {
    if written["in_force"] == true {
        format!("in force here as generation {}\n", written["generation"])
    } else {
        "written, but not in force: see `tollgate status`\n".to_owned()
    }
}
