//! See preload/README.md.
#![no_std]
