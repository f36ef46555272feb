//! "Did you mean …" for misspelt names.

/// The candidate nearest to `given`, if it is near enough to be a slip: at most a third of its letters differ. Case does
/// not count.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    near(given, candidates, 1).pop()
}

/// Up to `most` candidates that are near enough, the nearest first.
pub fn near<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>, most: usize) -> Vec<&'a str> {
    if given.len() > 64 {
        return Vec::new();
    }
    let allowed = (given.chars().count() / 3).max(1);
    let folded = given.to_lowercase();
    let mut found: Vec<(usize, &str)> = candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= 64 && *candidate != given)
        .map(|candidate| (distance(&folded, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .collect();
    found.sort_unstable();
    found.truncate(most);
    found.into_iter().map(|(_, candidate)| candidate).collect()
}

/// [`nearest`] as a hint.
pub(crate) fn did_you_mean<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(given, candidates).map(|name| format!("did you mean `{name}`?"))
}

/// Optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous_a = None;
    for (i, ca) in a.chars().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        let mut previous_b = None;
        for (j, &cb) in b.iter().enumerate() {
            let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX - 1);
            let mut best = (at(&last, j) + usize::from(ca != cb))
                .min(at(&last, j + 1) + 1)
                .min(at(&row, j) + 1);
            if previous_a == Some(cb) && previous_b == Some(ca) && j > 0 {
                best = best.min(at(&before_last, j - 1) + 1);
            }
            row.push(best);
            previous_b = Some(cb);
        }
        before_last = std::mem::replace(&mut last, row);
        previous_a = Some(ca);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        assert_eq!(nearest("limts", ["limits", "models"]), Some("limits"));
        assert_eq!(nearest("wnidow", ["window", "burst"]), Some("window"));
        assert_eq!(nearest("banana", ["window", "burst"]), None);
        assert_eq!(nearest("GPT-4O", ["gpt-4o", "gpt-5"]), Some("gpt-4o"));
        assert_eq!(
            near("gpt-4p", ["gpt-5", "gpt-4o", "claude", "gpt-4", "gpt-4.1"], 3),
            ["gpt-4", "gpt-4o", "gpt-4.1"]
        );
        assert_eq!(distance("abc", "acb"), 1);
        assert_eq!(distance("", "abc"), 3);
    }
}
