//! Routes about people: signing in, accounts, roles, tokens, the audit log; and the API's own description.

use super::{may, object, own};
use crate::accounts::Action::{Create, Delete, Execute, Read, Update};
use crate::accounts::{AccountChange, AccountView, NewAccount, NewToken, Resource, Role};
use crate::api::route::{Access, Route};
use crate::api::{accounts, audit, backup, health, oidc, openapi, roles, session, tokens};
use crate::audit::{Row, Verdict};
use crate::backup::{Archive, Restored};

pub(super) fn signing_in() -> Vec<Route> {
    vec![
        Route::get(
            "/health",
            Access::Open,
            "Says whether the daemon does its work",
            health::read,
        )
        .gives::<health::Health>()
        .tag("health"),
        Route::get("/openapi.json", Access::Open, "Describes this API", openapi::read)
            .gives_schema(object)
            .tag("docs"),
        Route::get("/docs", Access::Open, "Shows this API to people", openapi::page)
            .gives_type("text/html")
            .tag("docs"),
        Route::get("/session", Access::Open, "Says who is signed in", session::read)
            .gives::<session::Session>()
            .tag("session"),
        Route::post("/login", Access::Open, "Signs in", session::login)
            .takes::<session::Login>()
            .gives::<session::Session>()
            .up_to(8 << 10)
            .tag("session"),
        Route::get(
            "/login/ways",
            Access::Open,
            "Says how one can sign in",
            oidc::ways,
        )
        .gives::<oidc::SignInWays>()
        .tag("session"),
        Route::get(
            "/oidc/login",
            Access::Open,
            "Sends a browser to the identity provider",
            oidc::begin,
        )
        .query::<oidc::Begin>()
        .status(303)
        .tag("session"),
        Route::get(
            "/oidc/callback",
            Access::Open,
            "Signs in whom the identity provider vouches for",
            oidc::finish,
        )
        .query::<oidc::Returned>()
        .status(303)
        .tag("session"),
        Route::post(
            "/logout",
            own(Resource::Accounts, Read),
            "Signs out",
            session::logout,
        )
        .harmless()
        .status(204)
        .tag("session"),
        Route::put(
            "/session/password",
            own(Resource::Accounts, Update),
            "Changes one's own password",
            session::password,
        )
        .takes::<session::NewPassword>()
        .harmless()
        .status(204)
        .up_to(8 << 10)
        .tag("session"),
    ]
}

pub(super) fn who_may() -> Vec<Route> {
    use Resource::{Accounts, Audit, Backup, Roles, Tokens};
    vec![
        Route::get("/accounts", may(Accounts, Read), "Lists accounts", accounts::list)
            .gives::<accounts::AccountList>(),
        Route::post(
            "/accounts",
            may(Accounts, Create),
            "Adds an account",
            accounts::create,
        )
        .takes::<NewAccount>()
        .gives::<accounts::CreatedAccount>()
        .status(201),
        Route::get(
            "/accounts/{name}",
            may(Accounts, Read),
            "Reads an account",
            accounts::one,
        )
        .gives::<AccountView>(),
        Route::patch(
            "/accounts/{name}",
            may(Accounts, Update),
            "Changes an account",
            accounts::change,
        )
        .takes::<AccountChange>()
        .gives::<AccountView>(),
        Route::delete(
            "/accounts/{name}",
            may(Accounts, Delete),
            "Removes an account",
            accounts::remove,
        )
        .status(204),
        Route::post(
            "/accounts/{name}/password",
            may(Accounts, Update),
            "Gives an account another password",
            accounts::reset,
        )
        .takes::<accounts::Reset>()
        .gives::<accounts::SetPassword>(),
        Route::delete(
            "/accounts/{name}/sessions",
            may(Accounts, Update),
            "Ends an account's sessions",
            accounts::end_sessions,
        )
        .status(204),
        Route::get("/roles", may(Roles, Read), "Lists roles", roles::list).gives::<roles::RoleList>(),
        Route::post("/roles", may(Roles, Create), "Adds a role", roles::create)
            .takes::<roles::NewRole>()
            .gives::<Role>()
            .status(201),
        Route::get("/roles/{name}", may(Roles, Read), "Reads a role", roles::one).gives::<Role>(),
        Route::put(
            "/roles/{name}",
            may(Roles, Update),
            "Replaces a role",
            roles::replace,
        )
        .takes::<roles::NewRole>()
        .gives::<Role>(),
        Route::delete(
            "/roles/{name}",
            may(Roles, Delete),
            "Removes a role",
            roles::remove,
        )
        .status(204),
        Route::get("/tokens", own(Tokens, Read), "Lists API tokens", tokens::list)
            .query::<tokens::Whose>()
            .gives::<tokens::TokenList>()
            .narrowed(),
        Route::post(
            "/tokens",
            own(Tokens, Create),
            "Makes an API token of one's own",
            tokens::create,
        )
        .takes::<NewToken>()
        .gives::<tokens::CreatedToken>()
        .status(201)
        .narrowed(),
        Route::delete(
            "/tokens/{id}",
            own(Tokens, Delete),
            "Revokes an API token",
            tokens::revoke,
        )
        .status(204)
        .narrowed(),
        Route::get(
            "/audit",
            may(Audit, Read),
            "Lists rows of the audit log, newest first",
            audit::list,
        )
        .query::<audit::Wanted>()
        .gives::<audit::AuditPage>(),
        Route::get(
            "/audit/verify",
            may(Audit, Read),
            "Follows the audit log's chain",
            audit::verify,
        )
        .gives::<Verdict>(),
        Route::get(
            "/audit/{seq}",
            may(Audit, Read),
            "Reads a row of the audit log",
            audit::one,
        )
        .gives::<Row>(),
        Route::get(
            "/backup",
            may(Backup, Execute),
            "Puts all documents and accounts into an archive",
            backup::make,
        )
        .gives::<Archive>(),
        Route::post(
            "/backup/restore",
            may(Backup, Execute),
            "Restores what an archive holds",
            backup::restore,
        )
        .query::<backup::RestoreQuery>()
        .takes::<Archive>()
        .gives::<Restored>()
        .up_to(512 << 20),
        Route::get(
            "/backups",
            may(Backup, Read),
            "Lists backups that were made by themselves",
            backup::list,
        )
        .gives::<backup::BackupList>(),
        Route::get(
            "/backups/{name}",
            may(Backup, Execute),
            "Reads a backup that was made by itself",
            backup::one,
        )
        .gives::<Archive>(),
        Route::delete(
            "/backups/{name}",
            may(Backup, Delete),
            "Removes a backup that was made by itself",
            backup::remove,
        )
        .status(204),
    ]
}
