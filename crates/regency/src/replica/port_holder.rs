//! Which process listens on a port: what `/proc` tells, for an error that names the culprit.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The state of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// The id of a process that listens on this TCP port, where that can be seen.
pub(super) fn port_holder(port: u16) -> Option<u32> {
    let inodes: Vec<u64> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listeners(&table, port))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let id: u32 = entry.file_name().to_str()?.parse().ok()?;
        holds_one(&entry.path().join("fd"), &inodes).then_some(id)
    })
}

/// The inodes of the sockets that listen on `port`, from the text of `/proc/net/tcp`.
fn listeners(table: &str, port: u16) -> Vec<u64> {
    let suffix = format!(":{port:04X}");
    let inode_of = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_listener = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == LISTENING;
        is_listener.then(|| fields.get(9)?.parse().ok()).flatten()
    };
    table.lines().skip(1).filter_map(inode_of).collect()
}

fn holds_one(descriptors: &Path, inodes: &[u64]) -> bool {
    let Ok(entries) = fs::read_dir(descriptors) else { return false };
    entries
        .flatten()
        .filter_map(|entry| fs::metadata(entry.path()).ok())
        .any(|metadata| inodes.contains(&metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_listens_on_a_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(port_holder(port), Some(std::process::id()));
        drop(listener);
        assert_eq!(port_holder(port), None);
    }
}
