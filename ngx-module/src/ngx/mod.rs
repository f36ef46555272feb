//! Everything that touches raw nginx. The rest of the module sees only what these files wrap.

pub(crate) mod balancer;
pub(crate) mod conf;
pub(crate) mod counting;
pub(crate) mod filter;
pub(crate) mod guard;
pub(crate) mod keepalive;
pub(crate) mod log;
pub(crate) mod module;
pub(crate) mod phase;
pub(crate) mod pool;
pub(crate) mod process;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod running;
pub(crate) mod tls;
pub(crate) mod variables;
