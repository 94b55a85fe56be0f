//! One core against peers and clients that lie, flood, or send what nobody expects.

mod change;
mod channel;
mod flooding;
mod lone;
