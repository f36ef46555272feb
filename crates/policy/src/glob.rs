//! Globs over names: `*` is any run of characters, `?` is one character, all else is itself.

/// Whether `text` as a whole matches `pattern`. Linear in `pattern × text` at worst, without backtracking trees.
pub fn glob_matches(pattern: &str, text: &str) -> bool {
    // Positions to come back to: after the last `*`, and the end of what it has swallowed so far.
    let (mut pattern_left, mut text_left) = (pattern.chars(), text.chars());
    let mut star: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let text_before = text_left.clone();
        match (pattern_left.next(), text_left.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                text_left = text_before.clone();
                star = Some((pattern_left.clone(), text_before));
                if pattern_left.as_str().is_empty() {
                    return true;
                }
                continue;
            }
            (Some('?'), Some(_)) => continue,
            (Some(p), Some(t)) if p == t => continue,
            (Some(_), None) => return false,
            _ => {}
        }
        let Some((after_star, swallowed)) = star.as_mut() else {
            return false;
        };
        if swallowed.next().is_none() {
            return false;
        }
        pattern_left = after_star.clone();
        text_left = swallowed.clone();
    }
}

/// Whether `pattern` can match more than one name.
pub(crate) fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, straight and exponential.
    fn reference(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) => {
                reference(rest, text)
                    || text
                        .split_first()
                        .is_some_and(|(_, tail)| reference(pattern, tail))
            }
            (Some(('?', rest)), Some((_, tail))) => reference(rest, tail),
            (Some((p, rest)), Some((t, tail))) => p == t && reference(rest, tail),
            _ => false,
        }
    }

    #[test]
    fn names_match() {
        for (pattern, text, expected) in [
            ("gpt-4o*", "gpt-4o-mini", true),
            ("gpt-4o*", "gpt-4o", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("*-mini", "gpt-4o-mini", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("?", "模", true),
            ("g?t*o", "gpt-4o", true),
            ("**", "x", true),
        ] {
            assert_eq!(glob_matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn hostile_pattern_is_not_exponential() {
        let pattern = "*a".repeat(64) + "b";
        assert!(!glob_matches(&pattern, &"a".repeat(4096)));
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?é]{0,8}", text in "[abé]{0,10}") {
            let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(glob_matches(&pattern, &text), reference(&p, &t));
        }
    }
}
