//! A snapshot that is or was in force.

use tollgate_policy::{RuleSet, Snapshot};
use tollgate_shm::MappedFile;

/// The currency of a configuration without prices, as documents have it by default.
pub(super) const NO_CURRENCY: &str = "USD";

/// A snapshot with its rules decoded.
pub struct Active {
    file: MappedFile,
    rules: RuleSet,
    generation: u64,
    currency: String,
}

impl std::fmt::Debug for Active {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Active")
            .field("generation", &self.generation)
            .finish()
    }
}

impl Active {
    /// Takes a mapped snapshot after checking it.
    ///
    /// # Errors
    /// Why it is none that this version can use.
    pub fn new(file: MappedFile) -> Result<Active, String> {
        let snapshot = Snapshot::open(&file).map_err(|e| e.to_string())?;
        snapshot.verify().map_err(|e| e.to_string())?;
        let rules = RuleSet::decode(snapshot.rules_blob()).map_err(|e| e.to_string())?;
        let generation = snapshot.generation();
        let prices = snapshot.models().filter_map(|model| model.price());
        let costs = snapshot.deployments().filter_map(|deployment| deployment.cost());
        // All are in one currency.
        let currency = prices.chain(costs).map(|price| price.currency).next();
        let currency = currency.unwrap_or(NO_CURRENCY).to_owned();
        Ok(Active {
            file,
            rules,
            generation,
            currency,
        })
    }

    /// The snapshot. `None` cannot happen: it was checked.
    pub fn snapshot(&self) -> Option<Snapshot<'_>> {
        Snapshot::open(&self.file).ok()
    }

    /// Its rules.
    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// The currency of all prices, by its three letters; `USD` if there are none.
    pub fn currency(&self) -> &str {
        &self.currency
    }

    /// Its generation.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}
