//! Link options of `libsidewire.so`.

fn main() {
    // A handler or an atfork child may hold addresses inside: the library never leaves the process.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
}
