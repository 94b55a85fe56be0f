//! What went over a connection, in numbers: for metrics, and for the benchmark's system calls per operation.

/// What went over a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Bytes read from the socket.
    pub bytes_in: u64,
    /// Bytes written to the socket.
    pub bytes_out: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Frames queued.
    pub frames_out: u64,
    /// Reads that brought something.
    pub reads: u64,
    /// Writes that took something.
    pub writes: u64,
}

impl LinkCounters {
    /// What both have carried.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            bytes_in: self.bytes_in + other.bytes_in,
            bytes_out: self.bytes_out + other.bytes_out,
            frames_in: self.frames_in + other.frames_in,
            frames_out: self.frames_out + other.frames_out,
            reads: self.reads + other.reads,
            writes: self.writes + other.writes,
        }
    }
}
