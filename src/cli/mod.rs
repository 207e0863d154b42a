//! The command line.

pub mod draw;
