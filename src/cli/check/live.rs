//! Checks that connect to Postgres and RabbitMQ.

use time::{Duration, OffsetDateTime};

use super::Finding;
use crate::broker::{self, topology};
use crate::config::Links;
use crate::fault::chain;
use crate::operations::sealed_columns;
use crate::pipelines;
use crate::secrets::Keyring;
use crate::store::{self, Session, Store, StoreError};

/// With a larger difference from the database's clock, times in logs and expiry times of tokens
/// mislead.
const CLOCK_TOLERANCE: Duration = Duration::SECOND;
/// Number of the newest rows that are searched for a sealed value.
const LOOKED_THROUGH: i64 = 1000;

pub(super) async fn findings(links: &Links) -> Vec<Finding> {
    let mut findings = postgres(links).await;
    findings.extend(rabbitmq(links).await);
    findings
}

async fn postgres(links: &Links) -> Vec<Finding> {
    // `offline` has reported invalid settings.
    let Ok(url) = links.database_url() else {
        return vec![Finding::fail(
            "postgres",
            "not checked: DISPATCH_DATABASE_URL is not set",
        )];
    };
    let keyring = links
        .keyring()
        .ok()
        .and_then(|setting| Keyring::parse(setting).ok());
    let store = match store::pool(url, 1) {
        Ok(pool) => Store::new(pool),
        Err(error) => return vec![Finding::fail("postgres", chain(&error))],
    };
    let session = match store.session().await {
        Ok(session) => session,
        Err(error) => return vec![Finding::fail("postgres", chain(&error))],
    };
    let mut findings = vec![reachable(&session), tls(&session)];
    let schema = schema(&store).await;
    let is_current = schema.is_ok();
    findings.push(Finding::of("schema", schema));
    findings.push(clock(&store).await);
    findings.push(role(&session, store.excess_of(&session.user).await));
    if is_current {
        findings.push(rights(&session, store.missing_rights().await));
        findings.push(match &keyring {
            Some(keyring) => Finding::of("sealed_values", sealed(&store, keyring).await),
            None => Finding::fail("sealed_values", "not checked: there is no valid keyring"),
        });
    }
    findings
}

fn reachable(session: &Session) -> Finding {
    if session.standby {
        return Finding::fail("postgres", chain(&StoreError::ReadOnly));
    }
    Finding::ok(
        "postgres",
        format!("version {}, as {}", session.version, session.user),
    )
}

fn tls(session: &Session) -> Finding {
    match (&session.tls, session.local) {
        (Some(version), _) => Finding::ok("postgres_tls", version.clone()),
        (None, true) => Finding::ok("postgres_tls", "plaintext, on this machine"),
        (None, false) => Finding::warn(
            "postgres_tls",
            "plaintext to another machine; use a URL without sslmode=disable",
        ),
    }
}

async fn schema(store: &Store) -> Result<String, String> {
    match store.schema_version().await {
        Ok((found, needed)) if found >= needed => Ok(format!("V{found}")),
        Ok((found, needed)) => Err(format!(
            "expected V{needed}, got V{found}; run `dispatch migrate`"
        )),
        Err(error) if error.is_infrastructure() => Err(chain(&error)),
        Err(error) => Err(format!("{}; run `dispatch migrate`", chain(&error))),
    }
}

/// An attacker who controls a worker has the rights of its role, so the role must have no others.
fn role(session: &Session, excess: Result<Vec<String>, StoreError>) -> Finding {
    let role = &session.user;
    match excess {
        Err(error) => Finding::fail("role", chain(&error)),
        Ok(excess) if excess.is_empty() => Finding::ok(
            "role",
            format!("{role} owns nothing and cannot assume a role that does"),
        ),
        Ok(excess) => Finding::fail(
            "role",
            format!(
                "expected a role for workers alone, got {role}, which {}; use a login of `dispatch migrate --worker-login`, and \
                 the owner for `dispatch migrate`, for registering and for importing",
                excess.join("; ")
            ),
        ),
    }
}

fn rights(session: &Session, missing: Result<Vec<String>, StoreError>) -> Finding {
    match missing {
        Err(error) => Finding::fail("rights", chain(&error)),
        Ok(missing) if !missing.is_empty() => {
            let role = &session.user;
            let fix = format!(
                "make it a member of {} and run `dispatch migrate`",
                store::WORKER
            );
            Finding::fail(
                "rights",
                format!("{role} lacks {}; {fix}", missing.join("; ")),
            )
        }
        Ok(_) => Finding::ok("rights", "every right that a worker needs"),
    }
}

async fn clock(store: &Store) -> Finding {
    let before = OffsetDateTime::now_utc();
    let there = match store.clock().await {
        Ok(there) => there,
        Err(error) => return Finding::fail("clock", chain(&error)),
    };
    compare(before, there, OffsetDateTime::now_utc())
}

/// Compares the database's clock with this machine's. The database answered between `before` and
/// `after`.
fn compare(before: OffsetDateTime, there: OffsetDateTime, after: OffsetDateTime) -> Finding {
    let took = after - before;
    let middle: OffsetDateTime = before + took / 2;
    let ahead: Duration = there - middle;
    let detail = format!(
        "the database's clock is {} ms ahead of this machine's",
        ahead.whole_milliseconds()
    );
    if ahead.abs() - took / 2 >= CLOCK_TOLERANCE {
        Finding::fail(
            "clock",
            format!("{detail}, expected less than 1 s; run NTP on both machines"),
        )
    } else if took > CLOCK_TOLERANCE {
        Finding::warn(
            "clock",
            format!(
                "not certain: the database took {} ms to reply",
                took.whole_milliseconds()
            ),
        )
    } else {
        Finding::ok("clock", detail)
    }
}

/// Unseals the newest value of each column.
async fn sealed(store: &Store, keyring: &Keyring) -> Result<String, String> {
    let (mut opened, mut wrong) = (0, Vec::new());
    for column in sealed_columns() {
        let Some(newest) = store
            .newest_sealed(column, LOOKED_THROUGH)
            .await
            .map_err(|error| chain(&error))?
        else {
            continue;
        };
        let unopened = store
            .try_open(keyring, column, &[newest])
            .await
            .map_err(|error| chain(&error))?;
        opened += usize::from(unopened.is_empty());
        wrong.extend(unopened.iter().map(|(row, why)| {
            format!(
                "{}.{} of row {row}: {}",
                column.table,
                column.column,
                chain(why)
            )
        }));
    }
    if wrong.is_empty() {
        Ok(format!("unsealed the newest value of {opened} columns"))
    } else {
        Err(wrong.join("; "))
    }
}

async fn rabbitmq(links: &Links) -> Vec<Finding> {
    let Ok(url) = links.amqp_url() else {
        return vec![Finding::fail(
            "rabbitmq",
            "not checked: DISPATCH_AMQP_URL is not set",
        )];
    };
    let lanes: Vec<_> = pipelines::registry()
        .iter()
        .map(|pipeline| pipeline.lane)
        .collect();
    let missing = match topology::missing(&url, &lanes).await {
        Ok(missing) => missing,
        Err(error) => return vec![Finding::fail("rabbitmq", chain(&error))],
    };
    let tls = if broker::is_plain_elsewhere(&url) {
        Finding::warn("rabbitmq_tls", "plaintext to another machine; use amqps://")
    } else {
        Finding::ok("rabbitmq_tls", "TLS, or on this machine")
    };
    let topology = if missing.is_empty() {
        Finding::ok(
            "topology",
            "every exchange and queue exists; `dispatch topology check` compares their arguments; bindings cannot be checked",
        )
    } else {
        Finding::fail(
            "topology",
            format!("{}; run `dispatch topology declare`", missing.join("; ")),
        )
    };
    let rights = match broker::missing_rights(&url, &lanes).await {
        Err(error) => Finding::fail("rabbitmq_rights", chain(&error)),
        Ok(missing) if !missing.is_empty() => Finding::fail(
            "rabbitmq_rights",
            format!(
                "the user lacks {}; use `rabbitmqctl set_permissions` to grant them",
                missing.join("; ")
            ),
        ),
        Ok(_) => Finding::ok(
            "rabbitmq_rights",
            "the user can read every queue and write to every exchange that a worker uses",
        ),
    };
    vec![Finding::ok("rabbitmq", "connected"), tls, topology, rights]
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::super::State;
    use super::*;

    #[test]
    fn a_clock_a_second_away_is_wrong_and_a_slow_answer_proves_nothing() {
        let noon = datetime!(2026-01-02 12:00 UTC);
        let at = |ms: i64| noon + Duration::milliseconds(ms);
        let state = |there, after| compare(noon, at(there), at(after)).state;
        assert_eq!(
            [state(10, 20), state(-980, 20), state(950, 20)],
            [State::Ok; 3]
        );
        assert_eq!([state(1100, 20), state(-5000, 20)], [State::Fail; 2]);
        assert_eq!([state(1500, 3000), state(2500, 3000)], [State::Warn; 2]);
        assert_eq!(state(9000, 3000), State::Fail);
    }

    #[test]
    fn a_plain_link_is_right_on_this_machine_alone() {
        let session = Session {
            user: "worker".to_owned(),
            tls: None,
            local: false,
            standby: false,
            version: "17".to_owned(),
        };
        assert_eq!(tls(&session).state, State::Warn);
        assert_eq!(
            tls(&Session {
                local: true,
                ..session.clone()
            })
            .state,
            State::Ok
        );
        assert_eq!(
            tls(&Session {
                tls: Some("TLSv1.3".to_owned()),
                ..session.clone()
            })
            .state,
            State::Ok
        );
        assert_eq!(
            reachable(&Session {
                standby: true,
                ..session.clone()
            })
            .state,
            State::Fail
        );
        assert_eq!(
            rights(&session, Ok(vec!["jobs: UPDATE".to_owned()])).state,
            State::Fail
        );
        let owner = role(&session, Ok(vec!["owns the database".to_owned()]));
        assert!(
            owner.state == State::Fail && owner.detail.contains("--worker-login"),
            "{owner:?}"
        );
    }
}
