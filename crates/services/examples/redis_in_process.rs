//! The Redis front over one store in the same process: to try commands, without a cluster and its guarantees.
//!
//! `cargo run -p regency-services --example redis_in_process -- 127.0.0.1:6379`, then `redis-cli`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use regency::protocol::ids::InstanceId;
use regency::protocol::time::Timestamp;
use regency_services::kv::{Moment, Request, Store};
use regency_services::redis::{Cluster, Front, Options, Unanswered};

/// A store that orders its requests by a lock, with the number of the last one.
#[derive(Clone, Default)]
struct InProcess(Arc<Mutex<(Store, u64)>>);

impl Cluster for InProcess {
    async fn invoke(&self, request: regency::Bytes) -> Result<regency::Bytes, Unanswered> {
        let refused = |cause: String| Unanswered::NotExecuted { cause };
        let request = Request::decode(&request).map_err(|error| refused(error.to_string()))?;
        let (store, instance) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *instance += 1;
        let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let timestamp = Timestamp(u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX));
        Ok(store.execute(Moment { timestamp, instance: InstanceId(*instance) }, &request).into())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:6379".to_owned());
    let front = Front::bind(address.parse()?, InProcess::default(), Options::default())?;
    println!("listening on {}; ends at the end of its input", front.local_addr());
    std::io::stdin().lines().for_each(drop);
    front.stop();
    Ok(())
}
