//! One core against peers and clients that lie, flood, or send what nobody expects.

mod change;
mod flooding;
mod lone;
