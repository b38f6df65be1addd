//! Every migration is applied to a database that has rows of the versions before it. The rows
//! survive, or change as the migration promises.
//!
//! The rows that a version adds are in `tests/it/sample_data/`, and the expectations in
//! `expected.rs`. A new migration needs both.

mod expected;

use std::collections::BTreeMap;

use dispatch_worker::store;
use refinery::Target;

use crate::support::TestDatabase;
use expected::{Change, Expectation, MIGRATIONS, Migration};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Selects the tables without partitions, each with an expression that is a row as text. The
/// expression names the columns of this version, so that it has the same value after a migration
/// that only adds columns.
const TABLES: &str = "
    SELECT c.oid::regclass, format('json_build_array(%s)::text', string_agg(quote_ident(a.attname) || '::text', ', ' ORDER BY a.attnum))
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
        AND c.relname <> 'refinery_schema_history'
    GROUP BY c.oid ORDER BY 1";

/// Selects a line for every part of the schema except the monthly partitions, whose number depends
/// on the rows.
const SCHEMA: &str = "
    WITH tables AS (
        SELECT oid, oid::regclass::text AS name, relkind, relpersistence, relacl, reloptions, relpartbound FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'S', 'v') AND relname !~ '_[0-9]{6}$'
    )
    SELECT 'table ' || concat_ws(' ', name, relkind, relpersistence, relacl, reloptions, pg_get_expr(relpartbound, oid)) FROM tables
    UNION ALL
    SELECT 'column ' || concat_ws(' ', t.name, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
        a.attacl, pg_get_expr(d.adbin, d.adrelid))
    FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    UNION ALL
    SELECT 'constraint ' || concat_ws(' ', t.name, c.conname, pg_get_constraintdef(c.oid))
    FROM tables t JOIN pg_constraint c ON c.conrelid = t.oid
    UNION ALL
    SELECT 'index ' || pg_get_indexdef(i.indexrelid) FROM tables t JOIN pg_index i ON i.indrelid = t.oid
    UNION ALL
    SELECT 'trigger ' || pg_get_triggerdef(g.oid) FROM tables t JOIN pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal
    UNION ALL
    SELECT 'function ' || pg_get_functiondef(oid) || coalesce(proacl::text, '') FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace
    ORDER BY 1";

/// A table's rows as text, in the columns of an earlier version.
struct Rows {
    expression: String,
    rows: Vec<Vec<String>>,
}

async fn rows_of(database: &TestDatabase, table: &str, expression: &str) -> Vec<Vec<String>> {
    let select = format!("SELECT {expression} FROM {table} ORDER BY 1");
    database.rows(&select).await
}

/// Returns the rows of every table, by the table's name.
async fn all_rows(database: &TestDatabase) -> BTreeMap<String, Rows> {
    let mut tables = BTreeMap::new();
    for table in database.rows(TABLES).await {
        let [name, expression] = <[String; 2]>::try_from(table).expect("two columns");
        let rows = rows_of(database, &name, &expression).await;
        tables.insert(name, Rows { expression, rows });
    }
    tables
}

/// Returns the rows of a table without the columns that a migration may change.
async fn unchanged_part(database: &TestDatabase, change: &Change) -> Rows {
    let Change { table, columns } = change;
    let but = columns.join("', '");
    let select = format!(
        "SELECT format('json_build_array(%s)::text', string_agg(quote_ident(attname) || '::text', ', ' ORDER BY attnum))
         FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped AND attname NOT IN ('{but}')"
    );
    let expression = database.rows(&select).await.concat().concat();
    let rows = rows_of(database, table, &expression).await;
    Rows { expression, rows }
}

/// Applies the migrations up to this version; returns the versions that were applied now.
async fn apply(database: &TestDatabase, version: i32) -> Vec<i32> {
    let mut client = database.pool.get().await.expect("a connection");
    let report = embedded::migrations::runner()
        .set_target(Target::Version(version))
        .run_async(&mut **client)
        .await
        .unwrap_or_else(|error| panic!("V{version} cannot be applied to rows: {error:?}"));
    let applied = report.applied_migrations().iter();
    applied.map(|migration| migration.version()).collect()
}

async fn migrate_and_check(database: &TestDatabase, migration: &Migration) {
    let version = migration.version;
    let before = all_rows(database).await;
    let mut kept = Vec::new();
    for change in migration.changes {
        kept.push(unchanged_part(database, change).await);
    }
    assert_eq!(apply(database, version).await, [version]);
    for (table, old) in &before {
        let changes = migration.changes.iter().any(|one| one.table == table);
        let rows = rows_of(database, table, &old.expression).await;
        assert_eq!(
            rows != old.rows,
            changes,
            "V{version}: {table} before: {:?}, after: {rows:?}",
            old.rows
        );
    }
    for (Change { table, .. }, old) in migration.changes.iter().zip(&kept) {
        let rows = rows_of(database, table, &old.expression).await;
        let added: Vec<_> = rows.iter().filter(|row| !old.rows.contains(row)).collect();
        assert!(
            added.is_empty(),
            "V{version}: {table} has rows that differ in other columns: {added:?}"
        );
    }
    for Expectation { sql, result } in migration.expected {
        let found = outcome(database, sql).await;
        assert_eq!(&found, result, "V{version}: {sql}");
    }
}

/// Runs statements in a transaction that is rolled back. Returns their rows, or the name of the
/// violated constraint, or the message of another error.
async fn outcome(database: &TestDatabase, sql: &str) -> String {
    let mut client = database.pool.get().await.expect("a connection");
    let tx = client.transaction().await.expect("a transaction");
    match tx.simple_query(sql).await {
        Ok(messages) => {
            let rows = messages.iter().filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            });
            let text = |row: &tokio_postgres::SimpleQueryRow| {
                let column = |column| row.get(column).unwrap_or("-");
                (0..row.len()).map(column).collect::<Vec<_>>().join(" ")
            };
            rows.map(text).collect::<Vec<_>>().join(", ")
        }
        Err(error) => {
            let refused = error
                .as_db_error()
                .unwrap_or_else(|| panic!("{sql}: {error:?}"));
            let reason = refused.constraint().unwrap_or(refused.message());
            format!("refused: {reason}")
        }
    }
}

/// Inserts the rows that the version of this migration adds, as a worker of this version does.
async fn insert_sample(database: &TestDatabase, migration: &Migration) {
    let before = all_rows(database).await;
    database.rows(migration.sample).await;
    let after = all_rows(database).await;
    assert!(
        after
            .iter()
            .any(|(table, now)| now.rows != before[table].rows),
        "V{}: tests/it/sample_data has no rows",
        migration.version
    );
}

#[test]
fn every_migration_has_sample_rows_and_expectations() {
    let mut versions: Vec<i32> = embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(|migration| migration.version())
        .collect();
    versions.sort_unstable();
    let tested: Vec<i32> = MIGRATIONS
        .iter()
        .filter(|migration| !migration.expected.is_empty())
        .map(|migration| migration.version)
        .collect();
    assert_eq!(tested, versions, "tests/it/store/migrations/expected.rs");
}

#[tokio::test]
async fn every_migration_keeps_or_converts_the_rows_of_the_versions_before_it() {
    let database = TestDatabase::empty().await;
    for migration in MIGRATIONS {
        migrate_and_check(&database, migration).await;
        insert_sample(&database, migration).await;
    }
    let migrated = store::migrate(&database.url).await;
    assert_eq!(
        migrated.expect("the rights are granted"),
        Vec::<String>::new()
    );
    let from_empty = TestDatabase::new().await;
    assert_eq!(
        database.rows(SCHEMA).await,
        from_empty.rows(SCHEMA).await,
        "a database with rows has the schema of one that was empty"
    );
}
