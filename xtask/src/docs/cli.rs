//! The page of the command line: what `--help` prints, for every command.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// Asks the program itself.
pub fn page(workspace: &Workspace) -> Result<String> {
    let program = workspace.binary("dualgate", "dev")?;
    let top = help(&program, &[])?;
    let commands: Vec<&str> = commands(&top).collect();
    if commands.is_empty() {
        bail!("`dualgate --help` names no commands");
    }
    let mut page = String::from("# The command line\n\n<!-- Written by `cargo xtask docs`. -->\n");
    page += &section("dualgate", &top);
    for command in commands {
        let text = help(&program, &[command])?;
        page += &section(&format!("dualgate {command}"), &text);
        for below in self::commands(&text) {
            page += &section(&format!("dualgate {command} {below}"), &help(&program, &[command, below])?);
        }
    }
    Ok(page)
}

fn help(program: &Path, command: &[&str]) -> Result<String> {
    // The width of whoever's terminal must not show.
    let output = Command::new(program).args(command).arg("--help").env("COLUMNS", "100").output();
    let output = output.context("start dualgate")?;
    if !output.status.success() {
        bail!("dualgate {} --help: {}", command.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).context("the help is not UTF-8")
}

fn section(command: &str, help: &str) -> String {
    let lines: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    format!("\n## `{command}`\n\n```text\n{}\n```\n", lines.join("\n"))
}

/// The names below `Commands:`, without `help`.
fn commands(help: &str) -> impl Iterator<Item = &str> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let list = list.take_while(|line| !line.is_empty());
    // A description that goes on in the next line is indented further.
    let names = list.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "Gates.\n\nUsage: dualgate <COMMAND>\n\nCommands:\n  run    Serve  \n         until the end\n  check  Look\n  \
        help   Print\n\nOptions:\n  -h  Help\n";

    #[test]
    fn commands_are_found() {
        assert_eq!(commands(HELP).collect::<Vec<_>>(), ["run", "check"]);
        assert_eq!(commands("Usage: x\n").count(), 0);
    }

    #[test]
    fn a_section_has_no_blanks_at_line_ends() {
        assert_eq!(section("dualgate", "a  \n\nb\n\n"), "\n## `dualgate`\n\n```text\na\n\nb\n```\n");
    }
}
