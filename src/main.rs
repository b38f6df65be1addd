//! Parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    dispatch_worker::cli::run()
}
