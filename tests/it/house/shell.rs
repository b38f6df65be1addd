//! Completions of the shell and manual pages offer every command.

use std::collections::BTreeSet;
use std::process::Command;

use super::documents::commands;
use crate::support::BINARY;

/// Returns the standard output of a program that must succeed.
fn stdout(command: &mut Command) -> String {
    let output = command.output().expect("the program runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("the output is text")
}

fn dispatch(arguments: &[&str]) -> String {
    stdout(Command::new(BINARY).args(arguments).env_clear())
}

/// Returns what bash offers after `words`, with the script of `dispatch completions bash`.
fn offered(words: &[&str]) -> BTreeSet<String> {
    let complete = r#"
        eval "$("$0" completions bash)"
        COMP_WORDS=("$@" ""); COMP_CWORD=$#; COMPREPLY=()
        _dispatch dispatch "" "${@: -1}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut bash = Command::new("bash");
    let bash = bash.args(["--norc", "-c", complete, BINARY]).args(words);
    stdout(bash).lines().map(str::to_owned).collect()
}

#[test]
fn bash_offers_every_command_and_no_hidden_one() {
    let all = offered(&["dispatch"]);
    for command in commands() {
        let words: Vec<&str> = command.split(' ').collect();
        assert!(all.contains(words[1]), "{command}: {all:?}");
        if let [_, noun, verb] = words[..] {
            let inner = offered(&["dispatch", noun]);
            assert!(inner.contains(verb), "{command}: {inner:?}");
        }
    }
    assert!(
        !all.contains("guard") && !all.contains("simulator"),
        "{all:?}"
    );
    let options = offered(&["dispatch", "worker"]);
    assert!(options.contains("--concurrency"), "{options:?}");
}

#[test]
fn other_shells_have_a_script_that_names_every_command() {
    for (shell, start) in [
        ("zsh", "#compdef dispatch"),
        ("fish", "complete -c dispatch"),
    ] {
        let script = dispatch(&["completions", shell]);
        assert!(script.contains(start), "{shell}");
        for command in commands() {
            let last = command.rsplit(' ').next().unwrap_or_default();
            assert!(script.contains(last), "{shell}: {command}");
        }
    }
}

#[test]
fn the_manual_names_every_command_and_a_folder_has_a_page_for_each() {
    let page = dispatch(&["man"]);
    let folder = std::env::temp_dir().join(format!("man-{}", uuid::Uuid::now_v7()));
    dispatch(&["man", "--dir", folder.to_str().expect("a path of text")]);
    for command in commands() {
        let escaped = command.replace('-', "\\-");
        assert!(page.contains(&format!("\\fB{escaped}\\fR\n")), "{command}");
        let file = folder.join(format!("{}.1", command.replace(' ', "-")));
        let text =
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{error}: {command}"));
        assert!(text.contains(".SH SYNOPSIS"), "{command}");
    }
    let whole = std::fs::read_to_string(folder.join("dispatch.1"));
    assert_eq!(
        whole.expect("the page of the program").trim_end(),
        page.trim_end()
    );
    std::fs::remove_dir_all(folder).expect("the folder was made here");
}
