//! Checked views and emitters of the headers on the wire.
#![forbid(unsafe_code)]
#![no_std]
