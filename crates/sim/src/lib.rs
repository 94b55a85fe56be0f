//! A deterministic simulator that attacks the Regency core.
//!
//! It drives the real core and the real client through the real codec, in one thread and in virtual time. One
//! seed decides everything: the cluster, its settings, the weather, what fails when, who lies and how. A broken
//! invariant is reported with the seed that replays it.
//!
//! ```
//! let options = regency_sim::Options { seeds: 20, ..Default::default() };
//! let report = regency_sim::run(&options).unwrap();
//! assert_eq!(report.failure, None);
//! ```
#![forbid(unsafe_code)]

mod adversary;
mod agenda;
mod campaign;
mod client;
mod coverage;
mod history;
mod invariants;
mod network;
mod node;
mod plan;
mod random;
mod report;
mod rogue;
mod rounds;
mod scenario;
mod service;
mod shrink;
mod signatures;
mod store;
mod trace;
mod world;

pub use adversary::Vice;
pub use campaign::{replay, replay_reduced, run};
pub use coverage::Point;
pub use report::{Failure, Options, Report, SimError};
pub use scenario::Scenario;
pub use shrink::{Effort, Reduction, ReductionError, Shrunk, shrink};
