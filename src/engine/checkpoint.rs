//! The stored outputs of finished stages.

use serde_json::value::RawValue;

/// The stored output of one finished stage.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The durable name of the stage.
    pub stage: String,
    /// The version of the stage that wrote the output.
    pub version: i32,
    /// The output as JSON.
    pub output: Box<RawValue>,
}

/// The checkpoints of one job in its present generation.
#[derive(Debug, Clone, Default)]
pub struct Outputs(Vec<Checkpoint>);

impl Outputs {
    /// Creates it from the checkpoints that a claim loaded.
    #[must_use]
    pub const fn new(checkpoints: Vec<Checkpoint>) -> Self {
        Self(checkpoints)
    }

    #[must_use]
    pub fn get(&self, stage: &str) -> Option<&Checkpoint> {
        self.0.iter().find(|checkpoint| checkpoint.stage == stage)
    }

    /// Adds a checkpoint that a commit has just stored.
    pub fn push(&mut self, checkpoint: Checkpoint) {
        self.0.push(checkpoint);
    }

    /// Iterates over the checkpoints, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Checkpoint> {
        self.0.iter()
    }
}
