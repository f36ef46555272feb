//! Conditions, checked and made ready to be evaluated.

use super::{
    evaluate::{Facts, Value},
    field::{Field, FieldType},
    time::TimeSpan,
};
use crate::{
    cidr::Cidr,
    documents::{Condition, Operator, ZonedHours},
    glob::glob_matches,
    suggest,
};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value as Json;
use std::{borrow::Cow, collections::HashSet, net::IpAddr};

/// Deepest nesting of `all`, `any` and `not`.
const MAX_DEPTH: usize = 16;
/// Bytes that a compiled regular expression may take, and its lazy automaton.
const REGEX_SIZE: usize = 1 << 20;
/// Longest list of `in` or `cidr`.
const MAX_LIST: usize = 65_536;

/// Problems of a condition: path below it, reason, hint.
pub(crate) type Report<'r> = dyn FnMut(&str, String, Option<String>) + 'r;

/// Body paths that conditions look at, each once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub body: Vec<String>,
    pub headers: Vec<String>,
}

impl Wanted {
    fn index(list: &mut Vec<String>, name: &str) -> usize {
        list.iter().position(|known| known == name).unwrap_or_else(|| {
            list.push(name.to_owned());
            list.len() - 1
        })
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Test(Test),
}

#[derive(Clone, Debug)]
pub(crate) struct Test {
    subject: Subject,
    expected: Expected,
    /// As an operator would read it: `body.max_tokens gt 4096`.
    pub text: Box<str>,
}

#[derive(Clone, Debug)]
enum Subject {
    Header(Box<str>),
    Query(Box<str>),
    Cookie(Box<str>),
    Body(usize),
    ClientIp,
    Time,
    Method,
    Path,
    Channel,
    Model,
    PromptBytes,
}

#[derive(Clone, Debug)]
enum Expected {
    Eq(Scalar),
    Ne(Scalar),
    In(OneOf),
    Matches(Box<str>),
    Regex(Box<Regex>),
    Gt(f64),
    Ge(f64),
    Lt(f64),
    Le(f64),
    Exists(bool),
    Contains(Box<str>),
    Cidr(Vec<Cidr>),
    NotCidr(Vec<Cidr>),
    Time(Box<TimeSpan>),
}

#[derive(Clone, Debug, PartialEq)]
enum Scalar {
    Null,
    Bool(bool),
    Number(f64),
    Text(Box<str>),
}

impl Scalar {
    fn of(json: &Json) -> Option<Self> {
        Some(match json {
            Json::Null => Scalar::Null,
            Json::Bool(value) => Scalar::Bool(*value),
            Json::Number(value) => Scalar::Number(value.as_f64()?),
            Json::String(value) => Scalar::Text(value.as_str().into()),
            Json::Array(_) | Json::Object(_) => return None,
        })
    }

    fn equals(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Scalar::Null, Value::Null) => true,
            (Scalar::Bool(a), Value::Bool(b)) => a == b,
            #[expect(clippy::float_cmp, reason = "equal is what the operator asks for")]
            (Scalar::Number(a), Value::Number(b)) => a == b,
            (Scalar::Text(a), Value::String(b)) => **a == **b,
            _ => false,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct OneOf {
    texts: HashSet<Box<str>>,
    others: Vec<Scalar>,
}

impl OneOf {
    fn contains(&self, value: &Value<'_>) -> bool {
        match value {
            Value::String(text) => self.texts.contains(&**text),
            other => self.others.iter().any(|scalar| scalar.equals(other)),
        }
    }
}

/// Makes a condition ready. Everything that is wrong with it is reported, and reads as false.
pub(crate) fn lower(condition: &Condition, wanted: &mut Wanted, report: &mut Report<'_>) -> Node {
    lower_at(condition, "", 0, wanted, report)
}

fn below(path: &str, step: &str) -> String {
    if path.is_empty() {
        step.to_owned()
    } else {
        format!("{path}.{step}")
    }
}

fn lower_at(
    condition: &Condition,
    path: &str,
    depth: usize,
    wanted: &mut Wanted,
    report: &mut Report<'_>,
) -> Node {
    let never = || Node::Any(Vec::new());
    if depth > MAX_DEPTH {
        report(path, format!("nested deeper than {MAX_DEPTH} levels"), None);
        return never();
    }
    let forms = [
        condition.all.is_some(),
        condition.any.is_some(),
        condition.not.is_some(),
        condition.field.is_some() || condition.op.is_some() || condition.value.is_some(),
    ];
    if forms.into_iter().filter(|present| *present).count() != 1 {
        let reason = "expected exactly one of `all`, `any`, `not`, or `field` with `op` and `value`";
        report(path, reason.to_owned(), None);
        return never();
    }
    let mut list = |name: &str, conditions: &[Condition], report: &mut Report<'_>| -> Vec<Node> {
        if conditions.is_empty() {
            report(&below(path, name), "an empty list of conditions".to_owned(), None);
        }
        conditions
            .iter()
            .enumerate()
            .map(|(at, inner)| {
                lower_at(
                    inner,
                    &below(path, &format!("{name}[{at}]")),
                    depth + 1,
                    wanted,
                    report,
                )
            })
            .collect()
    };
    if let Some(conditions) = &condition.all {
        return Node::All(list("all", conditions, report));
    }
    if let Some(conditions) = &condition.any {
        return Node::Any(list("any", conditions, report));
    }
    if let Some(inner) = &condition.not {
        return Node::Not(Box::new(lower_at(
            inner,
            &below(path, "not"),
            depth + 1,
            wanted,
            report,
        )));
    }
    lower_test(condition, path, wanted, report).map_or_else(never, Node::Test)
}

fn lower_test(
    condition: &Condition,
    path: &str,
    wanted: &mut Wanted,
    report: &mut Report<'_>,
) -> Option<Test> {
    let Some(name) = condition.field.as_deref() else {
        report(path, "missing field `field`".to_owned(), None);
        return None;
    };
    let field = match Field::parse(name) {
        Ok(field) => field,
        Err(reason) => {
            report(&below(path, "field"), reason, field_hint(name));
            return None;
        }
    };
    let op = match (condition.op, field.kind()) {
        (Some(op), _) => op,
        (None, FieldType::Time) => Operator::In,
        (None, _) => {
            report(path, "missing field `op`".to_owned(), None);
            return None;
        }
    };
    if !allowed(op, field.kind()) {
        report(
            &below(path, "op"),
            format!("`{}` cannot be asked of `{name}`", op.name()),
            op_hint(field.kind()),
        );
        return None;
    }
    let Some(value) = condition.value.as_ref().or(match op {
        Operator::Exists => Some(&Json::Bool(true)),
        _ => None,
    }) else {
        report(path, "missing field `value`".to_owned(), None);
        return None;
    };
    let expected = match lower_value(op, field.kind(), value) {
        Ok(expected) => expected,
        Err(reasons) => {
            for (below_value, reason) in reasons {
                let place = if below_value.is_empty() {
                    "value".to_owned()
                } else {
                    format!("value.{below_value}")
                };
                report(&below(path, &place), reason, None);
            }
            return None;
        }
    };
    let text = describe(name, op, value).into();
    let subject = match field {
        Field::Header(name) => {
            Wanted::index(&mut wanted.headers, &name);
            Subject::Header(name)
        }
        Field::Query(name) => Subject::Query(name),
        Field::Cookie(name) => Subject::Cookie(name),
        Field::Body(path) => Subject::Body(Wanted::index(&mut wanted.body, &path)),
        Field::ClientIp => Subject::ClientIp,
        Field::Time => Subject::Time,
        Field::Method => Subject::Method,
        Field::Path => Subject::Path,
        Field::Channel => Subject::Channel,
        Field::Model => Subject::Model,
        Field::PromptBytes => Subject::PromptBytes,
    };
    Some(Test {
        subject,
        expected,
        text,
    })
}

fn describe(field: &str, op: Operator, value: &Json) -> String {
    let value = value.to_string();
    let shortened: String = value.chars().take(80).collect();
    let dots = if shortened.len() < value.len() { "…" } else { "" };
    format!("{field} {} {shortened}{dots}", op.name())
}

fn field_hint(name: &str) -> Option<String> {
    let with_name = || {
        let (prefix, rest) = name.split_once('.').filter(|(_, rest)| !rest.is_empty())?;
        let near = suggest::nearest(prefix, ["header", "query", "cookie", "body"])?;
        Some(format!("did you mean `{near}.{rest}`?"))
    };
    with_name().or_else(|| suggest::did_you_mean(name, Field::suggestions()))
}

fn op_hint(kind: FieldType) -> Option<String> {
    Some(match kind {
        FieldType::Address => "use cidr, eq, ne, in or exists".to_owned(),
        FieldType::Time => "use in; put it into `not` for the opposite".to_owned(),
        FieldType::Text | FieldType::Json => "`cidr` is for client.ip".to_owned(),
    })
}

fn allowed(op: Operator, kind: FieldType) -> bool {
    match kind {
        FieldType::Time => op == Operator::In,
        FieldType::Address => {
            matches!(
                op,
                Operator::Cidr | Operator::Eq | Operator::Ne | Operator::In | Operator::Exists
            )
        }
        FieldType::Text | FieldType::Json => op != Operator::Cidr,
    }
}

type Reasons = Vec<(String, String)>;

fn one(reason: impl Into<String>) -> Reasons {
    vec![(String::new(), reason.into())]
}

fn lower_value(op: Operator, kind: FieldType, value: &Json) -> Result<Expected, Reasons> {
    if kind == FieldType::Time {
        let spec = ZonedHours::deserialize(value)
            .map_err(|_| one("expected an object of `hours`, `weekdays` and `zone`"))?;
        return TimeSpan::parse(&spec)
            .map(|span| Expected::Time(Box::new(span)))
            .map_err(|problems| {
                problems
                    .into_iter()
                    .map(|(path, reason)| (path.to_owned(), reason))
                    .collect()
            });
    }
    if op == Operator::Exists {
        return value
            .as_bool()
            .map(Expected::Exists)
            .ok_or_else(|| one("expected true or false"));
    }
    if kind == FieldType::Address {
        let ranges = ranges(value)?;
        return Ok(if op == Operator::Ne {
            Expected::NotCidr(ranges)
        } else {
            Expected::Cidr(ranges)
        });
    }
    let text = || {
        value
            .as_str()
            .ok_or_else(|| one(format!("`{}` compares texts: expected a string", op.name())))
    };
    let number = || {
        value
            .as_f64()
            .ok_or_else(|| one(format!("`{}` compares numbers: expected a number", op.name())))
    };
    Ok(match op {
        Operator::Eq => Expected::Eq(scalar(kind, value).map_err(one)?),
        Operator::Ne => Expected::Ne(scalar(kind, value).map_err(one)?),
        Operator::In => Expected::In(one_of(kind, value)?),
        Operator::Matches => Expected::Matches(text()?.into()),
        Operator::Regex => Expected::Regex(Box::new(regex(text()?).map_err(one)?)),
        Operator::Gt => Expected::Gt(number()?),
        Operator::Ge => Expected::Ge(number()?),
        Operator::Lt => Expected::Lt(number()?),
        Operator::Le => Expected::Le(number()?),
        Operator::Contains => Expected::Contains(text()?.into()),
        Operator::Exists | Operator::Cidr => return Err(one("cannot be asked of this field")),
    })
}

fn scalar(kind: FieldType, value: &Json) -> Result<Scalar, String> {
    match Scalar::of(value) {
        None => Err("expected a string, a number, true, false or null".to_owned()),
        Some(Scalar::Text(text)) => Ok(Scalar::Text(text)),
        Some(_) if kind == FieldType::Text => Err("this field is text: expected a string".to_owned()),
        Some(scalar) => Ok(scalar),
    }
}

fn one_of(kind: FieldType, value: &Json) -> Result<OneOf, Reasons> {
    let Some(list) = value
        .as_array()
        .filter(|list| !list.is_empty() && list.len() <= MAX_LIST)
    else {
        return Err(one(format!("`in` needs a list of 1..={MAX_LIST} values")));
    };
    let mut set = OneOf::default();
    let mut reasons = Vec::new();
    for (at, item) in list.iter().enumerate() {
        match scalar(kind, item) {
            Ok(Scalar::Text(text)) => {
                set.texts.insert(text);
            }
            Ok(other) => set.others.push(other),
            Err(reason) => reasons.push((format!("[{at}]"), reason)),
        }
    }
    if reasons.is_empty() { Ok(set) } else { Err(reasons) }
}

fn ranges(value: &Json) -> Result<Vec<Cidr>, Reasons> {
    let list = match value {
        Json::String(_) => std::slice::from_ref(value),
        Json::Array(list) if !list.is_empty() && list.len() <= MAX_LIST => list.as_slice(),
        _ => {
            return Err(one(
                "expected an address range such as `10.0.0.0/8`, or a list of them",
            ));
        }
    };
    let mut ranges = Vec::with_capacity(list.len());
    let mut reasons = Vec::new();
    for (at, item) in list.iter().enumerate() {
        match item
            .as_str()
            .ok_or_else(|| "expected a string".to_owned())
            .and_then(Cidr::parse)
        {
            Ok(range) => ranges.push(range),
            Err(reason) if value.is_array() => reasons.push((format!("[{at}]"), reason)),
            Err(reason) => reasons.push((String::new(), reason)),
        }
    }
    if reasons.is_empty() {
        Ok(ranges)
    } else {
        Err(reasons)
    }
}

pub(crate) fn regex(pattern: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(pattern)
        .size_limit(REGEX_SIZE)
        .dfa_size_limit(REGEX_SIZE)
        .build()
        .map_err(|error| {
            match error {
                regex::Error::CompiledTooBig(_) => "regular expression is too large".to_owned(),
                // The last line says what is wrong; the ones before draw the pattern.
                other => {
                    let text = other.to_string();
                    let reason = text
                        .lines()
                        .last()
                        .unwrap_or_default()
                        .trim_start_matches("error: ");
                    format!("no regular expression: {reason}")
                }
            }
        })
}

impl Node {
    /// Whether the condition holds; if not, `failed` gets the text of the test that decided.
    pub fn holds<'n>(
        &'n self,
        facts: &dyn Facts,
        now: &Overrides<'_>,
        failed: &mut Option<&'n Test>,
    ) -> bool {
        match self {
            Node::All(nodes) => nodes.iter().all(|node| node.holds(facts, now, failed)),
            Node::Any(nodes) => nodes.iter().any(|node| node.holds(facts, now, failed)),
            Node::Not(node) => {
                let mut inner = None;
                let held = node.holds(facts, now, &mut inner);
                if held {
                    *failed = node.any_test();
                }
                !held
            }
            Node::Test(test) => {
                let held = test.holds(facts, now);
                if !held {
                    *failed = Some(test);
                }
                held
            }
        }
    }

    fn any_test(&self) -> Option<&Test> {
        match self {
            Node::All(nodes) | Node::Any(nodes) => nodes.iter().find_map(Node::any_test),
            Node::Not(node) => node.any_test(),
            Node::Test(test) => Some(test),
        }
    }
}

/// What earlier rules have set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Overrides<'o> {
    pub channel: Option<&'o str>,
    pub model: Option<&'o str>,
}

impl Test {
    fn holds(&self, facts: &dyn Facts, now: &Overrides<'_>) -> bool {
        match (&self.subject, &self.expected) {
            (Subject::Time, Expected::Time(span)) => span.contains(facts.now_unix()),
            (Subject::ClientIp, expected) => address_holds(expected, facts.client_ip()),
            (subject, expected) => expected.holds(subject.value(facts, now)),
        }
    }
}

impl Subject {
    fn value<'f>(&self, facts: &'f dyn Facts, now: &Overrides<'f>) -> Option<Value<'f>> {
        let text = |text: Option<Cow<'f, str>>| text.map(Value::String);
        match self {
            Subject::Header(name) => text(facts.header(name)),
            Subject::Query(name) => text(facts.query(name)),
            Subject::Cookie(name) => text(facts.cookie(name)),
            Subject::Body(index) => facts.body(*index),
            Subject::Method => text(Some(facts.method().into())),
            Subject::Path => text(Some(facts.path().into())),
            Subject::Channel => text(now.channel.or_else(|| facts.channel()).map(Cow::Borrowed)),
            Subject::Model => text(now.model.or_else(|| facts.model()).map(Cow::Borrowed)),
            Subject::PromptBytes => Some(Value::Number(facts.prompt_bytes() as f64)),
            Subject::ClientIp | Subject::Time => None,
        }
    }
}

fn address_holds(expected: &Expected, address: Option<IpAddr>) -> bool {
    match expected {
        Expected::Exists(wanted) => address.is_some() == *wanted,
        Expected::Cidr(ranges) => {
            address.is_some_and(|address| ranges.iter().any(|range| range.contains(address)))
        }
        Expected::NotCidr(ranges) => {
            !address.is_some_and(|address| ranges.iter().any(|range| range.contains(address)))
        }
        _ => false,
    }
}

impl Expected {
    /// An absent field holds nothing but `exists: false` and `ne`.
    fn holds(&self, value: Option<Value<'_>>) -> bool {
        let Some(value) = value else {
            return matches!(self, Expected::Exists(false) | Expected::Ne(_));
        };
        match self {
            Expected::Exists(wanted) => *wanted,
            Expected::Eq(scalar) => scalar.equals(&value),
            Expected::Ne(scalar) => !scalar.equals(&value),
            Expected::In(set) => set.contains(&value),
            Expected::Matches(pattern) => text(&value).is_some_and(|text| glob_matches(pattern, text)),
            Expected::Regex(regex) => text(&value).is_some_and(|text| regex.is_match(text)),
            Expected::Contains(part) => text(&value).is_some_and(|text| text.contains(&**part)),
            Expected::Gt(limit) => number(&value).is_some_and(|number| number > *limit),
            Expected::Ge(limit) => number(&value).is_some_and(|number| number >= *limit),
            Expected::Lt(limit) => number(&value).is_some_and(|number| number < *limit),
            Expected::Le(limit) => number(&value).is_some_and(|number| number <= *limit),
            Expected::Cidr(_) | Expected::NotCidr(_) | Expected::Time(_) => false,
        }
    }
}

fn text<'v>(value: &'v Value<'_>) -> Option<&'v str> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// Headers, queries and cookies are texts, so a text counts as the number it spells.
fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Number(number) => Some(*number),
        Value::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    }
}
