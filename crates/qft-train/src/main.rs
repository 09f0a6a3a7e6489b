//! `qft`: the command line.
fn main() {}
