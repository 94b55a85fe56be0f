//! Leader change: who wants one, what each replica states about its votes, and what follows from the statements.
//!
//! [`selection`] is a pure function of the statements; the replica's leader-change walk does everything else.

pub(crate) mod monitor;
pub mod selection;
pub(crate) mod state;
pub mod stop_data;
pub(crate) mod stops;
pub mod sync;
pub(crate) mod timer;
