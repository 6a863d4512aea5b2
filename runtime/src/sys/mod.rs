//! System calls that nix lacks, as safe functions. The only place with `unsafe`.

pub mod file;
