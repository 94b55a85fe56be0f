//! The replica's own part of a snapshot.

use bytes::Bytes;

use super::reader::Reader;
use super::{DecodeError, put_header, put_u64};
use crate::ids::{InstanceId, ViewId};
use crate::sessions::Sessions;
use crate::snapshot::SnapshotHead;
use crate::time::Timestamp;

const SNAPSHOT_HEAD: u8 = 1;

/// The bytes of `head`.
pub(crate) fn snapshot_head(head: &SnapshotHead) -> Vec<u8> {
    let mut out = Vec::new();
    put_header(&mut out, SNAPSHOT_HEAD);
    put_u64(&mut out, head.view.0);
    put_u64(&mut out, head.instance.0);
    out.extend_from_slice(&head.chain.0);
    put_u64(&mut out, head.timestamp.0);
    put_u64(&mut out, head.checkpoint);
    head.sessions.encode(&mut out);
    out
}

/// Reads what [`snapshot_head`] wrote.
pub(crate) fn take_snapshot_head(bytes: Bytes) -> Result<SnapshotHead, DecodeError> {
    let mut reader = Reader::open(bytes, usize::MAX)?;
    match reader.u8()? {
        SNAPSHOT_HEAD => {}
        kind => return Err(DecodeError::UnknownKind(kind)),
    }
    let head = SnapshotHead {
        view: ViewId(reader.u64()?),
        instance: InstanceId(reader.u64()?),
        chain: reader.digest()?,
        timestamp: Timestamp(reader.u64()?),
        checkpoint: reader.u64()?,
        sessions: Sessions::take(&mut reader)?,
    };
    reader.close()?;
    Ok(head)
}
