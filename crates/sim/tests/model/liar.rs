//! What the liar may state: any claim that the checks of a STOPDATA let through.

use regency_protocol::ids::{Digest, InstanceId, Regency, ViewId};
use regency_protocol::leader_change::stop_data::{Claim, Lock, StopData};
use regency_protocol::leader_change::sync::empty_batch;

use crate::histories::{EMPTY, Value};

/// A value that nobody correct ever saw.
const INVENTED: Value = 4;

/// The digest that stands for a value.
pub(crate) fn digest(instance: usize, value: Value) -> Digest {
    let id = instance_id(instance);
    if value == EMPTY { empty_batch(ViewId(0), id).digest() } else { Digest([value; 32]) }
}

/// The number of the instance at this place.
pub(crate) fn instance_id(instance: usize) -> InstanceId {
    InstanceId(instance as u64 + 1)
}

/// A statement for `epoch` with these claims; those about nothing are left out.
pub(crate) fn statement(epoch: usize, claims: impl IntoIterator<Item = Claim>) -> StopData {
    let is_said = |claim: &Claim| claim.lock != Lock::None || !claim.write_set.is_empty();
    let claims = claims.into_iter().filter(is_said).collect();
    StopData { view: ViewId(0), regency: Regency(epoch as u64), base: None, claims }
}

/// Every statement that the liar can make for `epoch`.
pub(crate) fn statements(epoch: usize, instances: usize) -> Vec<StopData> {
    let mut all: Vec<Vec<Claim>> = vec![Vec::new()];
    for instance in 0..instances {
        let claims = claims(epoch, instance, instances);
        let extended = all.iter().flat_map(|said| {
            claims.iter().map(|claim| [said.as_slice(), std::slice::from_ref(claim)].concat())
        });
        all = extended.collect();
    }
    all.into_iter().map(|claims| statement(epoch, claims)).collect()
}

/// Every claim about one instance: any lock, any write set that fits it.
fn claims(epoch: usize, instance: usize, instances: usize) -> Vec<Claim> {
    let values: Vec<Value> = if instances == 1 { vec![1, 2, INVENTED] } else { vec![1, 2, EMPTY] };
    let votes: Vec<(Regency, Digest)> = (0..epoch)
        .flat_map(|at| values.iter().map(move |value| (Regency(at as u64), digest(instance, *value))))
        .collect();
    let locks = votes.iter().map(|(epoch, digest)| Lock::At { epoch: *epoch, digest: *digest });
    let locks: Vec<Lock> = [Lock::None].into_iter().chain(locks).collect();
    let mut write_sets: Vec<Vec<(Regency, Digest)>> = vec![Vec::new()];
    for at in 0..epoch {
        let cast = votes.iter().filter(|(epoch, _)| epoch.0 == at as u64);
        let longer: Vec<_> = cast
            .flat_map(|vote| {
                let fits = |set: &&Vec<(Regency, Digest)>| set.iter().all(|(_, digest)| *digest != vote.1);
                write_sets.iter().filter(fits).map(|set| [set.as_slice(), &[*vote]].concat())
            })
            .collect();
        write_sets.extend(longer);
    }
    let mut claims = Vec::new();
    for lock in locks {
        let first = match lock {
            Lock::None => Regency(0),
            Lock::At { epoch, .. } => epoch,
        };
        let fitting = write_sets.iter().filter(|set| set.iter().all(|(epoch, _)| *epoch >= first));
        claims.extend(fitting.map(|write_set| Claim {
            instance: instance_id(instance),
            lock,
            write_set: write_set.clone(),
        }));
    }
    claims
}
