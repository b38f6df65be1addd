//! The role that a worker logs in with: a member of `dispatch_worker` and of nothing else.
//! Postgres gets a verifier of its password (SCRAM-SHA-256, RFC 5802), so that the password itself
//! is in no statement and in no log.

use std::time::Duration;

use postgres_protocol::password::scram_sha_256;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::audit::{Action, Actor, audit_on};
use super::error::StoreError;
use super::probe::too_much;
use super::rights::{READER, WORKER};
use super::roles::{is_elsewhere, is_known};

/// Maximum number of tries while another database of the cluster is migrated.
const TRIES: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(100);
/// Maximum length of a role's name in bytes (NAMEDATALEN).
const LONGEST: usize = 63;
/// Minimum length of a password in characters.
const SHORTEST_PASSWORD: usize = 8;

/// A worker's login to create or change.
pub struct WorkerLogin {
    name: String,
    verifier: SecretString,
}

impl WorkerLogin {
    /// Parses `user:password`.
    ///
    /// # Errors
    /// [`StoreError::Login`], without the password.
    pub fn parse(setting: &SecretString) -> Result<Self, StoreError> {
        let (name, password) = setting
            .expose_secret()
            .split_once(':')
            .ok_or(StoreError::Login("got no colon"))?;
        if name.is_empty()
            || name.len() > LONGEST
            || name.chars().any(|c| c.is_control() || "\"'\\".contains(c))
        {
            return Err(StoreError::Login(
                "got a user that is empty, too long, or has quotes or control characters",
            ));
        }
        if name.starts_with("pg_") || [WORKER, READER].contains(&name) {
            return Err(StoreError::Login("got the name of a group"));
        }
        if password.chars().count() < SHORTEST_PASSWORD || password == name {
            return Err(StoreError::Login(
                "got a password that is too short, or the user's name",
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            verifier: scram_sha_256(password.as_bytes()).into(),
        })
    }

    /// Returns the role's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Creates the login or changes its password, and makes it a member of the workers' group.
    /// Writes an audit row if an actor is given.
    ///
    /// # Errors
    /// [`StoreError::Roles`] if the role exists with more privileges than a worker may have, or if
    /// this role may not create it; otherwise [`StoreError`].
    pub(super) async fn make(
        &self,
        client: &mut Client,
        actor: Option<&Actor>,
    ) -> Result<(), StoreError> {
        for _ in 1..TRIES {
            match self.make_once(client, actor).await {
                Err(StoreError::Database(error)) if is_elsewhere(&error) => {
                    tokio::time::sleep(BETWEEN).await
                }
                done => return done,
            }
        }
        self.make_once(client, actor).await
    }

    async fn make_once(
        &self,
        client: &mut Client,
        actor: Option<&Actor>,
    ) -> Result<(), StoreError> {
        let (name, verifier) = (&self.name, self.verifier.expose_secret());
        let tx = client.transaction().await?;
        let known = is_known(&tx, name).await?;
        let excess = too_much(&tx, name).await?;
        if !excess.is_empty() {
            return Err(StoreError::Roles(format!(
                "expected a role for workers alone, got {name}, which {}; use another name",
                excess.join("; ")
            )));
        }
        let verb = if known { "ALTER" } else { "CREATE" };
        // The name contains no quotes, and a verifier is ASCII without quotes.
        let make = format!(
            r#"{verb} ROLE "{name}" LOGIN PASSWORD '{verifier}'; GRANT {WORKER} TO "{name}""#
        );
        tx.batch_execute(&make)
            .await
            .map_err(|error| self.explained(error))?;
        if let Some(actor) = actor {
            let before = if known {
                json!({"login": name})
            } else {
                Value::Null
            };
            audit_on(
                &tx,
                actor,
                Action::MakeWorkerLogin,
                &before,
                &json!({"login": name, "member_of": WORKER}),
            )
            .await?;
        }
        Ok(tx.commit().await?)
    }

    fn explained(&self, error: tokio_postgres::Error) -> StoreError {
        let name = &self.name;
        if error.code() != Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
            return error.into();
        }
        StoreError::Roles(format!(
            "expected the right to make the role {name}, got none; an administrator runs: CREATE ROLE \"{name}\" LOGIN IN ROLE \
             {WORKER}; \\password \"{name}\"; then repeat without DISPATCH_WORKER_LOGIN"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_a_user_and_a_password_and_its_password_is_not_printed() {
        for right in [
            "worker:canary-password",
            "w:canary:with:colons",
            "a b:canary-password",
        ] {
            let login = WorkerLogin::parse(&SecretString::from(right))
                .unwrap_or_else(|error| panic!("{right}: {error}"));
            assert_eq!(login.name(), right.split(':').next().unwrap());
            assert!(
                login
                    .verifier
                    .expose_secret()
                    .starts_with("SCRAM-SHA-256$4096:")
            );
            assert!(!login.verifier.expose_secret().contains(['\'', '\\']));
        }
        for wrong in [
            "canary-password",
            ":canary-password",
            "a\"b:canary-password",
            "w:canary",
            "canaries:canaries",
            "dispatch_worker:canary-x",
        ] {
            let error = WorkerLogin::parse(&SecretString::from(wrong))
                .err()
                .unwrap_or_else(|| panic!("{wrong} is taken"));
            let message = error.to_string();
            assert!(
                message.contains("use user:password") && !message.contains("canar"),
                "{message}"
            );
        }
    }
}
