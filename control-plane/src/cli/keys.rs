//! `tollgate seal` and `tollgate hash-key`.

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
