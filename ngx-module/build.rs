//! Linker settings of the module: it must stay mapped when nginx closes it (Rust's thread-locals and lazily
//! initialised statics outlive a reload), and nothing but nginx's own entry points is exported.
fn main() {
    println!("cargo::rustc-link-arg-cdylib=-Wl,-z,nodelete");
    println!("cargo::rerun-if-changed=build.rs");
}
