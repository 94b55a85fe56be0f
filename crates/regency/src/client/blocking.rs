//! The client for code without an asynchronous runtime. Do not call it from inside one: it blocks the thread.
//!
//! ```no_run
//! use regency::client::{ClientConfig, blocking::Client};
//!
//! # fn call() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(&ClientConfig::from_directory("demo")?)?;
//! let first = client.start(1_i64.to_le_bytes().to_vec());
//! let second = client.start(2_i64.to_le_bytes().to_vec());
//! println!("{:?} {:?}", first.wait()?, second.wait()?);
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

use bytes::Bytes;

use super::{ClientConfig, ClientError, handle};

/// A client whose calls block. Clones share its sessions and connections.
#[derive(Clone)]
pub struct Client(handle::Client);

/// A call under way. Dropped, it is given up, though it may still be executed.
pub struct Call(handle::Call);

impl Client {
    /// As [`Client::connect`](handle::Client::connect) of the asynchronous client.
    pub fn connect(config: &ClientConfig) -> Result<Self, ClientError> {
        handle::Client::connect_blocking(config).map(Self)
    }

    /// Has the cluster execute `operation` and waits for its result, which has a quorum behind it.
    pub fn invoke(&self, operation: impl Into<Bytes>) -> Result<Bytes, ClientError> {
        self.start(operation).wait()
    }

    /// The same within `deadline` from now.
    pub fn invoke_with_deadline(
        &self,
        operation: impl Into<Bytes>,
        deadline: Duration,
    ) -> Result<Bytes, ClientError> {
        Call(self.0.start_with_deadline(operation, deadline)).wait()
    }

    /// Begins a call without waiting for it.
    pub fn start(&self, operation: impl Into<Bytes>) -> Call {
        Call(self.0.start(operation))
    }
}

impl Call {
    /// Waits for the result.
    pub fn wait(self) -> Result<Bytes, ClientError> {
        self.0.wait()
    }

    /// Gives the call up. It may be executed all the same.
    pub fn cancel(self) {
        self.0.cancel();
    }
}
