//! See preload/README.md.
