//! Secrets come from a file or from stdin, never from the command line, and are never printed.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use secrecy::SecretString;

use super::failure::Usage;
use super::publish::contents;

/// The longest secret, in bytes.
const LONGEST: usize = 8 << 10;

/// The source of a secret.
#[derive(Debug, Args)]
pub(super) struct SecretSource {
    /// File that contains only the secret; `-` is stdin
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

impl SecretSource {
    /// Reads the secret from the file, if one is given.
    pub(super) fn optional(&self) -> anyhow::Result<Option<SecretString>> {
        self.secret_file.as_deref().map(read).transpose()
    }

    /// Reads the secret from the file, or from stdin if none is given.
    pub(super) fn required(&self) -> anyhow::Result<SecretString> {
        read(
            self.secret_file
                .as_deref()
                .unwrap_or_else(|| Path::new("-")),
        )
    }
}

/// Reads the file's only line.
fn read(file: &Path) -> anyhow::Result<SecretString> {
    if file == Path::new("-") && io::stdin().is_terminal() {
        let right = "expected a secret from a file, got a terminal, which would show it; use `… < FILE` or --secret-file FILE";
        return Err(Usage(right.to_owned()).into());
    }
    let (name, bytes) = contents(file)?;
    secret(bytes)
        .map_err(|why| Usage(why.to_owned()))
        .context(name)
}

fn secret(bytes: Vec<u8>) -> Result<SecretString, &'static str> {
    const RIGHT: &str = "expected one line of 1 to 8192 bytes of UTF-8 text; use a file that contains only the secret";
    let text = String::from_utf8(bytes).map_err(|_| RIGHT)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.trim().is_empty() || line.len() > LONGEST || line.contains(['\n', '\r', '\0']) {
        return Err(RIGHT);
    }
    Ok(SecretString::from(line))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_secret_is_one_line_without_its_end() {
        for text in ["abc", "abc\n", "abc\r\n"] {
            assert_eq!(secret(text.into()).unwrap().expose_secret(), "abc");
        }
        for wrong in ["", "\n", "  ", "a\nb", "a\0b"] {
            assert!(secret(wrong.into()).is_err(), "{wrong:?}");
        }
        assert!(secret(vec![0xff]).is_err() && secret(vec![b'a'; LONGEST + 1]).is_err());
    }
}
