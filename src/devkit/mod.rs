//! Infrastructure of the demo and the tests that images are built without: private servers, the
//! provider simulator with its witness log, and the demo.
//!
//! Callers hold a [`servers::Servers`]. It starts a guard process ([`guard`]), which finds or
//! installs the servers' programs ([`install`]), owns the servers, and stops them when the holder
//! is gone for any reason.

pub mod demo;
mod frozen;
pub mod guard;
pub mod install;
mod management;
pub mod many_rows;
pub mod ports;
mod postgres;
mod process;
mod rabbitmq;
pub mod servers;
pub mod simulator;
