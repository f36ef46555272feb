//! Accounts, roles and tokens for backups, and back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::directory::{Accounts, AccountsError, invalid};
use super::records::{Expected, Record, RecordsError, Table};

/// A record as a backup has it. Passwords and tokens stand in it as hashes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeptRecord {
    /// `accounts`, `roles` or `tokens`.
    table: String,
    /// Its key.
    key: String,
    /// Its content.
    value: Value,
    /// When it expires, Unix milliseconds.
    expires_at_ms: Option<u64>,
}

/// What is kept: sessions and failed logins are of the moment.
const KEPT: [Table; 3] = [Table::Accounts, Table::Roles, Table::Tokens];

impl Accounts {
    /// Everything that a backup needs.
    ///
    /// # Errors
    /// If the store fails.
    pub fn export(&self) -> Result<Vec<KeptRecord>, AccountsError> {
        let mut all = Vec::new();
        for table in KEPT {
            for record in self.records.list(table, self.now())? {
                let value = serde_json::from_slice(&record.value).map_err(|source| RecordsError {
                    action: "read an account's record",
                    source: source.into(),
                })?;
                all.push(KeptRecord {
                    table: table.name().into(),
                    key: record.key,
                    value,
                    expires_at_ms: record.expires_ms,
                });
            }
        }
        Ok(all)
    }

    /// Writes what a backup has over what there is; how many records those are. What the backup does not have stays.
    ///
    /// # Errors
    /// If a record is none, or the store fails.
    pub fn import(&self, kept: &[KeptRecord]) -> Result<usize, AccountsError> {
        let table_of = |name: &str| KEPT.into_iter().find(|t| t.name() == name);
        let mut records = Vec::new();
        for (index, one) in kept.iter().enumerate() {
            let Some(table) = table_of(&one.table) else {
                let field = format!("content.accounts[{index}].table");
                return Err(invalid(vec![(field, "is none that backups have".into())]));
            };
            let record = Record {
                key: one.key.clone(),
                version: 0,
                value: one.value.to_string().into_bytes(),
                expires_ms: one.expires_at_ms,
            };
            records.push((table, record));
        }
        for (table, record) in &records {
            self.records.put(*table, record, Expected::Anything, self.now())?;
        }
        Ok(records.len())
    }
}
