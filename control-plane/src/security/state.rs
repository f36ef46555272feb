//! What lies in the state folder: keys, accounts, tokens, the audit log.

use std::path::Path;
use std::sync::Arc;

use super::{Finding, Risk};
use crate::accounts::{AccountView, Accounts, SqliteRecords, TokenView};
use crate::audit::Audit;
use crate::secrets::MasterKey;

const DAY_MS: u64 = 86_400_000;
/// Accounts and tokens that nobody has used for so long.
const UNUSED_MS: u64 = 90 * DAY_MS;
/// How long a password that somebody else knows may stay.
const FRESH_MS: u64 = 7 * DAY_MS;

fn finding(
    (code, risk): (&'static str, Risk),
    (place, path): (&str, String),
    what: String,
    advice: &'static str,
) -> Finding {
    Finding {
        code,
        risk,
        place: place.to_owned(),
        path,
        what,
        advice,
    }
}

/// Files that are nobody else's business.
fn files(folder: &Path, found: &mut Vec<Finding>) {
    use std::os::unix::fs::PermissionsExt;
    for name in ["master.key", "api.token", "accounts.db", "audit.db"] {
        let Ok(about) = std::fs::metadata(folder.join(name)) else {
            continue;
        };
        let mode = about.permissions().mode() & 0o777;
        let risk = if mode & 0o007 != 0 {
            Risk::High
        } else if mode & 0o020 != 0 {
            Risk::Medium
        } else {
            continue;
        };
        let what = format!("its mode is {mode:04o}: others may read or change it");
        found.push(finding(
            ("file_open", risk),
            (name, String::new()),
            what,
            "`chmod 600`",
        ));
    }
}

fn account(account: &AccountView, now_ms: u64, found: &mut Vec<Finding>) {
    if !account.enabled {
        return;
    }
    let name = &account.name;
    let place = ("accounts.db", format!("accounts.{name}"));
    let since = |at: u64| now_ms.saturating_sub(at);
    if account.must_change_password && since(account.changed_at_ms) > FRESH_MS {
        let what = format!("`{name}` still has the password that it was given");
        let advice = "let its owner change it, or remove the account";
        found.push(finding(("password_given", Risk::Medium), place, what, advice));
    } else if since(account.last_login_ms.unwrap_or(account.created_at_ms)) > UNUSED_MS {
        let what = format!("nobody has signed in as `{name}` for 90 days");
        let advice = "disable or remove it";
        found.push(finding(("account_unused", Risk::Low), place, what, advice));
    }
}

fn token(token: &TokenView, now_ms: u64, found: &mut Vec<Finding>) {
    let (id, account) = (&token.id, &token.account);
    let place = || ("accounts.db", format!("tokens.{id}"));
    if token.expires_at_ms.is_none() {
        let what = format!("the token {id} of `{account}` never expires");
        let advice = "make one that does (`expires_in`), and revoke it";
        found.push(finding(
            ("token_without_end", Risk::Medium),
            place(),
            what,
            advice,
        ));
    }
    let used = token.last_used_ms.unwrap_or(token.created_at_ms);
    if now_ms.saturating_sub(used) > UNUSED_MS {
        let what = format!("nobody has used the token {id} of `{account}` for 90 days");
        found.push(finding(("token_unused", Risk::Low), place(), what, "revoke it"));
    }
}

/// Everything that is found in a state folder. Blocks.
///
/// # Errors
/// A text that says what cannot be read.
pub fn of_state(folder: &Path, key: Option<&MasterKey>, now_ms: u64) -> Result<Vec<Finding>, String> {
    let mut found = Vec::new();
    files(folder, &mut found);
    let path = folder.join("accounts.db");
    if path.exists() {
        let records = SqliteRecords::open(&path).map_err(|e| e.to_string())?;
        let accounts = Accounts::new(Arc::new(records)).map_err(|e| e.to_string())?;
        let fail = |error| format!("the accounts cannot be read: {error:?}");
        for one in accounts.list().map_err(fail)? {
            account(&one, now_ms, &mut found);
        }
        for one in accounts.tokens(None).map_err(fail)? {
            token(&one, now_ms, &mut found);
        }
    }
    if let Some(key) = key.filter(|_| folder.join("audit.db").exists()) {
        let verdict = Audit::verify_folder(folder, key).map_err(|e| e.to_string())?;
        if !verdict.intact {
            let what = "rows were edited, removed or put elsewhere".to_owned();
            let advice = "see `tollgate audit verify`";
            let place = ("audit.db", String::new());
            found.push(finding(("audit_broken", Risk::High), place, what, advice));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::{NewAccount, NewToken, Principal, Via};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn old_accounts_endless_tokens_and_open_files_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let records = SqliteRecords::open(&dir.path().join("accounts.db")).unwrap();
        let accounts = Accounts::new(Arc::new(records)).unwrap();
        accounts
            .create(NewAccount {
                name: "mia".into(),
                roles: vec!["viewer".into()],
                ..NewAccount::default()
            })
            .unwrap();
        let mia = Principal {
            name: "mia".into(),
            via: Via::BreakGlass,
            ..Principal::break_glass()
        };
        let wanted = |expires_in: Option<&str>| NewToken {
            label: "ci".into(),
            expires_in: expires_in.map(str::to_owned),
            ..NewToken::default()
        };
        accounts.create_token(&mia, &wanted(None)).unwrap();
        accounts.create_token(&mia, &wanted(Some("300d"))).unwrap();
        let now = accounts.one("mia").unwrap().created_at_ms;
        let codes = |now_ms| -> Vec<&'static str> {
            let found = of_state(dir.path(), None, now_ms).unwrap();
            found.iter().map(|f| f.code).collect()
        };
        assert_eq!(codes(now), ["token_without_end"]);
        assert_eq!(codes(now + 8 * DAY_MS), ["password_given", "token_without_end"]);
        let later = codes(now + 91 * DAY_MS);
        assert_eq!(
            later.iter().filter(|c| **c == "token_unused").count(),
            2,
            "{later:?}"
        );

        let token = dir.path().join("api.token");
        std::fs::write(&token, "x").unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
        let found = of_state(dir.path(), None, now).unwrap();
        assert_eq!((found[0].code, found[0].risk), ("file_open", Risk::High));
        assert_eq!(found[0].place, "api.token");
    }
}
