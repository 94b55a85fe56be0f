//! `regency status`: one row per replica of the cluster file, unreachable ones too.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use regency::config::{CLUSTER_FILE, Cluster};
use regency::protocol::view::Member;
use regency::replica::TransferReport;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::admin;
use crate::failure::{ErrorCode, ExitStatus, Failure, Outcome};
use crate::output;

/// What a replica reports, in the order of the JSON; null if it is unreachable.
const REPORTED: &[&str] = &[
    "state",
    "view",
    "regency",
    "leader",
    "decided",
    "executed",
    "chain",
    "stable_checkpoint",
    "transfer",
    "pending_requests",
    "sessions",
    "pid",
    "resident_bytes",
    "cpu_seconds",
    "uptime_seconds",
];
/// The state of a replica that takes full part.
const NORMAL: &str = "normal";

/// Show every replica of a cluster
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  regency status demo\n  regency status demo --json --check")]
pub(crate) struct Arguments {
    /// The directory of the cluster
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Print one JSON object on one line
    #[arg(long)]
    json: bool,
    /// Exit with 4 unless every replica serves in the same view and regency
    #[arg(long)]
    check: bool,
}

/// Asks all replicas and prints what they say.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let cluster = Cluster::read(&arguments.directory.join(CLUSTER_FILE))?;
    let status = Status::ask(&cluster);
    if arguments.json {
        output::json(&status)?;
    } else {
        output::line(&status.table())?;
    }
    match status.defect() {
        Some(defect) if arguments.check => Err(Failure::new(
            ErrorCode::Degraded,
            defect,
            "see `regency status` and the logs of the replicas",
        )),
        _ => Ok(ExitStatus::Done),
    }
}

/// A cluster as its replicas report it.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    cluster: String,
    replicas: Vec<Row>,
}

/// One replica.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    id: u16,
    address: String,
    admin: Option<String>,
    reachable: bool,
    /// Why it is not reachable.
    error: Option<String>,
    #[serde(flatten)]
    reported: Map<String, Value>,
}

impl Status {
    /// Asks all replicas at once.
    pub(crate) fn ask(cluster: &Cluster) -> Self {
        let members = cluster.view().members();
        let replicas = std::thread::scope(|scope| {
            let asked: Vec<_> =
                members.iter().map(|member| scope.spawn(|| Row::ask(cluster, member))).collect();
            asked.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        Self { cluster: cluster.id().to_string(), replicas }
    }

    /// What each replica lacks that does not take full part, and how far it is.
    pub(crate) fn lacks(&self) -> impl Iterator<Item = String> {
        self.replicas.iter().filter_map(|row| {
            let lack = row.lack()?;
            Some(row.transfer().map_or(lack.clone(), |transfer| format!("{lack}; it transfers: {transfer}")))
        })
    }

    /// What changes while those replicas come on that do not take full part.
    pub(crate) fn advance(&self) -> Vec<[Value; 3]> {
        let of = |row: &Row| ["state", "executed", "transfer"].map(|key| row.value(key).clone());
        self.replicas.iter().filter(|row| row.lack().is_some()).map(of).collect()
    }

    /// Why this is not a cluster in full health, if it is not.
    pub(crate) fn defect(&self) -> Option<String> {
        if let Some(defect) = self.replicas.iter().find_map(Row::lack) {
            return Some(defect);
        }
        let first = self.replicas.first()?;
        let differs = |row: &&Row| ["view", "regency"].iter().any(|key| row.value(key) != first.value(key));
        let other = self.replicas.iter().find(differs)?;
        Some(format!("replicas {} and {} are in different views or regencies", first.id, other.id))
    }

    /// The sum of a number that replicas report.
    pub(crate) fn sum(&self, key: &str) -> f64 {
        self.replicas.iter().filter_map(|row| row.value(key).as_f64()).sum()
    }

    /// The largest of a number that replicas report.
    pub(crate) fn largest(&self, key: &str) -> Option<u64> {
        self.replicas.iter().filter_map(|row| row.value(key).as_u64()).max()
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY).set_header([
            "replica", "address", "state", "view", "regency", "leader", "decided", "executed", "chain",
            "pending", "sessions", "memory", "cpu", "uptime",
        ]);
        for row in &self.replicas {
            let state = if row.reachable { row.text("state") } else { "unreachable" };
            table.add_row([
                row.id.to_string(),
                row.address.clone(),
                state.to_owned(),
                row.number("view"),
                row.number("regency"),
                row.number("leader"),
                row.number("decided"),
                row.number("executed"),
                row.text("chain").chars().take(8).collect(),
                row.number("pending_requests"),
                row.number("sessions"),
                row.scaled("resident_bytes", 1024.0 * 1024.0, "MiB"),
                row.scaled("cpu_seconds", 1.0, "s"),
                row.scaled("uptime_seconds", 1.0, "s"),
            ]);
        }
        for column in table.column_iter_mut().skip(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut text = format!("cluster {}\n{table}", self.cluster);
        for row in &self.replicas {
            if let Some(transfer) = row.transfer() {
                // Writing to a String cannot fail.
                let _ = write!(text, "\nreplica {} transfers: {transfer}", row.id);
            }
        }
        text
    }

    /// The transfers that are under way, each with a bar: replica by replica.
    pub(crate) fn bars(&self) -> impl Iterator<Item = (u16, String)> {
        let under_way = self.replicas.iter().filter_map(|row| Some((row.id, row.transfer()?)));
        under_way.filter_map(|(id, transfer)| Some((id, transfer.line_with_bar()?)))
    }
}

impl Row {
    fn ask(cluster: &Cluster, member: &Member) -> Self {
        let admin = cluster.admin(member.id).map(str::to_owned);
        let answer = match &admin {
            Some(address) => admin::get(address, "/status").map_err(|error| error.to_string()),
            None => Err("the cluster file names no admin port".to_owned()),
        };
        let answer = answer.and_then(|answer| checked(answer, cluster, member));
        let mut row = Self {
            id: member.id.0,
            address: member.address.clone(),
            admin,
            reachable: answer.is_ok(),
            error: None,
            reported: REPORTED.iter().map(|key| ((*key).to_owned(), Value::Null)).collect(),
        };
        match answer {
            Ok(reported) => {
                for (key, value) in reported {
                    if !["cluster", "id", "address", "admin", "reachable", "error"].contains(&key.as_str()) {
                        row.reported.insert(key, value);
                    }
                }
            }
            Err(error) => row.error = Some(error),
        }
        row
    }

    /// Why it does not take full part, if it does not.
    fn lack(&self) -> Option<String> {
        let id = self.id;
        match self.text("state") {
            _ if !self.reachable => Some(format!("replica {id} is unreachable")),
            NORMAL => {
                let reason = self.value("readiness")["reason"].as_str()?;
                Some(format!("replica {id} does not serve: {reason}"))
            }
            state => Some(format!("replica {id} is {state}")),
        }
    }

    /// The transfer that the replica reports.
    fn transfer(&self) -> Option<TransferReport> {
        serde_json::from_value(self.value("transfer").clone()).ok()
    }

    fn value(&self, key: &str) -> &Value {
        self.reported.get(key).unwrap_or(&Value::Null)
    }

    fn text(&self, key: &str) -> &str {
        self.value(key).as_str().unwrap_or("-")
    }

    fn number(&self, key: &str) -> String {
        match self.value(key) {
            Value::Number(number) => number.to_string(),
            _ => "-".to_owned(),
        }
    }

    fn scaled(&self, key: &str, unit: f64, name: &str) -> String {
        self.value(key).as_f64().map_or("-".to_owned(), |number| format!("{:.1} {name}", number / unit))
    }
}

/// What a replica says of itself, if it is the one that we asked.
fn checked(answer: Value, cluster: &Cluster, member: &Member) -> Result<Map<String, Value>, String> {
    let Value::Object(answer) = answer else { return Err("its status is no JSON object".to_owned()) };
    if let Some(id) = answer.get("id").and_then(Value::as_u64)
        && id != u64::from(member.id.0)
    {
        return Err(format!("replica {id} answers there"));
    }
    if let Some(other) = answer.get("cluster").and_then(Value::as_str)
        && other != cluster.id().to_string()
    {
        return Err(format!("a replica of cluster {other} answers there"));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(id: u16, reported: Value) -> Row {
        let Value::Object(reported) = reported else { unreachable!() };
        let reachable = !reported.is_empty();
        Row { id, address: String::new(), admin: None, reachable, error: None, reported }
    }

    fn defect(rows: Vec<Row>) -> Option<String> {
        Status { cluster: String::new(), replicas: rows }.defect()
    }

    #[test]
    fn a_cluster_is_well_if_all_serve_in_the_same_regency() {
        let normal = |id, regency| row(id, json!({"state": "normal", "view": 0, "regency": regency}));
        assert_eq!(defect(vec![normal(0, 1), normal(1, 1)]), None);
        assert!(defect(vec![normal(0, 1), normal(1, 2)]).is_some());
        assert_eq!(
            defect(vec![normal(0, 1), row(1, json!({}))]),
            Some("replica 1 is unreachable".to_owned())
        );
        let lost = row(1, json!({"state": "state-lost", "view": 0, "regency": 1}));
        assert_eq!(defect(vec![normal(0, 1), lost]), Some("replica 1 is state-lost".to_owned()));
        let readiness = json!({"ready": false, "reason": "E135 a full disk"});
        let full = row(1, json!({"state": "normal", "view": 0, "regency": 1, "readiness": readiness}));
        let said = "replica 1 does not serve: E135 a full disk".to_owned();
        assert_eq!(defect(vec![normal(0, 1), full]), Some(said));
    }

    #[test]
    fn a_transfer_has_a_line_below_the_table() {
        let transfer = json!({"target": 9, "phase": "snapshot", "unit": "bytes", "done": 1 << 20, "total": 4 << 20,
            "donors": 3, "per_second": 1024.0 * 1024.0, "seconds_left": 3.0});
        let rows =
            vec![row(0, json!({"transfer": null})), row(1, json!({"transfer": transfer})), row(2, json!({}))];
        let status = Status { cluster: String::new(), replicas: rows };
        let table = status.table();
        let bar =
            "██████░░░░░░░░░░░░░░░░░░ snapshot 25% of 4.0 MiB, 1.0 MiB/s from 3 donors, 3 s left".to_owned();
        assert_eq!(status.bars().collect::<Vec<_>>(), [(1, bar)]);
        assert!(
            table.ends_with(
                "\nreplica 1 transfers: snapshot 25% of 4.0 MiB, 1.0 MiB/s from 3 donors, 3 s left"
            ),
            "{table}"
        );
    }

    #[test]
    fn an_unreachable_replica_has_nulls() {
        let cluster = r#"{"id":1,"address":"","admin":null,"reachable":false,"error":null,"state":null}"#;
        let row = Row {
            id: 1,
            address: String::new(),
            admin: None,
            reachable: false,
            error: None,
            reported: [("state".to_owned(), Value::Null)].into_iter().collect(),
        };
        assert_eq!(serde_json::to_string(&row).unwrap(), cluster);
    }
}
