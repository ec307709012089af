//! `bowline completions`.

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use super::terminal::Terminal;
use crate::error::Error;

/// Print completions for a shell.
///
/// Put them where your shell looks for completions, and start a new one.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline completions bash > ~/.local/share/bash-completion/completions/bowline\n  \
    bowline completions zsh > ~/.zfunc/_bowline\n  \
    bowline completions fish > ~/.config/fish/completions/bowline.fish")]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

pub(super) fn completions(
    args: &Completions,
    command: &mut clap::Command,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "bowline", &mut script);
    terminal.answer(String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
