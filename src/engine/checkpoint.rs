//! The stored outputs of finished stages.

use serde_json::value::RawValue;

/// One finished stage's output, as stored.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The stage's durable name.
    pub stage: String,
    /// The version of the stage that wrote it.
    pub version: i32,
    /// Its output, JSON.
    pub output: Box<RawValue>,
}

/// The checkpoints of one job in its present generation.
#[derive(Debug, Clone, Default)]
pub struct Outputs(Vec<Checkpoint>);

impl Outputs {
    /// Those that a claim loaded.
    #[must_use]
    pub const fn new(checkpoints: Vec<Checkpoint>) -> Self {
        Self(checkpoints)
    }

    /// The checkpoint of `stage`.
    #[must_use]
    pub fn get(&self, stage: &str) -> Option<&Checkpoint> {
        self.0.iter().find(|checkpoint| checkpoint.stage == stage)
    }

    /// Adds what a commit has just stored.
    pub fn push(&mut self, checkpoint: Checkpoint) {
        self.0.push(checkpoint);
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Checkpoint> {
        self.0.iter()
    }
}
