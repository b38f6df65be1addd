//! Finds the programs of Postgres, RabbitMQ and Chromium, and installs missing ones on Debian and its
//! derivatives as root.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::process::log_tail;

/// The oldest supported version of Postgres.
const OLDEST_POSTGRES: u32 = 13;
/// The log of apt, which also serves as the lock between installations. Only root can write there.
const LOG: &str = "/run/dispatch-install.log";
/// Debian creates a cluster `main` with every new Postgres, unless this file says otherwise.
const CLUSTER_CONF: &str = "/etc/postgresql-common/createcluster.conf";

/// The packages that start a service of the same name.
const SERVICES: [&str; 2] = ["postgresql", "rabbitmq-server"];

/// The required programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Postgres 13 or later.
    pub postgres: bool,
    /// RabbitMQ with Erlang.
    pub rabbitmq: bool,
    /// Chromium with its driver.
    pub chromium: bool,
    /// `promtool` of Prometheus, which checks alerts and metrics.
    pub promtool: bool,
}

/// The paths of the programs; `None` for programs that are not on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// The folder of `initdb` and `postgres`, of the newest version.
    pub postgres_bin: Option<PathBuf>,
    /// RabbitMQ's folder of scripts, of the newest version.
    pub rabbitmq_sbin: Option<PathBuf>,
    /// Erlang's port mapper, `epmd`.
    pub epmd: Option<PathBuf>,
    /// Chromium.
    pub chromium: Option<PathBuf>,
    /// Chromium's WebDriver server, `chromedriver`.
    pub chromedriver: Option<PathBuf>,
    /// `promtool`.
    pub promtool: Option<PathBuf>,
}

impl Programs {
    /// Looks for the programs where Debian puts them, and for Postgres also on the `PATH`.
    #[must_use]
    pub fn find() -> Self {
        let path_postgres = || {
            let bin = on_path("initdb")?.canonicalize().ok()?.parent()?.to_owned();
            let is_usable =
                bin.join("postgres").exists() && postgres_version(&bin)? >= OLDEST_POSTGRES;
            is_usable.then_some(bin)
        };
        let postgres = newest("/usr/lib/postgresql", "", "bin", "initdb");
        Self {
            postgres_bin: postgres
                .filter(|(version, _)| version[0] >= OLDEST_POSTGRES)
                .map(|(_, bin)| bin)
                .or_else(path_postgres),
            rabbitmq_sbin: newest(
                "/usr/lib/rabbitmq/lib",
                "rabbitmq_server-",
                "sbin",
                "rabbitmq-server",
            )
            .map(|(_, sbin)| sbin),
            epmd: on_path("erl").and(on_path("epmd")),
            chromium: on_path("chromium"),
            chromedriver: on_path("chromedriver"),
            promtool: on_path("promtool"),
        }
    }

    /// Returns the Debian packages that `wanted` lacks.
    #[must_use]
    pub fn missing(&self, wanted: Wanted) -> Vec<&'static str> {
        let mut packages = Vec::new();
        if wanted.postgres && self.postgres_bin.is_none() {
            packages.push("postgresql");
        }
        if wanted.rabbitmq && (self.rabbitmq_sbin.is_none() || self.epmd.is_none()) {
            packages.push("rabbitmq-server");
        }
        if wanted.chromium && self.chromium.is_none() {
            packages.push("chromium");
        }
        if wanted.chromium && self.chromedriver.is_none() {
            packages.push("chromium-driver");
        }
        if wanted.promtool && self.promtool.is_none() {
            packages.push("prometheus");
        }
        packages
    }
}

/// Finds the programs that `wanted` needs. As root, installs missing ones with apt and reports
/// that in one line through `report`. Blocks, for up to a minute during an installation.
///
/// # Errors
/// A program is missing and the user is not root or there is no apt (the text has the commands to
/// run), or apt failed.
pub fn ensure(wanted: Wanted, report: &dyn Fn(&str)) -> anyhow::Result<Programs> {
    let programs = Programs::find();
    let packages = programs.missing(wanted);
    if packages.is_empty() {
        return Ok(programs);
    }
    if !rustix::process::geteuid().is_root() || on_path("apt-get").is_none() {
        bail!("{}", advice(&packages));
    }
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .open(LOG)
        .with_context(|| format!("cannot open {LOG}"))?;
    log.lock().with_context(|| format!("cannot lock {LOG}"))?;
    // The previous holder of the lock may have installed the same packages.
    let packages = Programs::find().missing(wanted);
    if !packages.is_empty() {
        report(&format!(
            "installing {} with apt-get (the servers' services stay off; log: {LOG})",
            packages.join(" and ")
        ));
        install(&packages, &log)?;
    }
    let programs = Programs::find();
    let still_missing = programs.missing(wanted);
    if !still_missing.is_empty() {
        bail!(
            "apt-get installed {0}, but no usable {0} was found (Postgres must be {OLDEST_POSTGRES} or later)",
            still_missing.join(", ")
        );
    }
    Ok(programs)
}

fn advice(packages: &[&str]) -> String {
    format!(
        "not installed here: {}. Install with\n  sudo apt-get update\n  sudo DEBIAN_FRONTEND=noninteractive apt-get install -y \
         --no-install-recommends {}\n(Postgres must be {OLDEST_POSTGRES} or later), run this as root, or name existing servers \
         by DISPATCH_TEST_DATABASE_URL and DISPATCH_TEST_AMQP_URL",
        packages.join(" and "),
        packages.join(" ")
    )
}

fn install(packages: &[&str], log: &File) -> anyhow::Result<()> {
    if packages.contains(&"postgresql") && !Path::new(CLUSTER_CONF).exists() {
        std::fs::create_dir_all("/etc/postgresql-common")
            .context("cannot create /etc/postgresql-common")?;
        std::fs::write(CLUSTER_CONF, "create_main_cluster = false\n")
            .with_context(|| format!("cannot write {CLUSTER_CONF}"))?;
    }
    apt(&["update"], log)?;
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    apt(&arguments, log)?;
    let services: Vec<&&str> = packages
        .iter()
        .filter(|package| SERVICES.contains(package))
        .collect();
    if !services.is_empty() && Path::new("/run/systemd/system").exists() {
        // Under systemd the run level below has no effect. The services are as new as their
        // packages, so nothing uses them.
        let mut systemctl = Command::new("systemctl");
        let done = logged(systemctl.args(["disable", "--now"]).args(&services), log)?
            .status()
            .context("cannot run systemctl")?;
        if !done.success() {
            bail!(
                "systemctl disable --now failed ({done}); its log ends with:\n{}",
                log_tail(Path::new(LOG))
            );
        }
    }
    Ok(())
}

fn apt(arguments: &[&str], log: &File) -> anyhow::Result<()> {
    let mut command = Command::new("apt-get");
    command
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    // Pretend single-user mode: without systemd, the packages start no service then.
    command.env("RUNLEVEL", "1").env("PREVLEVEL", "N");
    let status = logged(&mut command, log)?
        .status()
        .context("cannot run apt-get")?;
    if !status.success() {
        bail!(
            "apt-get {} failed ({status}); its log ends with:\n{}",
            arguments.join(" "),
            log_tail(Path::new(LOG))
        );
    }
    Ok(())
}

/// Redirects the output to a file instead of a pipe, so that apt can finish if this process ends.
fn logged<'a>(command: &'a mut Command, log: &File) -> anyhow::Result<&'a mut Command> {
    Ok(command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?))
}

/// Returns the newest `<root>/<prefix><version>/<folder>` that contains `program`.
fn newest(root: &str, prefix: &str, folder: &str, program: &str) -> Option<(Vec<u32>, PathBuf)> {
    let entries = std::fs::read_dir(root).ok()?;
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = version(entry.file_name().to_str()?.strip_prefix(prefix)?)?;
            let found = entry.path().join(folder);
            found.join(program).exists().then_some((version, found))
        })
        .max()
}

/// Parses `3.10.8` into numbers, so that 3.10 is newer than 3.9. Ignores anything after the
/// numbers.
fn version(text: &str) -> Option<Vec<u32>> {
    let digits = text
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .next()?;
    let numbers: Vec<u32> = digits
        .split('.')
        .map_while(|part| part.parse().ok())
        .collect();
    (!numbers.is_empty()).then_some(numbers)
}

/// Returns the major version: `initdb (PostgreSQL) 15.14 (Debian …)` → 15.
fn postgres_version(bin: &Path) -> Option<u32> {
    let output = Command::new(bin.join("initdb"))
        .arg("--version")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    version(text.split_whitespace().nth(2)?).map(|numbers| numbers[0])
}

fn on_path(program: &str) -> Option<PathBuf> {
    let output = Command::new("sh")
        .args(["-c", "command -v \"$0\"", program])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let found = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(found.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_version_is_greater_by_number_not_by_letter() {
        assert!(version("3.10.8") > version("3.9.11"));
        assert_eq!(version("15.14-0"), Some(vec![15, 14]));
        assert_eq!(version("common"), None);
    }

    #[test]
    fn only_what_is_wanted_and_absent_is_missing() {
        let nothing = Programs {
            postgres_bin: None,
            rabbitmq_sbin: Some("/sbin".into()),
            epmd: None,
            chromium: None,
            chromedriver: Some("/bin/chromedriver".into()),
            promtool: None,
        };
        assert_eq!(
            nothing.missing(Wanted {
                postgres: true,
                rabbitmq: true,
                chromium: true,
                promtool: true,
            }),
            ["postgresql", "rabbitmq-server", "chromium", "prometheus"]
        );
        assert_eq!(
            nothing.missing(Wanted {
                postgres: true,
                ..Wanted::default()
            }),
            ["postgresql"]
        );
        let epmd = Programs {
            epmd: Some("/bin/epmd".into()),
            ..nothing
        };
        assert!(
            epmd.missing(Wanted {
                rabbitmq: true,
                ..Wanted::default()
            })
            .is_empty()
        );
    }

    #[test]
    fn missing_packages_are_reported_with_the_commands_that_install_them() {
        let text = advice(&["postgresql"]);
        assert!(text.contains("sudo DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql\n"));
    }
}
