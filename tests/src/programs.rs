//! Which programs the tests drive. `make` builds them; the environment can name others.
//!
//! | variable | default |
//! | --- | --- |
//! | `TOLLGATE_NGINX` | `pinned`; or `checked`, `debian`, `custom`: a folder of `target/module` |
//! | `TOLLGATE_WRAPPER` | none; a program with arguments that every nginx is started through: Valgrind |
//! | `TOLLGATE_TARGET` | `target` in the checkout |
//! | `TOLLGATE_DAEMON` | `target/fast/tollgate` |
//! | `TOLLGATE_CACHE` | `~/.cache/tollgate`; what is built once for all checkouts |

use std::path::{Path, PathBuf};

/// An nginx and the module built for it.
#[derive(Clone, Debug)]
pub struct NginxTree {
    /// `pinned`, `checked`, `debian` or `custom`.
    pub name: String,
    /// The nginx binary.
    pub binary: PathBuf,
    /// The module; it may not have been built yet.
    pub module: PathBuf,
}

/// The root of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package is inside the workspace")
        .to_owned()
}

/// What was built.
pub fn target() -> PathBuf {
    std::env::var_os("TOLLGATE_TARGET").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The tree that `TOLLGATE_NGINX` names.
///
/// # Panics
/// If `make module` has not prepared it.
pub fn nginx() -> NginxTree {
    nginx_named(&std::env::var("TOLLGATE_NGINX").unwrap_or_else(|_| "pinned".to_owned()))
}

/// A tree by its name.
///
/// # Panics
/// As [`nginx`].
pub fn nginx_named(name: &str) -> NginxTree {
    let folder = target().join("module").join(name);
    let settings = folder.join("tree.env");
    let text = std::fs::read_to_string(&settings)
        .unwrap_or_else(|error| panic!("{}: {error}: run `make module` first", settings.display()));
    let binary = text
        .lines()
        .find_map(|line| line.strip_prefix("NGINX_BINARY="))
        .unwrap_or_else(|| panic!("{}: no NGINX_BINARY", settings.display()));
    NginxTree {
        name: name.to_owned(),
        binary: binary.into(),
        module: folder.join("ngx_http_tollgate_module.so"),
    }
}

/// What every nginx is started through, unless a test says otherwise.
pub fn wrapper() -> Vec<String> {
    let text = std::env::var("TOLLGATE_WRAPPER").unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// The daemon.
///
/// # Panics
/// If it has not been built.
pub fn daemon() -> PathBuf {
    let path = std::env::var_os("TOLLGATE_DAEMON")
        .map_or_else(|| target().join("fast").join("tollgate"), PathBuf::from);
    assert!(
        path.is_file(),
        "{}: not there: run `make daemon` first",
        path.display()
    );
    path
}

/// The Nacos-compatible server.
///
/// # Panics
/// If it has not been built.
pub fn nacos() -> PathBuf {
    let cache = std::env::var_os("TOLLGATE_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/tollgate"),
        PathBuf::from,
    );
    let path = cache.join("rnacos/bin/rnacos");
    assert!(
        path.is_file(),
        "{}: not there: run scripts/rnacos.sh first",
        path.display()
    );
    path
}
