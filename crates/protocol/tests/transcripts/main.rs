//! Transcripts: what one core does, line by line, in scenarios of a few lines that document the rules.
//!
//! The test plays everybody else. Each `expect` compares everything that the core has asked for since the last.

mod amnesia;
mod announcements;
mod beginning;
mod catching_up;
mod crash_only;
mod durability;
mod normal_case;
mod patience;
mod refusals;
mod regencies;
mod scene;
mod statements;
mod stops;
mod timers;
mod transfer;
