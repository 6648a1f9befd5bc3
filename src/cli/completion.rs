//! `beaufort completion`: completion scripts for shells.

use std::process::ExitCode;

use clap::CommandFactory;

use super::{Cli, screen};

const EXAMPLES: &str = "\
Examples:
  beaufort completion bash > /etc/bash_completion.d/beaufort
  beaufort completion zsh  > ~/.zfunc/_beaufort
  beaufort completion fish > ~/.config/fish/completions/beaufort.fish";

/// Print a completion script for a shell.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct CompletionArgs {
    #[arg(value_enum)]
    pub shell: Shell,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub fn run(args: &CompletionArgs) -> anyhow::Result<ExitCode> {
    screen::say(&script(args.shell))?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: Shell) -> String {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "beaufort", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_knows_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            assert!(["services", "why", "--endpoint", "endpoint"].iter().any(|word| script.contains(word)), "{shell:?}");
            assert!(script.contains("services") && script.contains("scale"), "{shell:?}");
        }
    }
}
