//! What tests share: servers, a world of their own each, the real worker as a process, and the checkers.
//!
//! ```text
//! TestWorld::acme()   a database, a vhost, a keyring, a simulator, and the organization `acme` in all of them
//!   ├─ worker(…)      the real binary as a process; kill9, terminate, wait_exit, ready
//!   ├─ publish_…      what a producer does
//!   ├─ wait_…         conditions with a time limit; no test sleeps for a fixed time
//!   ├─ check()        the promises, checked over SQL and the witness log
//!   └─ drop           every request against the contracts, and the search for secrets
//! ```

pub(crate) mod acme;
mod alone;
mod canaries;
mod checks;
mod command;
mod database;
mod ear;
pub(crate) mod gate;
mod letters;
mod listener;
mod logs;
mod proxy;
mod servers;
mod wait;
mod worker;
mod world;

pub(crate) use checks::{ANY_ATTEMPT, Checks};
pub(crate) use command::{Dispatch, Said};
pub(crate) use database::{TestDatabase, unaudited};
pub(crate) use letters::dead_letter;
pub(crate) use listener::Listener;
pub(crate) use proxy::Proxy;
pub(crate) use servers::{BINARY, WORKER, run};
pub(crate) use wait::wait_for;
pub(crate) use worker::{WorkerOptions, WorkerProcess};
pub(crate) use world::{TestWorld, intake, lanes, queues};
