//! Linux numbers and layouts.
#![forbid(unsafe_code)]
#![no_std]
