//! Shared support of the tests: servers, a separate world for each test, the real worker as a
//! process, and the checkers.
//!
//! ```text
//! TestWorld::acme()   a database, a vhost, a keyring, a simulator, and the organization `acme`
//!   ├─ worker(…)      the real binary as a process; kill9, terminate, wait_exit, ready
//!   ├─ publish_…      publishes as a producer does
//!   ├─ wait_…         waits for a condition with a time limit; no test sleeps for a fixed time
//!   ├─ Checks::hold() checks the guarantees in the tables and the witness log
//!   └─ drop           checks every request against the contracts, and searches for secrets
//! ```

pub(crate) mod acme;
mod alone;
mod browser;
mod canaries;
mod checks;
mod command;
mod console;
pub(crate) mod crowd;
mod database;
mod external;
pub(crate) mod gate;
mod letters;
mod listener;
mod logs;
mod lost;
mod proxy;
mod recorder;
mod servers;
mod wait;
mod worker;
mod world;

pub(crate) use browser::Browser;
pub(crate) use checks::{ANY_ATTEMPT, Checks};
pub(crate) use command::{Dispatch, Said, count};
pub(crate) use console::{ConsoleProcess, field, form};
pub(crate) use database::{TestDatabase, WAITS_FOR_LOCK, unaudited};
pub(crate) use letters::dead_letter;
pub(crate) use listener::Listener;
pub(crate) use proxy::Proxy;
pub(crate) use servers::{BINARY, WORKER, run};
pub(crate) use wait::wait_for;
pub(crate) use worker::{WorkerOptions, WorkerProcess};
pub(crate) use world::{TestWorld, intake, lanes, queues};
