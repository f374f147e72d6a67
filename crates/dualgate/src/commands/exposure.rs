//! `dualgate exposure`: what is reachable from the Internet, and why.

use std::process::ExitCode;

use dualgate_core::explain::exposure;

use crate::cli::{Exposure, Format};
use crate::output;

/// 0 whatever is public: which of it should be, only a person knows.
pub fn run(args: &Exposure) -> anyhow::Result<ExitCode> {
    let exposure = exposure(&args.inputs.snapshot()?);
    match args.output.output {
        Format::Json => output::json(&exposure)?,
        Format::Text => output::text(&output::visible(&exposure.to_string()))?,
    }
    Ok(output::verdict(true))
}
