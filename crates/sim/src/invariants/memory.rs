//! Memory: whatever others send, a replica keeps no more than its limits say.

use regency_protocol::ids::ReplicaId;
use regency_protocol::limits::{EARLY_REQUESTS_MAX, Settings};
use regency_protocol::replica::ReplicaStatus;
use regency_protocol::view::View;

use super::Violation;

/// Checks the figures of a correct replica against the limits.
pub(crate) fn check(
    replica: ReplicaId,
    status: &ReplicaStatus,
    settings: &Settings,
    view: &View,
) -> Result<(), Violation> {
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let window = number(settings.window);
    let votes = number(settings.span) + 3 * window;
    let retained = status.decided.0.saturating_sub(status.retained_from.0.saturating_sub(1));
    let bounds = [
        ("pending requests", status.pending_requests, settings.pending_requests_max + EARLY_REQUESTS_MAX),
        ("sessions", status.sessions, settings.sessions_max),
        ("bytes of results", status.result_bytes, settings.sessions_max * settings.session_result_bytes_max),
        // What a SYNC binds stands above its certificate, wherever the own prefix is.
        ("open instances", status.open_instances, number(settings.span) + 3 * window + 1),
        (
            "awaited bodies",
            status.awaited_bodies,
            (number(settings.span) + 3 * window + 1) * settings.batch_requests_max * view.n(),
        ),
        ("recorded votes", status.recorded_votes, votes),
        ("chain signatures", status.chain_signatures, (votes + window) * view.n()),
        ("statements of one regency or a later one", status.statements, view.n()),
        ("checkpoint signatures", status.checkpoint_signatures, 5 * view.n()),
        (
            "retained instances",
            if status.retained_bytes > settings.retained_bytes + settings.batch_bytes_max {
                number(retained)
            } else {
                0
            },
            number(settings.retained_instances) + 1,
        ),
    ];
    for (what, value, limit) in bounds {
        if value > limit {
            let detail = format!("replica {replica} keeps {value} {what}, the limit is {limit}");
            return Err(Violation::new("memory", detail));
        }
    }
    Ok(())
}
