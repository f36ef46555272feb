//! Limits that were reset or topped up.

use super::{Context, Path};
use crate::documents::{Limit, Location, Metric, Relief};

/// Longest list.
const MAX_LIST: usize = 64;

/// Checks a list of reliefs for the limits that stand, or are inherited, where it stands.
pub(super) fn check<'d>(
    context: &mut Context<'_>,
    at: &Location,
    list: &[Relief],
    limits: impl Iterator<Item = &'d Limit> + Clone,
) {
    if list.len() > MAX_LIST {
        return context.error(at, "relief", format!("at most {MAX_LIST} limits"));
    }
    for (index, relief) in list.iter().enumerate() {
        let field = |name| Path::Of("relief", index, name);
        if list
            .iter()
            .take(index)
            .any(|earlier| earlier.limit == relief.limit)
        {
            context.error(at, field("limit"), format!("`{}` stands twice", relief.limit));
        }
        if relief.add > Limit::MAX {
            context.error(at, field("add"), format!("must be 0..={}", Limit::MAX));
        }
        if relief.add > 0 && relief.until.is_none() {
            context.error(at, field("until"), "missing: until when is the maximum higher?");
        }
        match limits.clone().find(|limit| limit.display_name() == relief.limit) {
            // Limits come and go; what was said of one that is gone is in nobody's way.
            None => context.warning(
                at,
                field("limit"),
                format!("no limit `{}` applies here", relief.limit),
            ),
            Some(limit) if limit.metric == Metric::Connections && relief.reset.is_some() => {
                context.error(
                    at,
                    field("reset"),
                    "connections have no window: they end with their requests",
                );
            }
            Some(_) => {}
        }
    }
}
