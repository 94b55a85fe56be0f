//! Machines of a network of our own: one namespace for each replica, a bridge between them, and links that can be cut.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::run;

/// The network that the machines share: nobody else can be reached in it.
const NETWORK: &str = "10.99.0";
/// What is added to a replica's number.
const FIRST_HOST: usize = 10;
/// The table with the rules of what is cut.
const TABLE: &str = "regency_cuts";

/// Which way a link is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// What the machine sends does not arrive.
    Out,
    /// What it is sent does not.
    In,
    /// Neither does.
    Both,
}

/// The machines; removed when dropped.
#[derive(Debug)]
pub(crate) struct Namespaces {
    prefix: String,
    size: usize,
}

/// Whether such a network can be made here.
pub(super) fn check_means() -> Result<()> {
    for (program, argument) in [("ip", "-V"), ("nft", "-v")] {
        let found = Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success());
        ensure!(found, "{program} is missing: install the Debian packages iproute2 and nftables");
    }
    run("ip", &["netns", "list"]).context("network namespaces need root")?;
    Ok(())
}

impl Namespaces {
    /// So many machines, and the hub from which clients and questions come.
    pub(super) fn new(size: usize) -> Result<Self> {
        let namespaces = Self { prefix: format!("rg{}", std::process::id()), size };
        let hub = namespaces.hub();
        run("ip", &["netns", "add", &hub])?;
        namespaces.inside(&hub, &["ip", "link", "set", "lo", "up"])?;
        namespaces.inside(&hub, &["ip", "link", "add", "bridge", "type", "bridge"])?;
        namespaces.inside(&hub, &["ip", "addr", "add", &format!("{NETWORK}.1/24"), "dev", "bridge"])?;
        namespaces.inside(&hub, &["ip", "link", "set", "bridge", "up"])?;
        for replica in 0..size {
            namespaces.plug_in(replica)?;
        }
        Ok(namespaces)
    }

    fn plug_in(&self, replica: usize) -> Result<()> {
        let (hub, name) = (self.hub(), self.name(replica));
        let port = format!("port{replica}");
        run("ip", &["netns", "add", &name])?;
        self.inside(
            &hub,
            &["ip", "link", "add", &port, "type", "veth", "peer", "name", "line", "netns", &name],
        )?;
        self.inside(&hub, &["ip", "link", "set", &port, "master", "bridge", "up"])?;
        self.inside(&name, &["ip", "link", "set", "lo", "up"])?;
        let address = format!("{}/24", self.address(replica));
        self.inside(&name, &["ip", "addr", "add", &address, "dev", "line"])?;
        self.inside(&name, &["ip", "link", "set", "line", "up"])
    }

    /// The namespace of clients.
    pub(crate) fn hub(&self) -> String {
        format!("{}hub", self.prefix)
    }

    /// The namespace of a replica.
    pub(crate) fn name(&self, replica: usize) -> String {
        format!("{}m{replica}", self.prefix)
    }

    /// Its address.
    pub(crate) fn address(&self, replica: usize) -> String {
        format!("{NETWORK}.{}", FIRST_HOST + replica)
    }

    /// Cuts the link between two machines, as `one` sees it.
    pub(super) fn cut(&self, one: usize, other: usize, way: Way) -> Result<()> {
        let name = self.name(one);
        let far = self.address(other);
        let mut rules = format!(
            "table inet {TABLE} {{\n\
             chain arriving {{ type filter hook input priority 0; }}\n\
             chain leaving {{ type filter hook output priority 0; }}\n}}\n"
        );
        if way != Way::Out {
            rules += &format!("add rule inet {TABLE} arriving ip saddr {far} drop\n");
        }
        if way != Way::In {
            rules += &format!("add rule inet {TABLE} leaving ip daddr {far} drop\n");
        }
        self.inside(&name, &["nft", &rules])
    }

    /// All links of a machine work again.
    pub(super) fn heal(&self, one: usize) -> Result<()> {
        let rules = format!("table inet {TABLE}\ndelete table inet {TABLE}\n");
        self.inside(&self.name(one), &["nft", &rules])
    }

    fn inside(&self, namespace: &str, command: &[&str]) -> Result<()> {
        let mut arguments = vec!["netns", "exec", namespace];
        arguments.extend(command);
        run("ip", &arguments)?;
        Ok(())
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in (0..self.size).map(|replica| self.name(replica)).chain([self.hub()]) {
            // One that was never made cannot be removed.
            let _ = run("ip", &["netns", "del", &name]);
        }
    }
}
