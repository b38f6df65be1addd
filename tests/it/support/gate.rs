//! A gate that blocks commits, so that they stay undecided for as long as a test needs; and
//! delayed commits. Workers have no rights on the tables of a test, so the trigger functions run
//! with their owner's rights.

use std::time::Duration;

use super::database::TestDatabase;
use super::wait::wait_for;

/// The trigger runs at COMMIT. It polls instead of waiting for a lock, since `lock_timeout` limits
/// waits for locks.
const SHUT: &str = "
    CREATE TABLE gate (is_open boolean);
    CREATE FUNCTION stand_at_the_gate() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
        WHILE NOT EXISTS (SELECT FROM gate) LOOP PERFORM pg_sleep(0.01); END LOOP;
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER gate AFTER UPDATE ON jobs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
        WHEN ({which}) EXECUTE FUNCTION stand_at_the_gate()";
const ENDS_STAGE: &str =
    "OLD.stage = '{stage}' AND (NEW.stage <> '{stage}' OR NEW.state = 'waiting')";
const WAKES: &str = "OLD.woken_at IS NULL AND NEW.woken_at IS NOT NULL AND NEW.state = 'ready'";

/// The trigger runs at COMMIT.
const SLOW: &str = "
    CREATE FUNCTION take_a_while() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
        EXECUTE FUNCTION take_a_while()";

const AT_IT: &str = "SELECT pid, client_port FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";

/// A backend that is blocked at the gate.
pub(crate) struct Blocked {
    /// The process id.
    pub(crate) backend: String,
    /// The port of the client.
    pub(crate) port: u16,
}

/// Blocks commits that end this stage, until [`open`].
pub(crate) async fn shut(database: &TestDatabase, stage: &str) {
    database
        .rows(&SHUT.replace("{which}", &ENDS_STAGE.replace("{stage}", stage)))
        .await;
}

/// Blocks commits that stamp a row as woken, until [`open`].
pub(crate) async fn shut_for_waking(database: &TestDatabase) {
    database.rows(&SHUT.replace("{which}", WAKES)).await;
}

/// Opens the gate permanently.
pub(crate) async fn open(database: &TestDatabase) {
    database.rows("INSERT INTO gate VALUES (true)").await;
}

/// Delays each commit by `by` for each row that it inserts into the table, as a disk with slow
/// flushes does.
pub(crate) async fn slow(database: &TestDatabase, table: &str, by: Duration) {
    database
        .rows(
            &SLOW
                .replace("{table}", table)
                .replace("{seconds}", &by.as_secs_f64().to_string()),
        )
        .await;
}

/// Waits until exactly one backend is at the gate, and it is not `before`.
pub(crate) async fn at_it(database: &TestDatabase, before: Option<&Blocked>) -> Blocked {
    wait_for(
        "a commit at the gate",
        Duration::from_secs(30),
        async || match database.rows(AT_IT).await.as_slice() {
            [one] if before.is_none_or(|before| before.backend != one[0]) => Ok(Blocked {
                backend: one[0].clone(),
                port: one[1].parse().expect("the port of a TCP connection"),
            }),
            others => Err(format!("{others:?}")),
        },
    )
    .await
}
