//! Looking entries up: pages of them, and one.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::Deserialize;

use super::answer::{Item, Page, shown};
use super::index::{Index, Listed};
use super::sort::Sort;
use crate::accounts::Principal;
use crate::api::{ApiError, AppState};

/// Most entries on one page.
const MOST: usize = 1_000;

/// By what entries are sorted.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum By {
    #[default]
    Id,
    Name,
    Priority,
    Enabled,
    /// As they stand in their documents.
    Document,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Order {
    #[default]
    Asc,
    Desc,
}

/// Which entries.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct ListQuery {
    /// Only those with this text in their id, name or text, in upper or lower case.
    search: Option<String>,
    /// By what they are sorted; by id by default.
    #[serde(default)]
    sort: By,
    /// Upwards by default.
    #[serde(default)]
    order: Order,
    /// At most so many; 100 by default, at most 1,000.
    limit: Option<usize>,
    /// `next` of the page before.
    after: Option<String>,
    /// Only those that are enabled, or not.
    enabled: Option<bool>,
    /// Only those that extend this (channels, templates).
    extends: Option<String>,
    /// Only those with this tag (channels, templates).
    tag: Option<String>,
    /// Only those with a deployment at this provider (models).
    provider: Option<String>,
    /// Only those of this protocol (providers).
    protocol: Option<String>,
    /// Only those made from this template (rules).
    template: Option<String>,
}

impl ListQuery {
    /// Facets that are asked for, by their numbers.
    fn facets(&self, sort: &Sort) -> Result<Vec<(usize, &str)>, ApiError> {
        let asked = [
            ("extends", &self.extends),
            ("tag", &self.tag),
            ("provider", &self.provider),
            ("protocol", &self.protocol),
            ("template", &self.template),
        ];
        let mut found = Vec::new();
        for (name, value) in asked {
            let Some(value) = value else {
                continue;
            };
            match sort.facets.iter().position(|(known, _)| *known == name) {
                Some(n) => found.push((n, value.as_str())),
                None => {
                    return Err(ApiError::bad_request(format!(
                        "a {} has no `{name}` to look for",
                        sort.one
                    )));
                }
            }
        }
        Ok(found)
    }
}

/// What an entry is sorted by, as text.
fn key(entry: &Listed, by: By, place: usize) -> Cow<'_, str> {
    match by {
        By::Id => Cow::Borrowed(&entry.id),
        By::Name => Cow::Owned(entry.name.to_lowercase()),
        By::Priority => Cow::Owned(format!("{:020}", i128::from(entry.priority) + (1 << 63))),
        By::Enabled => Cow::Borrowed(if entry.enabled { "1" } else { "0" }),
        By::Document => Cow::Owned(format!("{place:010}")),
    }
}

fn cursor(key: &str, id: &str) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::json!([key, id]).to_string())
}

fn parse_cursor(text: &str) -> Result<(String, String), ApiError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok();
    bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| ApiError::bad_request("`after` is not what `next` said"))
}

/// Whether a text holds another one, in upper or lower case of ASCII; `needle` is in lower case.
fn holds(text: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else {
        return true;
    };
    text.windows(needle.len()).any(|w| {
        w.first().is_some_and(|b| b.to_ascii_lowercase() == *first) && w.eq_ignore_ascii_case(needle)
    })
}

fn matches(index: &Index, entry: &Listed, sort: &Sort, needle: &str) -> bool {
    holds(entry.id.as_bytes(), needle.as_bytes())
        || entry.name.to_lowercase().contains(needle)
        // Nobody finds a credential out letter by letter.
        || match sort.kind.holds_secrets() {
            true => holds(shown(index.text(entry), sort.kind).get().as_bytes(), needle.as_bytes()),
            false => holds(index.text(entry), needle.as_bytes()),
        }
}

/// A page of entries.
pub(in crate::api) async fn page(
    sort: Sort,
    state: AppState,
    who: Principal,
    query: ListQuery,
) -> Result<Page, ApiError> {
    let status = state.status();
    let indexes = state.indexes.clone();
    tokio::task::spawn_blocking(move || {
        let index = indexes.of(&status.documents, &sort);
        let mut page = select(&index, &sort, &who, &query)?;
        (page.in_force, page.generation) = (status.in_force, status.generation());
        Ok(page)
    })
    .await?
}

fn select(index: &Index, sort: &Sort, who: &Principal, query: &ListQuery) -> Result<Page, ApiError> {
    let facets = query.facets(sort)?;
    let needle = query.search.as_deref().unwrap_or_default().to_lowercase();
    let limit = query.limit.unwrap_or(100).clamp(1, MOST);
    let visible = |entry: &&Listed| !sort.is_limited() || who.sees(&entry.id);
    let wanted = |entry: &&Listed| {
        query.enabled.is_none_or(|wanted| entry.enabled == wanted)
            && facets.iter().all(|(facet, value)| entry.has(*facet, value))
            && (needle.is_empty() || matches(index, entry, sort, &needle))
    };
    let total = index.entries.iter().filter(visible).count();
    let mut found: Vec<(Cow<'_, str>, &Listed)> = index
        .entries
        .iter()
        .enumerate()
        .filter(|(_, e)| visible(e) && wanted(e))
        .map(|(place, e)| (key(e, query.sort, place), e))
        .collect();
    let matched = found.len();
    let rank = |(key, entry): &(Cow<'_, str>, &Listed)| (key.clone().into_owned(), entry.id.clone());
    if let Some(after) = &query.after {
        let after = parse_cursor(after)?;
        match query.order {
            Order::Asc => found.retain(|one| rank(one) > after),
            Order::Desc => found.retain(|one| rank(one) < after),
        }
    }
    let compare = |a: &(Cow<'_, str>, &Listed), b: &(Cow<'_, str>, &Listed)| {
        let order = a.0.cmp(&b.0).then_with(|| a.1.id.cmp(&b.1.id));
        if query.order == Order::Desc {
            order.reverse()
        } else {
            order
        }
    };
    // Only the page is put in order.
    if found.len() > limit {
        found.select_nth_unstable_by(limit, compare);
    }
    let more = found.len() > limit;
    found.truncate(limit);
    found.sort_by(compare);
    let next = found
        .last()
        .filter(|_| more)
        .map(|(key, entry)| cursor(key, &entry.id));
    Ok(Page {
        items: found
            .iter()
            .map(|(_, entry)| Item::new(index, entry, sort))
            .collect(),
        total,
        matched,
        next,
        in_force: false,
        generation: 0,
    })
}

/// 404 for an entry.
pub(super) fn missing(sort: &Sort, id: &str) -> ApiError {
    ApiError::not_found(format!("there is no {} `{id}`", sort.one))
}

/// Whether somebody may see an entry of that id; for those who may not, it is not there.
pub(super) fn visible(sort: &Sort, who: &Principal, id: &str) -> Result<(), ApiError> {
    if sort.is_limited() && !who.sees(id) {
        Err(missing(sort, id))
    } else {
        Ok(())
    }
}

/// The index of the present documents.
pub(super) async fn present(state: &AppState, sort: Sort) -> Result<Arc<Index>, ApiError> {
    let (status, indexes) = (state.status(), state.indexes.clone());
    Ok(tokio::task::spawn_blocking(move || indexes.of(&status.documents, &sort)).await?)
}

/// One entry.
pub(in crate::api) async fn one(
    sort: Sort,
    state: AppState,
    who: Principal,
    id: String,
) -> Result<Item, ApiError> {
    visible(&sort, &who, &id)?;
    let index = present(&state, sort).await?;
    let entry = index.get(&id).ok_or_else(|| missing(&sort, &id))?;
    Ok(Item::new(&index, entry, &sort))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Document;

    fn index(n: usize) -> Index {
        let channels: Vec<String> = (0..n)
            .map(|i| {
                format!(
                    r#"{{"code":"c{i:05}","name":"N{}","enabled":{},"tags":["t{}"]}}"#,
                    n - i,
                    i % 2 == 0,
                    i % 7
                )
            })
            .collect();
        let text = format!("{{\"channels\":[{}]}}", channels.join(","));
        Index::new(
            vec![Document::new("channels.json", text.into_bytes())],
            &Sort::CHANNELS,
        )
    }

    fn query(text: &str) -> ListQuery {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn pages_together_are_the_whole_in_every_order() {
        let (index, who) = (index(25), Principal::break_glass());
        for sort in ["id", "name", "enabled", "document", "priority"] {
            for order in ["asc", "desc"] {
                let mut ids = Vec::new();
                let mut asked = query(&format!(r#"{{"sort":"{sort}","order":"{order}","limit":4}}"#));
                loop {
                    let page = select(&index, &Sort::CHANNELS, &who, &asked).unwrap();
                    assert_eq!((page.total, page.matched), (25, 25));
                    ids.extend(page.items.into_iter().map(|i| i.id));
                    match page.next {
                        Some(next) => asked.after = Some(next),
                        None => break,
                    }
                }
                assert_eq!(ids.len(), 25, "{sort} {order}");
                let whole = select(
                    &index,
                    &Sort::CHANNELS,
                    &who,
                    &query(&format!(r#"{{"sort":"{sort}","order":"{order}"}}"#)),
                );
                assert_eq!(
                    ids,
                    whole.unwrap().items.into_iter().map(|i| i.id).collect::<Vec<_>>(),
                    "{sort} {order}"
                );
            }
        }
    }

    #[test]
    fn entries_are_searched_filtered_and_kept_from_others() {
        let (index, mut who) = (index(100), Principal::break_glass());
        let ask = |who: &Principal, text: &str| {
            let page = select(&index, &Sort::CHANNELS, who, &query(text)).unwrap();
            (page.total, page.matched)
        };
        assert_eq!(ask(&who, r#"{"search":"C0001"}"#), (100, 10));
        assert_eq!(ask(&who, r#"{"enabled":false}"#), (100, 50));
        assert_eq!(ask(&who, r#"{"tag":"t3"}"#), (100, 14));
        assert_eq!(ask(&who, r#"{"tag":"t3","enabled":true,"search":"\"n9"}"#).0, 100);
        who.channels = vec![vec!["c0001*".into()]];
        assert_eq!(ask(&who, "{}"), (10, 10));
        assert!(select(&index, &Sort::CHANNELS, &who, &query(r#"{"protocol":"openai"}"#)).is_err());
        assert!(select(&index, &Sort::CHANNELS, &who, &query(r#"{"after":"x"}"#)).is_err());
    }
}
