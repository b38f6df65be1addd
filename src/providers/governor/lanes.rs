//! The lanes that calls come from. Each lane has its own permits for jobs, so each call counts in
//! the lane it comes from.

use std::ops::{Index, IndexMut};

/// A lane that calls come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallLane {
    /// The lane of requests, which calls providers' hosts.
    Dispatch,
    /// The lane of assignee syncs, which calls providers' hosts, too.
    AssigneeSync,
    /// The lane of messages, which calls registered destinations.
    Messaging,
}

impl CallLane {
    pub(super) const ALL: [Self; 3] = [Self::Dispatch, Self::AssigneeSync, Self::Messaging];
}

/// The number of jobs that each lane runs at a time.
#[derive(Debug, Clone, Copy)]
pub struct Lanes {
    /// In [`CallLane::Dispatch`].
    pub dispatch: usize,
    /// In [`CallLane::AssigneeSync`].
    pub assignee_sync: usize,
    /// In [`CallLane::Messaging`].
    pub messaging: usize,
}

impl Lanes {
    /// Returns lanes of the same size, for a command that makes a few calls itself.
    #[must_use]
    pub const fn all(size: usize) -> Self {
        Self {
            dispatch: size,
            assignee_sync: size,
            messaging: size,
        }
    }

    pub(super) const fn size(self, lane: CallLane) -> usize {
        match lane {
            CallLane::Dispatch => self.dispatch,
            CallLane::AssigneeSync => self.assignee_sync,
            CallLane::Messaging => self.messaging,
        }
    }
}

/// One value for each lane.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PerLane<V>([V; CallLane::ALL.len()]);

impl<V> PerLane<V> {
    pub(super) fn new(of: impl FnMut(CallLane) -> V) -> Self {
        Self(CallLane::ALL.map(of))
    }
}

impl<V> Index<CallLane> for PerLane<V> {
    type Output = V;

    fn index(&self, lane: CallLane) -> &V {
        &self.0[lane as usize]
    }
}

impl<V> IndexMut<CallLane> for PerLane<V> {
    fn index_mut(&mut self, lane: CallLane) -> &mut V {
        &mut self.0[lane as usize]
    }
}
