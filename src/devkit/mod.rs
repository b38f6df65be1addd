//! What tests, the demo and the benchmarks need beside the product itself.
pub mod simulator;
