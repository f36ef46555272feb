//! `tollgate seal`, `tollgate hash-key` and `tollgate rotate-key`.

use std::io::Read;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Failure, print};
use crate::secrets::MasterKey;

#[derive(Debug, ClapArgs)]
pub(super) struct SealArgs {
    /// Id of the provider; the result works for no other
    #[arg(long, value_name = "ID")]
    provider: String,
    /// File with the master key
    #[arg(
        long,
        value_name = "FILE",
        env = "TOLLGATE_MASTER_KEY_FILE",
        default_value = "/var/lib/tollgate/master.key"
    )]
    master_key_file: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(super) struct RotateArgs {
    /// Folder of documents; none if they lie in Nacos
    #[arg(long, value_name = "DIR", env = "TOLLGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Only make the next key, in a file beside the present one, for all instances that share documents; the daemon may run
    #[arg(long)]
    prepare: bool,
    /// The daemon's state folder
    #[arg(
        long,
        value_name = "DIR",
        env = "TOLLGATE_STATE",
        default_value = "/var/lib/tollgate"
    )]
    state: PathBuf,
    /// File with the master key; `master.key` in the state folder by default
    #[arg(long, value_name = "FILE", env = "TOLLGATE_MASTER_KEY_FILE")]
    master_key_file: Option<PathBuf>,
}

pub(super) fn rotate(args: &RotateArgs) -> Result<(), Failure> {
    let default = || args.state.join("master.key");
    let file = args.master_key_file.clone().unwrap_or_else(default);
    if args.prepare {
        let next = crate::rotation::prepare(&file)?;
        return print(&format!(
            "The next key is in {}.\n\
             Bring it to every instance that shares the documents, beside its key and as secret; there and here\n\
             restart the daemon and reload nginx, so that they open what it seals. Then take it, one after the other.\n",
            next.display()
        ));
    }
    let done = crate::rotation::rotate(&args.state, &file, args.config.as_deref())?;
    let next = match &args.config {
        Some(_) => "Start the daemon, then reload nginx: its master has read the old key.",
        None => {
            "Start the daemon and reload nginx. When all instances have the new key, seal the documents in Nacos anew:\n\
             tollgate config reseal"
        }
    };
    print(&format!(
        "sealed anew: {} documents, {} backups ({} of another key were left)\n\
         The old key is in {}; versions and archives from before need it.\n{next}\n",
        done.documents.len(),
        done.backups,
        done.foreign_backups,
        done.old_key.display()
    ))
}

fn secret_from_stdin() -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    std::io::stdin().read_to_string(&mut text)?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err("nothing came on standard input".into());
    }
    Ok(Zeroizing::new(secret.to_owned()))
}

pub(super) fn seal(args: &SealArgs) -> Result<(), Failure> {
    let key = MasterKey::read(&args.master_key_file)?;
    let sealed = key.seal_text(&args.provider, &secret_from_stdin()?)?;
    print(&format!("{sealed}\n"))
}

pub(super) fn hash() -> Result<(), Failure> {
    let digest = Sha256::digest(secret_from_stdin()?.as_bytes());
    let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    print(&format!("{hex}\n"))
}
