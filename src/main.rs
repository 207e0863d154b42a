//! The `postseal` program: the real surroundings go in, an exit code comes out.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(postseal::cli::run(&postseal::env::System, std::env::args_os()))
}
