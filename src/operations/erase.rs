//! Erases a person or an organization from every table.

use serde_json::{Value, json};

use super::OperationError;
use crate::erasure::{Erasure, Rows, Subject};
use crate::secrets::Keyring;
use crate::store::{Action, Actor, Store};

/// An erasure that was previewed.
pub struct Erasing<'a> {
    erasure: Erasure<'a>,
    actions: (Action, Action),
}

/// The rows that are, or would be, deleted or rewritten.
#[derive(Debug)]
pub struct Erased {
    /// `erased-` and 8 hexadecimal digits.
    pub pseudonym: String,
    /// The number of rows by table.
    pub rows: Rows,
}

impl<'a> Erasing<'a> {
    /// Finds the subject; changes nothing.
    ///
    /// # Errors
    /// [`OperationError::Erasure`], also if there is no such subject, or more than one.
    pub async fn of(
        client: &'a mut tokio_postgres::Client,
        keyring: &'a Keyring,
        subject: &Subject,
    ) -> Result<Self, OperationError> {
        let actions = match subject {
            Subject::Person(_) => (Action::ErasePerson, Action::ErasedPerson),
            Subject::Organization(_) => (Action::EraseOrganization, Action::ErasedOrganization),
        };
        let erasure = Erasure::of(client, keyring, subject).await?;
        Ok(Self { erasure, actions })
    }

    /// Returns the names that are not searched for in texts.
    #[must_use]
    pub fn left_out(&self) -> &[String] {
        self.erasure.left_out()
    }

    /// Counts the rows; changes nothing.
    ///
    /// # Errors
    /// [`OperationError::Erasure`].
    pub async fn preview(&mut self) -> Result<Erased, OperationError> {
        self.run(true).await
    }

    /// Erases the subject. The first audit row is written before the audit log is searched, so
    /// that a reason that names the person is erased too. The last one names no actor, who may be
    /// the erased person.
    ///
    /// # Errors
    /// [`OperationError::Erasure`], [`OperationError::Store`]. Changes made before an error stay;
    /// a repetition continues.
    pub async fn erase(&mut self, store: &Store, actor: &Actor) -> Result<Erased, OperationError> {
        let (first, last) = self.actions;
        let named = json!({"pseudonym": self.erasure.pseudonym()});
        store.audit(actor, first, &Value::Null, &named).await?;
        let erased = self.run(false).await?;
        let anonymous = Actor {
            who: "erase".to_owned(),
            role: actor.role,
            reason: None,
            request: None,
        };
        let after = json!({"pseudonym": erased.pseudonym, "rows": erased.rows});
        store.audit(&anonymous, last, &Value::Null, &after).await?;
        Ok(erased)
    }

    async fn run(&mut self, is_dry: bool) -> Result<Erased, OperationError> {
        let rows = self.erasure.run(is_dry).await?;
        let pseudonym = self.erasure.pseudonym().to_owned();
        Ok(Erased { pseudonym, rows })
    }
}
