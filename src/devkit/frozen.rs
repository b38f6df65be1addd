//! Freezes processes, so that a server neither answers nor closes its connections.

use std::fs;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

/// Freezes `parent`, then its children. A frozen parent cannot start or reap a child, so their ids
/// stay valid.
///
/// # Errors
/// There is no `/proc` to find the children in, or a signal is refused. Some processes may be
/// frozen then.
pub(super) fn freeze(parent: Pid) -> anyhow::Result<()> {
    send(parent, Signal::STOP)?;
    children(parent)?
        .into_iter()
        .try_for_each(|child| send(child, Signal::STOP))
}

/// Resumes the processes, the parent last.
///
/// # Errors
/// As [`freeze`].
pub(super) fn thaw(parent: Pid) -> anyhow::Result<()> {
    let children = children(parent)?;
    children
        .into_iter()
        .chain([parent])
        .try_for_each(|process| send(process, Signal::CONT))
}

fn send(process: Pid, signal: Signal) -> anyhow::Result<()> {
    match kill_process(process, signal) {
        // A process that has just ended needs no signal.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error)
            .with_context(|| format!("cannot signal process {}", process.as_raw_nonzero())),
    }
}

fn children(parent: Pid) -> anyhow::Result<Vec<Pid>> {
    let entries = fs::read_dir("/proc")
        .context("cannot read /proc, in which processes are found (on Linux only)")?;
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |id: &i32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat"));
        stat.is_ok_and(|stat| parent_of(&stat) == Some(parent.as_raw_nonzero().get()))
    };
    Ok(ids.filter(is_child).filter_map(Pid::from_raw).collect())
}

/// Returns the fourth field of `/proc/PID/stat`. The second, a name in parentheses, may contain
/// anything. Source: `proc_pid_stat(5)`.
fn parent_of(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_read_whatever_a_process_is_called() {
        assert_eq!(parent_of("17 (postgres: a) S 99 (x) S 4 17 17 0"), Some(4));
        assert_eq!(parent_of("17 (postgres) T 12 17 17 0 -1"), Some(12));
        assert_eq!(parent_of("17"), None);
    }

    #[test]
    fn a_child_stands_still_until_it_is_let_go_on() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let id = Pid::from_raw(child.id().cast_signed()).unwrap();
        let state = || {
            fs::read_to_string(format!("/proc/{}/stat", child.id()))
                .unwrap()
                .rsplit(')')
                .next()
                .unwrap()
                .trim()[..1]
                .to_owned()
        };
        freeze(id).unwrap();
        while state() != "T" {
            std::thread::yield_now();
        }
        thaw(id).unwrap();
        while state() == "T" {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            children(rustix::process::getpid())
                .unwrap()
                .iter()
                .all(|left| *left != id)
        );
    }
}
