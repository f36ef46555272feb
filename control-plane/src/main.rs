//! The `tollgate` daemon and command line.
fn main() {}
