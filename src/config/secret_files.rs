//! Secret settings in files: if `DISPATCH_X` is a secret, `DISPATCH_X_FILE` is the path of a file
//! with its value, which is how orchestrators pass secrets to containers. The type of the argument
//! marks a secret, so a new secret setting has its file too.

use std::any::TypeId;
use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command};
use secrecy::SecretString;

const SUFFIX: &str = "_FILE";
/// The largest file, in bytes: far more than a URL or a keyring needs.
const LARGEST: u64 = 64 << 10;

/// An error that a secret setting cannot be read from its file. The text names the setting and the
/// file, never the content.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileFault {
    /// The setting and its file are both set.
    #[error("expected one of {0} and {0}{SUFFIX}, got both; use {0}{SUFFIX} alone")]
    Both(String),
    /// The value is not an absolute path. The text omits it: it may be the secret itself, in the
    /// wrong variable.
    #[error(
        "{0}{SUFFIX}: expected an absolute path, got something else (not shown: it may be the secret); use /run/secrets/… for example"
    )]
    NoPath(String),
    /// The file cannot be opened, or is a directory.
    #[error("{name}{SUFFIX}: expected a file that this user may read, got an error at {}; use a file that contains only {name}", path.display())]
    Unreadable {
        /// The setting, without the suffix.
        name: String,
        path: PathBuf,
        source: io::Error,
    },
    /// The file does not contain a value.
    #[error("{name}{SUFFIX}: expected at most {LARGEST} bytes of UTF-8 text, got {got} in {}; use a file that contains only {name}", path.display())]
    Content {
        /// The setting, without the suffix.
        name: String,
        path: PathBuf,
        /// What the file contains instead.
        got: &'static str,
    },
}

/// Returns the variable that names the file of a secret argument, or `None` for any other
/// argument.
#[must_use]
pub fn secret_file_setting(argument: &Arg) -> Option<String> {
    is_secret(argument)
        .then(|| Some(format!("{}{SUFFIX}", argument.get_env()?.to_str()?)))
        .flatten()
}

fn is_secret(argument: &Arg) -> bool {
    argument.get_value_parser().type_id() == TypeId::of::<SecretString>()
}

/// Returns `command` with the secrets from files as default values of the arguments of the
/// commands in `matches`: the called command and its parents. A flag takes precedence.
///
/// # Errors
/// [`SecretFileFault`] if a file cannot be read or used.
pub fn with_secret_files(
    command: Command,
    matches: &ArgMatches,
) -> Result<Command, SecretFileFault> {
    fill(command, matches, &|name| env::var_os(name))
}

type Environment<'e> = &'e dyn Fn(&str) -> Option<OsString>;

fn fill(
    command: Command,
    matches: &ArgMatches,
    environment: Environment<'_>,
) -> Result<Command, SecretFileFault> {
    let mut secrets = Vec::new();
    for argument in command
        .get_arguments()
        .filter(|argument| is_secret(argument))
    {
        if let Some(secret) = secret_of(argument, environment)? {
            secrets.push((argument.get_id().clone(), secret));
        }
    }
    let given = |command: Command, (id, secret): (clap::Id, String)| {
        command.mut_arg(id, |argument| {
            argument.default_value(secret).hide_default_value(true)
        })
    };
    let command = secrets.into_iter().fold(command, given);
    let Some((name, inner)) = matches.subcommand() else {
        return Ok(command);
    };
    let Some(subcommand) = command.find_subcommand(name).cloned() else {
        return Ok(command);
    };
    let subcommand = fill(subcommand, inner, environment)?;
    Ok(command.mut_subcommand(name, |_| subcommand))
}

fn secret_of(
    argument: &Arg,
    environment: Environment<'_>,
) -> Result<Option<String>, SecretFileFault> {
    let Some(name) = argument.get_env().and_then(|name| name.to_str()) else {
        return Ok(None);
    };
    let Some(path) = environment(&format!("{name}{SUFFIX}")).map(PathBuf::from) else {
        return Ok(None);
    };
    if environment(name).is_some() {
        return Err(SecretFileFault::Both(name.to_owned()));
    }
    if !path.is_absolute() {
        return Err(SecretFileFault::NoPath(name.to_owned()));
    }
    let bytes = read(&path).map_err(|source| SecretFileFault::Unreadable {
        name: name.to_owned(),
        path: path.clone(),
        source,
    })?;
    content(bytes)
        .map(Some)
        .map_err(|got| SecretFileFault::Content {
            name: name.to_owned(),
            path,
            got,
        })
}

/// Reads at most one byte more than [`LARGEST`].
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the text without one trailing line end, which editors and `echo` add.
fn content(bytes: Vec<u8>) -> Result<String, &'static str> {
    if bytes.len() as u64 > LARGEST {
        return Err("more");
    }
    let mut text = String::from_utf8(bytes).map_err(|_| "bytes that are not UTF-8")?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() {
        Err("nothing")
    } else {
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use clap::{Args, FromArgMatches};
    use secrecy::ExposeSecret;

    use super::*;
    use crate::config::Links;

    /// Returns the keyring of `dispatch jobs list` if only these variables are set.
    fn keyring(variables: &[(&str, &str)], flags: &[&str]) -> Result<Option<String>, String> {
        let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
        let command = || {
            let list = Links::augment_args(Command::new("list"))
                .mut_args(|argument| argument.env(None::<&str>));
            let named = list.mut_arg("keyring", |argument| argument.env("DISPATCH_TEST_NO_SUCH"));
            Command::new("dispatch").subcommand(Command::new("jobs").subcommand(named))
        };
        let line = || ["dispatch", "jobs", "list"].iter().chain(flags);
        let environment = |name: &str| variables.get(name).map(OsString::from);
        let matches = command().get_matches_from(line());
        let filled =
            fill(command(), &matches, &environment).map_err(|fault| crate::fault::chain(&fault))?;
        let matches = filled.get_matches_from(line());
        let (_, list) = matches.subcommand().unwrap().1.subcommand().unwrap();
        let links = Links::from_arg_matches(list).unwrap();
        Ok(links
            .keyring
            .map(|keyring| keyring.expose_secret().to_owned()))
    }

    const FILE: &str = "DISPATCH_TEST_NO_SUCH_FILE";

    #[test]
    fn a_secret_is_read_from_its_file_without_one_line_end_and_a_flag_wins() {
        let folder = std::env::temp_dir().join(format!("secrets-{}", uuid::Uuid::now_v7()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("keyring");
        let path = path.to_str().unwrap();
        for (bytes, read) in [
            ("k1:a", "k1:a"),
            ("k1:a\n", "k1:a"),
            ("k1:a\r\n", "k1:a"),
            ("k1:a\n\n", "k1:a\n"),
            (" x ", " x "),
        ] {
            fs::write(path, bytes).unwrap();
            assert_eq!(
                keyring(&[(FILE, path)], &[]).unwrap().as_deref(),
                Some(read),
                "{bytes:?}"
            );
        }
        assert_eq!(
            keyring(&[(FILE, path)], &["--keyring", "flag"])
                .unwrap()
                .as_deref(),
            Some("flag")
        );
        assert_eq!(keyring(&[], &[]).unwrap(), None);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_holds_no_secret_is_refused_with_its_path_and_without_its_content() {
        let folder = std::env::temp_dir().join(format!("secrets-{}", uuid::Uuid::now_v7()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("keyring");
        let path = path.to_str().unwrap();
        let largest = usize::try_from(LARGEST).unwrap();
        for (bytes, part) in [
            (Some(vec![]), "got nothing"),
            (Some(b"\n".to_vec()), "got nothing"),
            (Some([b"canary".as_slice(), &[0xff]].concat()), "not UTF-8"),
            (Some(b"canary".repeat(largest / 6 + 1)), "got more"),
            (None, "No such file"),
        ] {
            drop(fs::remove_file(path));
            if let Some(bytes) = bytes {
                fs::write(path, bytes).unwrap();
            }
            let text = keyring(&[(FILE, path)], &[]).unwrap_err();
            assert!(
                text.contains(part)
                    && text.contains(path)
                    && text.contains(FILE)
                    && text.contains("use a file"),
                "{text}"
            );
            assert!(!text.contains("canary"), "{text}");
        }
        let text = keyring(&[(FILE, folder.to_str().unwrap())], &[]).unwrap_err();
        assert!(text.contains("directory"), "{text}");
        fs::write(path, vec![b'a'; largest]).unwrap();
        assert!(keyring(&[(FILE, path)], &[]).is_ok());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_setting_and_its_file_are_not_both_taken_and_a_secret_for_a_path_is_not_shown() {
        let both = keyring(
            &[
                ("DISPATCH_TEST_NO_SUCH", "canary"),
                (FILE, "/run/secrets/x"),
            ],
            &[],
        )
        .unwrap_err();
        let expected =
            "expected one of DISPATCH_TEST_NO_SUCH and DISPATCH_TEST_NO_SUCH_FILE, got both";
        assert!(
            both.contains(expected) && !both.contains("canary"),
            "{both}"
        );
        for wrong in ["", "k1:canary", "postgres://u:canary@db/x"] {
            let text = keyring(&[(FILE, wrong)], &[]).unwrap_err();
            assert!(
                text.contains("expected an absolute path") && !text.contains("canary"),
                "{text}"
            );
        }
    }
}
