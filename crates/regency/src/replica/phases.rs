//! How long each instance spends in each phase of ordering at this replica, seen from what goes in and out.

use std::time::{Duration, Instant};

use regency_protocol::ids::InstanceId;

use crate::metrics::Phase;

/// Instances that are watched at a time; a power of two at least as large as any sensible window.
const WATCHED: usize = 256;

/// The latest step of an instance.
#[derive(Clone, Copy, Debug)]
struct Watch {
    instance: InstanceId,
    phase: Phase,
    since: Instant,
}

/// The latest steps of the newest instances.
#[derive(Debug)]
pub(super) struct Phases {
    watches: Vec<Option<Watch>>,
}

impl Phases {
    /// No instance yet.
    pub(super) fn new() -> Self {
        Self { watches: vec![None; WATCHED] }
    }

    /// `instance` enters `phase`; returns the phase that it leaves, with the time spent in it.
    ///
    /// A phase that it is in already, or was in before, is not entered again: messages may be repeated.
    pub(super) fn enter(
        &mut self,
        instance: InstanceId,
        phase: Phase,
        now: Instant,
    ) -> Option<(Phase, Duration)> {
        let slot = usize::try_from(instance.0 % (WATCHED as u64)).unwrap_or(0);
        let watch = self.watches.get_mut(slot)?;
        match watch {
            Some(known) if known.instance == instance => {
                if rank(phase) <= rank(known.phase) {
                    return None;
                }
                let left = (known.phase, now.duration_since(known.since));
                *known = Watch { instance, phase, since: now };
                Some(left)
            }
            // A late message about an instance that was displaced.
            Some(known) if known.instance > instance => None,
            Some(_) | None => {
                *watch = Some(Watch { instance, phase, since: now });
                None
            }
        }
    }
}

fn rank(phase: Phase) -> u8 {
    match phase {
        Phase::Propose => 0,
        Phase::Write => 1,
        Phase::Accept => 2,
        Phase::Execute => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_is_left_once() {
        let mut phases = Phases::new();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let instance = InstanceId(7);
        assert_eq!(phases.enter(instance, Phase::Propose, at(0)), None);
        let left = phases.enter(instance, Phase::Write, at(2));
        assert_eq!(left, Some((Phase::Propose, Duration::from_millis(2))));
        assert_eq!(phases.enter(instance, Phase::Write, at(3)), None, "sent again");
        let left = phases.enter(instance, Phase::Execute, at(5));
        assert_eq!(left, Some((Phase::Write, Duration::from_millis(3))));
        assert_eq!(phases.enter(InstanceId(7 + WATCHED as u64), Phase::Propose, at(6)), None);
        assert_eq!(phases.enter(instance, Phase::Accept, at(7)), None, "displaced");
    }
}
