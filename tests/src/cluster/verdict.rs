//! What came of a limit that a crowd has used up.

use super::MAX;

/// How much was admitted of what there was.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What was tried.
    pub name: String,
    /// Units admitted, by the mocks' word.
    pub used: u64,
    /// The most that may be admitted: the maximum, and what a bucket has gained meanwhile.
    pub most: u64,
    /// Part of it that dead instances held; `None` where nothing was broken.
    pub stranded: Option<u64>,
}

impl Verdict {
    /// Of a window.
    pub fn new(name: &str, used: u64) -> Self {
        Self {
            name: name.to_owned(),
            used,
            most: MAX,
            stranded: None,
        }
    }

    /// The line that is printed.
    pub fn line(&self) -> String {
        let (name, ratio) = (&self.name, self.used as f64 / self.most as f64);
        match self.stranded {
            None => format!("case {name} ratio {ratio:.3}"),
            Some(stranded) => format!("fault {name} ratio {ratio:.3} stranded {stranded}"),
        }
    }

    /// Whether nothing was exceeded, and at least 95 % of what was not stranded was used.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        let (used, most, stranded) = (self.used, self.most, self.stranded.unwrap_or(0));
        if used > most {
            return Err(format!("{}: {used} of {most}", self.name));
        }
        if used * 100 < most.saturating_sub(stranded) * 95 {
            return Err(format!(
                "{}: only {used} of {most}, {stranded} stranded",
                self.name
            ));
        }
        Ok(())
    }

    /// Prints the line.
    ///
    /// # Panics
    /// As [`Self::check`].
    pub fn assert(&self) {
        println!("{}", self.line());
        if let Err(wrong) = self.check() {
            panic!("{wrong}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_an_overrun_and_a_rest() {
        assert!(Verdict::new("a", 10_000).check().is_ok());
        assert!(Verdict::new("a", 10_001).check().is_err());
        assert!(Verdict::new("a", 9_499).check().is_err());
        let stranded = Verdict {
            stranded: Some(2_000),
            ..Verdict::new("a", 7_600)
        };
        assert!(stranded.check().is_ok());
        assert_eq!(stranded.line(), "fault a ratio 0.760 stranded 2000");
    }
}
