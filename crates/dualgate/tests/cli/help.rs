//! Help is written for a person, and the page of the commands knows every one.

use crate::support::{dualgate, root};

const COMMANDS: [&str; 17] = [
    "run",
    "check",
    "explain",
    "exposure",
    "plan",
    "status",
    "keys",
    "tunnel",
    "firewall",
    "vip",
    "dns",
    "render",
    "edge",
    "install",
    "uninstall",
    "echo",
    "lab",
];

#[test]
fn the_first_help_names_every_command_and_how_to_begin() {
    let help = dualgate(&["--help"]);
    assert_eq!((help.code, &*help.err), (0, ""));
    let listed: Vec<&str> = help.out.lines().skip_while(|line| *line != "Commands:").skip(1).collect();
    let listed: Vec<&str> = listed.iter().map_while(|line| line.split_whitespace().next()).collect();
    assert_eq!(listed, [&COMMANDS[..], &["help"]].concat());
    assert!(help.out.contains("To begin") && help.out.contains("Exit codes: 0"), "{}", help.out);
}

#[test]
fn each_command_says_what_it_does_and_gives_an_example() {
    for command in COMMANDS {
        let help = dualgate(&[command, "--help"]);
        assert_eq!((help.code, &*help.err), (0, ""), "{command}");
        let first = help.out.lines().next().unwrap();
        assert!(first.split_whitespace().count() >= 5, "{command}: {first}");
        let (_, examples) = help.out.split_once("\nExample").unwrap_or_else(|| panic!("{command} has no example"));
        assert!(examples.contains(&format!("\n  dualgate {command}")), "{command}: {examples}");
        assert!(help.out.lines().all(|line| line.chars().count() <= 100), "{command} has a long line:\n{}", help.out);
    }
}

#[test]
fn the_examples_of_the_help_are_accepted_and_those_that_only_read_succeed() {
    let mut tried = 0;
    for command in ["check", "explain", "exposure"] {
        let help = dualgate(&[command, "--help"]).out;
        let examples = help.lines().filter_map(|line| line.strip_prefix("  dualgate "));
        for example in examples.filter(|example| example.contains("examples/laptop")) {
            let outcome = dualgate(&example.split(' ').collect::<Vec<_>>());
            // The one example of a page that is not public shows just that.
            let expected = i32::from(example.contains("--from external"));
            assert_eq!(outcome.code, expected, "{example}: {}{}", outcome.out, outcome.err);
            tried += 1;
        }
    }
    assert_eq!(tried, 4);
}

#[test]
fn a_mistyped_command_line_cannot_be_told_and_gets_a_suggestion() {
    let outcome = dualgate(&["chek"]);
    assert_eq!(outcome.code, 2);
    assert!(outcome.err.contains("'check'"), "{}", outcome.err);
    let outcome = dualgate(&["check", "--source", "clutser"]);
    assert_eq!(outcome.code, 2);
    assert!(outcome.err.contains("`cluster:CONTEXT`"), "{}", outcome.err);
}

#[test]
fn the_page_of_the_commands_has_a_section_for_each() {
    let page = std::fs::read_to_string(root().join("docs/commands.md")).unwrap();
    let sections: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("## dualgate ")).collect();
    assert_eq!(sections, COMMANDS);
}
