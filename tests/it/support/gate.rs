//! A gate that commits stand at: they are undecided for as long as a test wants. And commits that come through late.
//! Workers may not look at a table of a test's: the functions that do have their owner's rights.

use std::time::Duration;

use super::database::TestDatabase;
use super::wait::wait_for;

/// The trigger comes with the COMMIT. It looks again and again rather than wait for a lock, since for locks there is a time limit.
const SHUT: &str = "
    CREATE TABLE gate (is_open boolean);
    CREATE FUNCTION stand_at_the_gate() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
        WHILE NOT EXISTS (SELECT FROM gate) LOOP PERFORM pg_sleep(0.01); END LOOP;
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER gate AFTER UPDATE ON jobs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
        WHEN ({which}) EXECUTE FUNCTION stand_at_the_gate()";
const ENDS_STAGE: &str = "OLD.stage = '{stage}' AND (NEW.stage <> '{stage}' OR NEW.state = 'waiting')";
const WAKES: &str = "OLD.woken_at IS NULL AND NEW.woken_at IS NOT NULL AND NEW.state = 'ready'";

/// The trigger comes with the COMMIT.
const SLOW: &str = "
    CREATE FUNCTION take_a_while() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
        EXECUTE FUNCTION take_a_while()";

const AT_IT: &str = "SELECT pid, client_port FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";

/// Who stands at the gate.
pub(crate) struct Standing {
    /// Its process.
    pub(crate) backend: String,
    /// The port it is reached from.
    pub(crate) port: u16,
}

/// Commits that end this stage stand from now on, until [`open`].
pub(crate) async fn shut(database: &TestDatabase, stage: &str) {
    database.rows(&SHUT.replace("{which}", &ENDS_STAGE.replace("{stage}", stage))).await;
}

/// What stamps a row as woken stands from now on, until [`open`].
pub(crate) async fn shut_for_waking(database: &TestDatabase) {
    database.rows(&SHUT.replace("{which}", WAKES)).await;
}

/// For good.
pub(crate) async fn open(database: &TestDatabase) {
    database.rows("INSERT INTO gate VALUES (true)").await;
}

/// A commit takes so much longer from now on for each row that it adds to one table, as on a disk that is slow to flush.
pub(crate) async fn slow(database: &TestDatabase, table: &str, by: Duration) {
    database.rows(&SLOW.replace("{table}", table).replace("{seconds}", &by.as_secs_f64().to_string())).await;
}

/// Waits for the only backend at the gate, another than `before`.
pub(crate) async fn at_it(database: &TestDatabase, before: Option<&Standing>) -> Standing {
    wait_for("a commit at the gate", Duration::from_secs(30), async || match database.rows(AT_IT).await.as_slice() {
        [one] if before.is_none_or(|before| before.backend != one[0]) => {
            Ok(Standing { backend: one[0].clone(), port: one[1].parse().expect("the port of a TCP connection") })
        }
        others => Err(format!("{others:?}")),
    })
    .await
}
