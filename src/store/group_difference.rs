//! What the jobs of a failure group have in common that other jobs do not have: the newest jobs of
//! the group against jobs that passed its stage recently.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;
use tokio_postgres::Row;

use super::error::StoreError;
use super::handle::Store;
use super::sql::{query, query_opt};
use crate::job::words;

/// Maximum number of jobs on each side.
const JOBS: i64 = 1_000;
/// Maximum number of checkpoints that are searched for jobs which passed the stage.
const CHECKPOINTS: i64 = 20_000;

words! {
    /// A property by which jobs are compared.
    Dimension {
        Organization = "organization",
        /// The account that `configure` chose.
        Account = "account",
        Source = "source",
        /// The target of the stage's effect.
        Destination = "destination",
        /// The replica that ran the stage.
        Replica = "replica",
        /// The version of that replica.
        Version = "version",
    }
}

/// The comparison of a group with other jobs.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct GroupDifference {
    /// Number of jobs of the group that were compared.
    pub jobs_in_group: usize,
    /// Number of other jobs that were compared.
    pub other_jobs: usize,
    /// For each dimension the value with the largest difference, the largest one first. Without
    /// other jobs, the values that are most frequent in the group.
    pub differences: Vec<Difference>,
}

/// How much more frequent a value is in the group than elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Difference {
    pub dimension: Dimension,
    pub value: String,
    /// The share of the group's jobs with this value, 0 to 1.
    pub in_group: f64,
    /// The share of the other jobs.
    pub in_others: f64,
}

const STAGE: &str = "SELECT pipeline, stage FROM failure_groups WHERE fingerprint = $1";

/// The properties of jobs from `compared (id, replica)`; `$1` is the stage.
macro_rules! properties {
    ($compared:expr, $and:literal) => {
        concat!(
            "SELECT j.organization, j.account, j.source, effect.target AS destination, compared.replica::text AS replica,
                (SELECT version FROM replicas WHERE replicas.id = compared.replica) AS version
            FROM (",
            $compared,
            ") compared
                CROSS JOIN LATERAL (SELECT organization, account, source, pipeline, fingerprint FROM jobs
                    WHERE jobs.id = compared.id LIMIT 1) j
                LEFT JOIN LATERAL (SELECT target FROM effects WHERE job_id = compared.id AND stage = $1
                    ORDER BY intent_at DESC LIMIT 1) effect ON true
            WHERE ",
            $and
        )
    };
}

pub(super) const IN_GROUP: &str = properties!(
    "SELECT id, (SELECT replica FROM attempts WHERE job_id = newest.id AND stage = $1 ORDER BY at DESC LIMIT 1) AS replica
    FROM (
        (SELECT id FROM jobs WHERE state = 'parked' AND (fingerprint, id) <= ($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
            AND (fingerprint, id) >= ($2, '00000000-0000-0000-0000-000000000000')
        ORDER BY fingerprint DESC, id DESC LIMIT $3)
        UNION ALL
        (SELECT id FROM jobs WHERE fingerprint IS NOT NULL AND state IN ('ready', 'running', 'waiting')
            AND (fingerprint, id) <= ($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
            AND (fingerprint, id) >= ($2, '00000000-0000-0000-0000-000000000000')
        ORDER BY fingerprint DESC, id DESC LIMIT $3)
        ORDER BY id DESC LIMIT $3) newest",
    "true"
);

/// The newest checkpoints are those of the newest jobs.
pub(super) const PASSED: &str = properties!(
    "SELECT job_id AS id, replica FROM (SELECT job_id, stage, replica FROM checkpoints ORDER BY job_id DESC LIMIT $4) newest
    WHERE stage = $1 LIMIT $3",
    "j.pipeline = $5 AND j.fingerprint IS DISTINCT FROM $2"
);

impl Store {
    /// Returns what is different in a failure group; `None` if there is no such group.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn group_difference(
        &self,
        fingerprint: &str,
    ) -> Result<Option<GroupDifference>, StoreError> {
        let client = self.client().await?;
        let Some(group) = query_opt(&client, STAGE, &[&fingerprint]).await? else {
            return Ok(None);
        };
        let (stage, pipeline): (&str, &str) = (group.try_get("stage")?, group.try_get("pipeline")?);
        let in_group = query(&client, IN_GROUP, &[&stage, &fingerprint, &JOBS]).await?;
        let passed = query(
            &client,
            PASSED,
            &[&stage, &fingerprint, &JOBS, &CHECKPOINTS, &pipeline],
        )
        .await?;
        Ok(Some(compared(
            &properties(&in_group)?,
            &properties(&passed)?,
        )))
    }
}

/// The properties of a job that are known.
type Properties = BTreeMap<&'static str, String>;

fn properties(rows: &[Row]) -> Result<Vec<Properties>, StoreError> {
    rows.iter()
        .map(|row| {
            let mut known = Properties::new();
            for dimension in Dimension::ALL {
                let word = dimension.word();
                if let Some(value) = row.try_get::<_, Option<String>>(word)? {
                    known.insert(word, value);
                }
            }
            Ok(known)
        })
        .collect()
}

fn compared(in_group: &[Properties], others: &[Properties]) -> GroupDifference {
    let mut differences: Vec<Difference> = Dimension::ALL
        .iter()
        .filter_map(|dimension| largest(*dimension, in_group, others))
        .collect();
    differences.sort_by(|a, b| b.difference().total_cmp(&a.difference()));
    GroupDifference {
        jobs_in_group: in_group.len(),
        other_jobs: others.len(),
        differences,
    }
}

/// Returns the value of a dimension that differs most; `None` if the group has no value.
fn largest(
    dimension: Dimension,
    in_group: &[Properties],
    others: &[Properties],
) -> Option<Difference> {
    let word = dimension.word();
    let values: BTreeSet<&String> = in_group.iter().filter_map(|job| job.get(word)).collect();
    let (here, elsewhere) = (frequencies(word, in_group), frequencies(word, others));
    values
        .into_iter()
        .map(|value| Difference {
            dimension,
            value: value.clone(),
            in_group: here.get(value).copied().unwrap_or_default(),
            in_others: elsewhere.get(value).copied().unwrap_or_default(),
        })
        .max_by(|a, b| a.difference().total_cmp(&b.difference()))
}

/// Returns the share of each value of a dimension.
fn frequencies<'a>(word: &str, jobs: &'a [Properties]) -> BTreeMap<&'a String, f64> {
    let mut counts: BTreeMap<&String, u32> = BTreeMap::new();
    for value in jobs.iter().filter_map(|job| job.get(word)) {
        *counts.entry(value).or_default() += 1;
    }
    let all = u32::try_from(jobs.len()).unwrap_or(u32::MAX);
    counts
        .into_iter()
        .map(|(value, count)| (value, f64::from(count) / f64::from(all)))
        .collect()
}

impl Difference {
    fn difference(&self) -> f64 {
        self.in_group - self.in_others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(number: usize, values: &[(&'static str, &str)]) -> Vec<Properties> {
        let job: Properties = values
            .iter()
            .map(|(word, value)| (*word, (*value).to_owned()))
            .collect();
        vec![job; number]
    }

    #[test]
    fn the_largest_difference_comes_first() {
        let mut here = jobs(98, &[("version", "2"), ("source", "shop")]);
        here.extend(jobs(2, &[("version", "1"), ("source", "shop")]));
        let mut there = jobs(5, &[("version", "2"), ("source", "shop")]);
        there.extend(jobs(5, &[("version", "1"), ("source", "shop")]));
        let difference = compared(&here, &there);
        let found: Vec<_> = difference
            .differences
            .iter()
            .map(|found| (found.dimension, found.value.as_str()))
            .collect();
        assert_eq!(
            found,
            [(Dimension::Version, "2"), (Dimension::Source, "shop")]
        );
        let version = &difference.differences[0];
        assert!((version.in_group - 0.98).abs() < 1e-9 && (version.in_others - 0.5).abs() < 1e-9);
    }

    #[test]
    fn without_other_jobs_the_most_frequent_value_is_the_difference() {
        let mut here = jobs(3, &[("source", "shop")]);
        here.extend(jobs(1, &[("source", "mail")]));
        let difference = compared(&here, &[]);
        assert_eq!(difference.differences[0].value, "shop");
        assert_eq!((difference.jobs_in_group, difference.other_jobs), (4, 0));
    }
}
