//! One line of the request log: what an event says, with names in place of numbers. Never holds a prompt.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_shm::{Class, Event};

/// A finished request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RequestRecord {
    /// When it ended, Unix milliseconds by region time.
    pub time_ms: u64,
    /// Request id, 32 hexadecimal digits.
    pub request_id: String,
    /// Channel code; empty if none was known.
    pub channel: String,
    /// Model name; empty if none was known.
    pub model: String,
    /// Deployment that answered; empty if it was not proxied.
    pub deployment: String,
    /// Experiment that sorted its caller; empty for none.
    pub experiment: String,
    /// The caller's group in it; empty for none.
    pub group: String,
    /// Generation of the snapshot that decided it.
    pub generation: u32,
    /// HTTP status sent.
    pub status: u16,
    /// How it ended, see [`Class::name`].
    pub class: String,
    /// Where the counts come from: `none`, `upstream`, `counted`, `estimated`.
    pub source: String,
    /// Tokens.
    pub input_tokens: u32,
    /// Tokens.
    pub output_tokens: u32,
    /// Tokens of the input that the upstream had cached.
    pub cached_tokens: u32,
    /// Tokens of the output spent on reasoning.
    pub reasoning_tokens: u32,
    /// Tokens that are an estimate.
    pub estimated_tokens: u32,
    /// Tokens that were counted here.
    pub counted_tokens: u32,
    /// Tokens beyond the reservation.
    pub debt_tokens: u32,
    /// Input tokens reserved.
    pub reserved_input: u32,
    /// Output tokens reserved.
    pub reserved_output: u32,
    /// Microseconds from the request to the end of the answer.
    pub latency_us: u32,
    /// Microseconds to the first byte of the answer.
    pub first_token_us: Option<u32>,
    /// Version of what decided its counts, 6 hexadecimal digits; empty if no model was known.
    pub counting: String,
    /// What the channel pays, in millionths of the currency's unit.
    pub bill_micro: u32,
    /// What the provider takes, likewise.
    pub cost_micro: u32,
    /// Versions of the two prices, 6 hexadecimal digits; empty for none.
    pub price: String,
    /// See `price`.
    pub cost_price: String,
    /// Upstream attempts; the last one's usage is what is charged and what costs. Those before ended without an answer:
    /// each has a line of its own with the flag `attempt`, its number here, and in `cost_micro` what its provider may take
    /// for the input (`source` is `estimated` then), which is in no sum.
    pub attempts: u8,
    /// `stream`, `suspicious`, `cut`, `shadow`, `attempt`; comma-separated.
    pub flags: String,
    /// Key of the limit that refused it, 16 hexadecimal digits; empty for none.
    pub limit_key: String,
    /// Hash of the rule that decided, 16 hexadecimal digits; empty for none.
    pub rule: String,
}

/// Name of an event's source number.
pub fn source_name(source: u8) -> &'static str {
    match source {
        1 => "upstream",
        2 => "counted",
        3 => "estimated",
        _ => "none",
    }
}

/// Names of an event's flags by their bits.
const FLAGS: [&str; 5] = ["stream", "suspicious", "cut", "shadow", "attempt"];

/// The bit of a flag by its name.
pub fn flag_bit(name: &str) -> Option<u32> {
    let bit = FLAGS.iter().position(|flag| *flag == name)?;
    Some(1 << bit)
}

/// Names of the flags set in an event, comma-separated.
pub fn flag_names(flags: u32) -> String {
    let set = FLAGS
        .iter()
        .enumerate()
        .filter(|(bit, _)| flags >> bit & 1 == 1)
        .map(|(_, name)| *name);
    set.collect::<Vec<_>>().join(",")
}

/// The version of the counting rule in an event's flags, empty for none.
pub fn counting_version(flags: u32) -> String {
    version(flags >> 8)
}

fn version(number: u32) -> String {
    match number {
        0 => String::new(),
        number => format!("{number:06x}"),
    }
}

fn hex_or_empty(n: u64) -> String {
    if n == 0 {
        String::new()
    } else {
        format!("{n:016x}")
    }
}

impl RequestRecord {
    /// The record of an event whose time has been checked (`time_ms`) and whose numbers have been looked up.
    pub fn new(
        event: &Event,
        time_ms: u64,
        channel: &str,
        model: &str,
        deployment: String,
        group: Option<(String, String)>,
    ) -> RequestRecord {
        let (experiment, group) = group.unwrap_or_default();
        let [high, low] = event.request_id;
        let [reserved_input, reserved_output] = event.reserved;
        let [price, provider_price] = event.prices;
        let class = Class::from_number(event.class.into()).unwrap_or(Class::Internal);
        RequestRecord {
            time_ms,
            request_id: format!("{high:016x}{low:016x}"),
            channel: channel.to_owned(),
            model: model.to_owned(),
            deployment,
            experiment,
            group,
            generation: event.generation,
            status: event.status,
            class: class.name().to_owned(),
            source: source_name(event.source).to_owned(),
            input_tokens: event.input_tokens,
            output_tokens: event.output_tokens,
            cached_tokens: event.cached_tokens,
            reasoning_tokens: event.reasoning_tokens,
            estimated_tokens: event.estimated_tokens,
            counted_tokens: event.counted_tokens,
            debt_tokens: event.debt_tokens,
            reserved_input,
            reserved_output,
            latency_us: event.latency_us,
            first_token_us: (event.first_token_us != u32::MAX).then_some(event.first_token_us),
            counting: counting_version(event.flags),
            bill_micro: event.bill,
            cost_micro: event.cost,
            price: version(price),
            cost_price: version(provider_price),
            attempts: (event.flags >> 5 & 7) as u8,
            flags: flag_names(event.flags),
            limit_key: hex_or_empty(event.limit_key),
            rule: hex_or_empty(event.rule_hash),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_names() {
        let event = Event {
            request_id: [1, 2],
            class: 3,
            source: 2,
            flags: 0xabc_0055,
            bill: 7,
            cost: 5,
            prices: [0xab, 0],
            first_token_us: u32::MAX,
            limit_key: 0xab,
            ..Event::default()
        };
        let record = RequestRecord::new(&event, 9, "c", "m", "d".into(), None);
        assert_eq!(record.request_id, "00000000000000010000000000000002");
        assert_eq!(
            (&*record.class, &*record.source, &*record.flags),
            ("limit", "counted", "stream,cut,attempt")
        );
        assert_eq!((record.first_token_us, &*record.rule), (None, ""));
        assert_eq!(record.counting, "0abc00");
        assert_eq!((record.bill_micro, record.cost_micro, record.attempts), (7, 5, 2));
        assert_eq!((&*record.price, &*record.cost_price), ("0000ab", ""));
        assert_eq!(record.limit_key, "00000000000000ab");
    }
}
