//! The running daemon: everything that goes on beside the API.

mod care;
mod checkpoint;
mod instance_name;
mod logging;
mod serve;
mod stop;
mod tls;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use instance_name::host_name;
pub use logging::{LogFile, init as init_logging};
pub use serve::{DaemonError, ServeOptions, serve};
pub use stop::Stop;
pub use tls::TlsFiles;
