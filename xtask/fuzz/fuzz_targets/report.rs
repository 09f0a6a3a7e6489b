//! Fuzzes the target of this name.
#![no_main]

qft_fuzz::fuzz!(REPORT);
