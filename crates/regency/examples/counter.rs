//! A replicated counter: four replicas in this process, and a client that adds to it.
//!
//! `cargo run -p regency --example counter`

use std::io::Read;

use regency::{Bytes, Client, Context, Frozen, LocalCluster, RestoreError, Service, Snapshot};

/// The state machine. Every replica executes the same additions in the same order.
struct Counter(i64);

impl Service for Counter {
    fn execute(&mut self, _context: &Context, operation: &[u8]) -> Bytes {
        // Whatever a client sends must give some answer, the same at every replica: what is no number adds 0.
        let amount = operation.try_into().map_or(0, i64::from_le_bytes);
        self.0 = self.0.wrapping_add(amount);
        Bytes::copy_from_slice(&self.0.to_le_bytes())
    }

    /// The whole state, for a replica that comes back or joins; what is as small as this is copied at once.
    fn snapshot(&self) -> Box<dyn Snapshot> {
        Frozen::image(self.0.to_le_bytes())
    }

    fn restore(&mut self, source: &mut dyn Read) -> Result<(), RestoreError> {
        self.0 = i64::from_le_bytes(Frozen::read(source)?);
        Ok(())
    }
}

/// Adds `amount`; the sum that comes back has been confirmed by enough replicas that one of them may lie.
async fn add(client: &Client, amount: i64) -> Result<i64, Box<dyn std::error::Error>> {
    let sum = client.invoke(amount.to_le_bytes().to_vec()).await?;
    Ok(i64::from_le_bytes(sum[..].try_into()?))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut cluster = LocalCluster::start(|| Counter(0))?;
    let client = Client::connect(cluster.client()).await?;
    println!("0 + 40 = {}", add(&client, 40).await?);
    println!("  +  2 = {}", add(&client, 2).await?);

    // One of four replicas may fail, or lie, and nobody notices. (The first one leads: leave it alone for now.)
    let last = cluster.replicas()[3];
    cluster.stop(last)?;
    println!("  + 58 = {} without replica {last}", add(&client, 58).await?);

    // Many calls at once: they are ordered together and cost far less than one after the other.
    let calls: Vec<_> = (0..1000).map(|_| client.start(1_i64.to_le_bytes().to_vec())).collect();
    for call in calls {
        call.await?;
    }
    println!("after 1000 more: {}", add(&client, 0).await?);
    client.close().await;
    Ok(())
}
