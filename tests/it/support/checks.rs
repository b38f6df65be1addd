//! The checkers of the project's guarantees. They read the tables and the witness log once no work
//! is left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dispatch_worker::devkit::simulator::witness::{Entry, Provider};
use dispatch_worker::pipelines::registry;
use dispatch_worker::providers::simulated::simulated;
use serde::Deserialize;

use super::canaries;
use super::wait::wait_for;
use super::world::TestWorld;
use crate::providers::contracts;

/// The time limit until no work is left.
const REST_WITHIN: Duration = Duration::from_secs(20);
/// Discord's nonce is a prefix of the key with this length.
const NONCE_CHARACTERS: usize = 25;

/// Allows every failed attempt; for a test that checks the attempts itself.
pub(crate) const ANY_ATTEMPT: &[(&str, &str)] = &[("*", "*")];

/// What a test allows in addition to the guarantees.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Checks {
    /// The attempts that may have failed, by stage and error code; or [`ANY_ATTEMPT`].
    pub(crate) attempts: &'static [(&'static str, &'static str)],
}

/// Everything that the checkers read.
struct Evidence {
    jobs: BTreeMap<String, JobFact>,
    checkpoints: Vec<CheckpointFact>,
    effects: Vec<EffectFact>,
    attempts: Vec<AttemptFact>,
    witness: Vec<Entry>,
}

#[derive(Deserialize)]
struct JobFact {
    id: String,
    pipeline: String,
    state: String,
    generation: i32,
    wait_reason: Option<String>,
    error_code: Option<String>,
    is_later: bool,
}

#[derive(Clone, Deserialize)]
struct CheckpointFact {
    job_id: String,
    generation: i32,
    stage: String,
    epoch: i64,
}

#[derive(Deserialize)]
struct AttemptFact {
    stage: String,
    error_code: String,
}

#[derive(Deserialize)]
struct EffectFact {
    job_id: String,
    generation: i32,
    stage: String,
    key: String,
    class: String,
    state: String,
    unknowns: usize,
    /// `work_item:ACCOUNT:ID` for a work item.
    subject: Option<String>,
    /// `work_item:ACCOUNT:ID@REV`, as in the last intent.
    tested: Option<String>,
    /// The kind of a message's destination.
    kind: Option<String>,
    /// The result in the checkpoint of a PATCH; `already` if the work item had the value already,
    /// regardless of who wrote it.
    result: Option<String>,
}

impl Checks {
    /// Waits until no work is left, then asserts every guarantee.
    pub(crate) async fn hold(self, world: &TestWorld) {
        world.wait_quiet(REST_WITHIN).await;
        let mut broken = self.breaches(&Evidence::at_rest(world).await);
        broken.extend(canaries::found(world).await);
        assert!(
            broken.is_empty(),
            "broken guarantees:\n{}",
            broken.join("\n")
        );
    }

    fn breaches(self, evidence: &Evidence) -> Vec<String> {
        let mut broken = Vec::new();
        checkpoints_are_in_order(evidence, &mut broken);
        jobs_are_at_rest(evidence, &mut broken);
        effects_happened_as_often_as_their_class_allows(evidence, &mut broken);
        every_effect_is_in_the_ledger(evidence, &mut broken);
        broken.extend(contracts::breaches(&evidence.witness));
        let looked_at = if self.attempts == ANY_ATTEMPT {
            &[][..]
        } else {
            &evidence.attempts
        };
        for AttemptFact { stage, error_code } in looked_at {
            if !self.attempts.contains(&(stage, error_code)) {
                broken.push(format!(
                    "an attempt of {stage} did not succeed: {error_code}"
                ));
            }
        }
        broken
    }
}

impl Evidence {
    /// Returns what the world shows once every job is at rest. No queue shows a job that still
    /// runs: its message is acknowledged when its row has an owner.
    async fn at_rest(world: &TestWorld) -> Self {
        wait_for("every job to be at rest", REST_WITHIN, async || {
            let evidence = Self::gather(world).await;
            let mut restless = Vec::new();
            jobs_are_at_rest(&evidence, &mut restless);
            if restless.is_empty() {
                Ok(evidence)
            } else {
                Err(restless.join("\n"))
            }
        })
        .await
    }

    async fn gather(world: &TestWorld) -> Self {
        let jobs: Vec<JobFact> = world.database.records(JOBS).await;
        Self {
            jobs: jobs.into_iter().map(|job| (job.id.clone(), job)).collect(),
            checkpoints: world.database.records(CHECKPOINTS).await,
            effects: world.database.records(EFFECTS).await,
            attempts: world.database.records(ATTEMPTS).await,
            witness: world.witness(),
        }
    }

    fn is_finished(&self, effect: &EffectFact) -> bool {
        let same = |one: &CheckpointFact| {
            (&one.job_id, one.generation, &one.stage)
                == (&effect.job_id, effect.generation, &effect.stage)
        };
        self.checkpoints.iter().any(same)
    }
}

const JOBS: &str = "
    SELECT id, pipeline, state, generation, wait_reason, error_code, due_at > now() AS is_later FROM jobs";
const CHECKPOINTS: &str = "
    SELECT job_id, generation, stage, epoch FROM checkpoints ORDER BY job_id, generation, finished_at, epoch";
/// Attempts that a hold prevented are not counted as tried.
const ATTEMPTS: &str =
    "SELECT stage, error_code FROM attempts WHERE error_code <> 'governor.held' ORDER BY at";
const EFFECTS: &str = "
    SELECT e.job_id, e.generation, e.stage, e.key, e.class, e.state, e.unknowns,
        'work_item:' || i.account_name || ':' || split_part(e.target, ':', 3) AS subject,
        'work_item:' || i.account_name || ':' || split_part(e.target, ':', 3) || '@' || (e.detail ->> 'rev_before') AS tested,
        e.detail ->> 'kind' AS kind, c.output ->> 'result' AS result
    FROM effects e LEFT JOIN integrations i ON e.target LIKE 'work_item:%' AND i.id::text = split_part(e.target, ':', 2)
    LEFT JOIN checkpoints c ON (c.job_id, c.generation, c.stage) = (e.job_id, e.generation, e.stage)";

/// Checks that each stage has at most one checkpoint per generation, in pipeline order without
/// gaps, under increasing epochs.
fn checkpoints_are_in_order(evidence: &Evidence, broken: &mut Vec<String>) {
    let mut runs: BTreeMap<(&str, i32), Vec<&CheckpointFact>> = BTreeMap::new();
    for checkpoint in &evidence.checkpoints {
        runs.entry((&checkpoint.job_id, checkpoint.generation))
            .or_default()
            .push(checkpoint);
    }
    let registry = registry();
    for ((job, generation), run) in runs {
        let Some(fact) = evidence.jobs.get(job) else {
            broken.push(format!("checkpoints of {job}, which has no row"));
            continue;
        };
        let Some(pipeline) = registry.get(&fact.pipeline) else {
            continue;
        };
        let in_line: Vec<&str> = pipeline
            .stages()
            .filter(|stage| !stage.off_path)
            .map(|stage| stage.name)
            .collect();
        let done: Vec<&str> = run.iter().map(|one| one.stage.as_str()).collect();
        let (line, aside): (Vec<&str>, Vec<&str>) =
            done.iter().partition(|stage| in_line.contains(*stage));
        if line.len() > in_line.len()
            || line[..] != in_line[..line.len()]
            || aside.len() > 1
            || (!aside.is_empty() && done.last() != aside.last())
        {
            broken.push(format!("{job} generation {generation}: stages {done:?} are not the beginning of {in_line:?}"));
        }
        if !run.is_sorted_by_key(|one| one.epoch) {
            broken.push(format!("{job} generation {generation}: an epoch decreased"));
        }
        if fact.state == "succeeded" && fact.generation == generation && line.len() != in_line.len()
        {
            broken.push(format!("{job} has succeeded with stages {done:?} alone"));
        }
    }
}

/// Checks that every job is final or has a readable reason.
fn jobs_are_at_rest(evidence: &Evidence, broken: &mut Vec<String>) {
    for (id, job) in &evidence.jobs {
        let at_rest = match job.state.as_str() {
            "succeeded" | "cancelled" => true,
            "waiting" => job.wait_reason.is_some(),
            "parked" => job.error_code.is_some(),
            "ready" => job.is_later,
            _ => false,
        };
        if !at_rest {
            broken.push(format!(
                "{id} ({}) is {} for no reason",
                job.pipeline, job.state
            ));
        }
    }
}

/// Checks the number of times each effect happened. Compare-and-set and keyed: exactly once if
/// confirmed, never more than once. At-least-once: once, and at most once more for each recorded
/// unknown outcome.
fn effects_happened_as_often_as_their_class_allows(evidence: &Evidence, broken: &mut Vec<String>) {
    let is_counted = |effect: &&EffectFact| !effect.kind.as_deref().is_some_and(is_keyless);
    for effect in evidence.effects.iter().filter(is_counted) {
        let times = evidence
            .witness
            .iter()
            .filter(|entry| entry.effect && is_of(entry, effect))
            .count();
        let most = if effect.class == "K3" {
            1 + effect.unknowns
        } else {
            1
        };
        let is_ours = effect.class != "K1" || effect.result.as_deref() == Some("written");
        let least = usize::from(effect.state == "confirmed" && is_ours);
        if times > most || times < least {
            let EffectFact {
                class,
                stage,
                key,
                state,
                unknowns,
                ..
            } = effect;
            broken.push(format!("{class} effect {key} of {stage} ({state}, {unknowns} unknown) happened {times} times"));
        }
        // A compare-and-set with a lost answer may have been superseded; then its outcome stays
        // unknown and does not matter.
        let is_open =
            effect.state == "in_flight" || (effect.state == "unknown" && effect.class != "K1");
        if is_open && evidence.is_finished(effect) {
            broken.push(format!(
                "{} has finished and its effect {} is still {}",
                effect.stage, effect.key, effect.state
            ));
        }
    }
}

/// Returns whether requests of this kind of channel carry no key of the effect. Tests of such a
/// channel count its requests themselves.
fn is_keyless(kind: &str) -> bool {
    simulated(kind).is_some_and(|(_, channel)| !channel.is_keyed)
}

/// Returns whether a request belongs to this effect. A PATCH that tests another revision than the
/// ledger's is matched by its subject alone, in [`every_effect_is_in_the_ledger`].
fn is_of(entry: &Entry, effect: &EffectFact) -> bool {
    let Some(key) = &entry.key else { return false };
    match entry.provider {
        Provider::AzureDevops => effect.tested.as_ref() == Some(key),
        Provider::Entra => false,
        Provider::Discord => effect.key.get(..NONCE_CHARACTERS) == Some(key),
        Provider::Webhook | Provider::Email | Provider::Chat(_) => effect.key == *key,
    }
}

/// Checks that every external effect has an intent, and that no work item was written twice at one
/// revision.
fn every_effect_is_in_the_ledger(evidence: &Evidence, broken: &mut Vec<String>) {
    let subjects: BTreeSet<&str> = evidence
        .effects
        .iter()
        .filter_map(|effect| effect.subject.as_deref())
        .collect();
    let mut patches: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in evidence.witness.iter().filter(|entry| entry.effect) {
        let known = match entry.provider {
            Provider::AzureDevops => entry
                .subject
                .as_deref()
                .is_some_and(|subject| subjects.contains(subject)),
            // A token refresh is not an effect of a job.
            Provider::Entra => true,
            // See [`is_keyless`].
            Provider::Chat(kind) if is_keyless(kind) => true,
            Provider::Chat(_) | Provider::Discord | Provider::Webhook | Provider::Email => {
                evidence.effects.iter().any(|effect| is_of(entry, effect))
            }
        };
        if !known {
            broken.push(format!(
                "{} {} had an effect without an intent",
                entry.method, entry.path
            ));
        }
        if let (Provider::AzureDevops, Some(key)) = (entry.provider, &entry.key) {
            *patches.entry(key).or_default() += 1;
        }
    }
    for (key, times) in patches.into_iter().filter(|(_, times)| *times > 1) {
        broken.push(format!("{key} was written {times} times"));
    }
}

/// Tests of the checkers: they report each planted breach, and nothing in a correct world.
mod planted {
    use dispatch_worker::providers::google_chat;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    const JOB: &str = "j";
    const KEY: &str = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst";

    /// Returns the evidence of a delivered message: both checkpoints, a confirmed effect, and its
    /// one request.
    fn honest(class: &str) -> Evidence {
        let checkpoint = |stage: &str, epoch: i64| CheckpointFact {
            job_id: JOB.to_owned(),
            generation: 1,
            stage: stage.to_owned(),
            epoch,
        };
        let job = json!({"id": JOB, "pipeline": "messaging", "state": "succeeded", "generation": 1, "is_later": false});
        let effect = json!({
            "job_id": JOB, "generation": 1, "stage": "deliver_message", "key": KEY, "class": class, "state": "confirmed",
            "unknowns": 0
        });
        Evidence {
            jobs: BTreeMap::from([(JOB.to_owned(), of(job))]),
            checkpoints: vec![
                checkpoint("render_message", 1),
                checkpoint("deliver_message", 2),
            ],
            effects: vec![of(effect)],
            attempts: Vec::new(),
            witness: vec![request(&json!(KEY))],
        }
    }

    fn request(key: &Value) -> Entry {
        let entry = json!({
            "seq": 1, "at": "2026-01-01T00:00:00Z", "provider": "webhook", "method": "POST", "path": "/webhook/keyed", "query": null,
            "content_type": "application/json", "key": key, "body_sha256": "",
            "body_shape": {"type": "string", "data": {"title": "string", "lines": [], "details": "null"}}, "status": 200, "effect": true, "subject": "webhook:keyed",
            "fault": null, "detail": null
        });
        of(entry)
    }

    fn of<T: DeserializeOwned>(fact: Value) -> T {
        serde_json::from_value(fact).expect("a fact of this shape")
    }

    fn breaches(evidence: &Evidence) -> Vec<String> {
        Checks::default().breaches(evidence)
    }

    #[test]
    fn a_correct_world_has_no_breaches() {
        for class in ["K2", "K3"] {
            assert_eq!(breaches(&honest(class)), Vec::<String>::new());
        }
        let mut unknown = honest("K3");
        unknown.effects[0].unknowns = 1;
        unknown.witness.push(request(&json!(KEY)));
        assert_eq!(
            breaches(&unknown),
            Vec::<String>::new(),
            "a recorded possible duplicate is allowed"
        );
    }

    #[test]
    fn every_planted_breach_is_reported() {
        type Plant = fn(&mut Evidence);
        let plants: [(&str, Plant); 11] = [
            ("a stage twice", |it| {
                it.checkpoints.insert(1, it.checkpoints[0].clone())
            }),
            ("a gap", |it| drop(it.checkpoints.remove(0))),
            ("the wrong order", |it| it.checkpoints.reverse()),
            ("an older epoch commits", |it| it.checkpoints[1].epoch = 0),
            ("a job is left running", |it| {
                it.jobs
                    .values_mut()
                    .for_each(|job| job.state = "running".to_owned())
            }),
            ("an effect twice", |it| {
                it.witness.push(request(&json!(KEY)))
            }),
            ("a confirmed effect that never happened", |it| {
                it.witness.clear()
            }),
            ("a finished stage whose effect is open", |it| {
                it.effects[0].state = "in_flight".to_owned()
            }),
            ("a request that is in no contract", |it| {
                it.witness[0].path.push_str("/elsewhere")
            }),
            ("an effect without an intent", |it| {
                it.witness.push(request(&json!("somebody else's")))
            }),
            ("a message of a keyed channel without a key", |it| {
                let provider = Provider::chat(&google_chat::KIND);
                it.witness.push(Entry {
                    provider,
                    ..request(&Value::Null)
                })
            }),
        ];
        for (what, plant) in plants {
            for class in ["K2", "K3"] {
                let mut evidence = honest(class);
                plant(&mut evidence);
                assert!(
                    !breaches(&evidence).is_empty(),
                    "{what} ({class}) is not reported"
                );
            }
        }
        let mut attempt = honest("K2");
        attempt.attempts.push(AttemptFact {
            stage: "deliver_message".to_owned(),
            error_code: "discord.server".to_owned(),
        });
        assert_eq!(breaches(&attempt).len(), 1);
    }
}
