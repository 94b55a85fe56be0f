//! What the clients of a benchmark ask for: an endless sequence of operations for each of them.

use clap::ValueEnum;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regency::Bytes;
use regency_services::kv::{Answer, Operation, Reply, RequestWriter, Scan};
use regency_services::{counter, null};

use super::zipfian::Zipfian;

/// Entries that one scan of YCSB's workload e returns at most.
const SCAN_ENTRIES_MAX: u32 = 100;
/// Bytes of a record that a kv workload writes if `--request-bytes` is 0.
const RECORD_BYTES_DEFAULT: usize = 100;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WorkloadName {
    /// Operations without effect, replies of any size (service null)
    Null,
    /// Additions and reads of one number (service counter)
    Counter,
    /// Half reads, half updates (service kv)
    YcsbA,
    /// 95% reads, 5% updates (service kv)
    YcsbB,
    /// Reads only (service kv)
    YcsbC,
    /// 95% reads of recent records, 5% inserts (service kv)
    YcsbD,
    /// 95% short scans, 5% inserts (service kv)
    YcsbE,
    /// Half reads, half reads followed by a write (service kv)
    YcsbF,
}

impl WorkloadName {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Counter => "counter",
            Self::YcsbA => "ycsb-a",
            Self::YcsbB => "ycsb-b",
            Self::YcsbC => "ycsb-c",
            Self::YcsbD => "ycsb-d",
            Self::YcsbE => "ycsb-e",
            Self::YcsbF => "ycsb-f",
        }
    }

    /// The service that it needs.
    pub(crate) fn service(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Counter => "counter",
            Self::YcsbA | Self::YcsbB | Self::YcsbC | Self::YcsbD | Self::YcsbE | Self::YcsbF => "kv",
        }
    }

    /// Whether `--read-percent` means anything for it.
    pub(crate) fn has_reads(self) -> bool {
        self == Self::Counter
    }
}

/// What one call of a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Null,
    /// Adds to the counter.
    Add(i64),
    /// Reads the counter.
    Get,
    /// Reads a record.
    Read(u64),
    /// Writes a record that exists.
    Update(u64),
    /// Writes a new record.
    Insert(u64),
    /// Reads records in order.
    Scan(u64, u32),
    /// Reads a record in order to write it: one operation of two calls.
    ReadToWrite(u64),
}

/// The operations of all clients.
#[derive(Debug)]
pub(crate) struct Workload {
    name: WorkloadName,
    read_percent: u32,
    /// The operation that the null workload repeats.
    null: Bytes,
    value: Vec<u8>,
    random: ChaCha8Rng,
    zipfian: Zipfian,
    /// Records that exist.
    records: u64,
}

impl Workload {
    /// Repeatable: the same arguments give the same operations.
    pub(crate) fn new(
        name: WorkloadName,
        read_percent: u32,
        request_bytes: usize,
        reply_bytes: usize,
        records: u64,
    ) -> Self {
        let record_bytes = if request_bytes == 0 { RECORD_BYTES_DEFAULT } else { request_bytes };
        let mut random = ChaCha8Rng::seed_from_u64(records);
        let mut value = vec![0; record_bytes];
        random.fill_bytes(&mut value);
        Self {
            name,
            read_percent,
            null: null::operation(request_bytes, reply_bytes),
            value,
            random,
            zipfian: Zipfian::new(records),
            records,
        }
    }

    /// What a client does next.
    pub(crate) fn next(&mut self) -> Step {
        let percent = self.random.random_range(0..100);
        match self.name {
            WorkloadName::Null => Step::Null,
            WorkloadName::Counter if percent < self.read_percent => Step::Get,
            WorkloadName::Counter => Step::Add(1),
            WorkloadName::YcsbA if percent < 50 => Step::Read(self.popular()),
            WorkloadName::YcsbA => Step::Update(self.popular()),
            WorkloadName::YcsbB if percent < 95 => Step::Read(self.popular()),
            WorkloadName::YcsbB => Step::Update(self.popular()),
            WorkloadName::YcsbC => Step::Read(self.popular()),
            WorkloadName::YcsbD if percent < 95 => Step::Read(self.recent()),
            WorkloadName::YcsbE if percent < 95 => {
                let count = self.random.random_range(1..=SCAN_ENTRIES_MAX);
                Step::Scan(self.popular(), count)
            }
            WorkloadName::YcsbD | WorkloadName::YcsbE => {
                self.records += 1;
                Step::Insert(self.records - 1)
            }
            WorkloadName::YcsbF if percent < 50 => Step::Read(self.popular()),
            WorkloadName::YcsbF => Step::ReadToWrite(self.popular()),
        }
    }

    /// The call of a step.
    pub(crate) fn encode(&self, step: &Step) -> Bytes {
        let single = |operation: &Operation<'_>| RequestWriter::single(operation);
        match step {
            Step::Null => self.null.clone(),
            Step::Add(amount) => counter::Operation::Add(*amount).encode(),
            Step::Get => counter::Operation::Get.encode(),
            Step::Read(record) | Step::ReadToWrite(record) => {
                single(&Operation::Get { key: key(*record).as_bytes() })
            }
            Step::Update(record) | Step::Insert(record) => {
                single(&Operation::put(key(*record).as_bytes(), &self.value))
            }
            Step::Scan(record, count) => single(&Operation::Scan(Scan {
                prefix: b"user",
                after: Some(key(*record).as_bytes()),
                pattern: None,
                visits: *count,
                with_values: true,
            })),
        }
    }

    /// The call that follows the result of a step's first one, if there is one.
    pub(crate) fn follow_up(&self, step: &Step) -> Option<Step> {
        match step {
            Step::ReadToWrite(record) => Some(Step::Update(*record)),
            Step::Null
            | Step::Add(_)
            | Step::Get
            | Step::Read(_)
            | Step::Update(_)
            | Step::Insert(_)
            | Step::Scan(..) => None,
        }
    }

    /// Whether a result is one that the step can have, and what it says for the record.
    pub(crate) fn check(&self, step: &Step, result: &Bytes) -> Option<String> {
        match step {
            Step::Null => (result.len() == null::reply_bytes(&self.null)).then(String::new),
            Step::Add(_) | Step::Get => match counter::Answer::decode(result)? {
                counter::Answer::Value(value) => Some(value.to_string()),
                counter::Answer::Overflow | counter::Answer::Malformed => None,
            },
            Step::Read(_) | Step::ReadToWrite(_) | Step::Update(_) | Step::Insert(_) | Step::Scan(..) => {
                let Ok(Reply::Pipeline(answers)) = Reply::decode(result) else { return None };
                match answers.first()? {
                    Answer::Value(value) => Some(format!("{} bytes", value.len())),
                    Answer::Absent => Some("absent".to_owned()),
                    Answer::Done => Some("done".to_owned()),
                    Answer::Page { entries, .. } => Some(format!("{} entries", entries.len())),
                    _ => None,
                }
            }
        }
    }

    /// Requests that write all records, to be executed before the clients begin.
    pub(crate) fn preparation(&self, bytes_max: usize) -> Vec<Bytes> {
        let mut requests = Vec::new();
        if self.name.service() != "kv" {
            return requests;
        }
        let mut writer = RequestWriter::default();
        for record in 0..self.records {
            let key = key(record);
            let put = Operation::put(key.as_bytes(), &self.value);
            if !writer.push(&put, bytes_max) {
                requests.push(writer.finish());
                writer.push(&put, bytes_max);
            }
        }
        requests.push(writer.finish());
        requests
    }

    fn popular(&mut self) -> u64 {
        self.zipfian.scrambled(&mut self.random)
    }

    /// The newest records are the most popular.
    fn recent(&mut self) -> u64 {
        self.records.saturating_sub(1).saturating_sub(self.zipfian.rank(&mut self.random))
    }
}

impl Step {
    /// For the record of operations.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Add(amount) => format!("add {amount}"),
            Self::Get => "get".to_owned(),
            Self::Read(record) | Self::ReadToWrite(record) => format!("read {}", key(*record)),
            Self::Update(record) => format!("update {}", key(*record)),
            Self::Insert(record) => format!("insert {}", key(*record)),
            Self::Scan(record, count) => format!("scan {} {count}", key(*record)),
        }
    }
}

fn key(record: u64) -> String {
    format!("user{record:012}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(name: WorkloadName) -> Vec<(&'static str, usize)> {
        let mut workload = Workload::new(name, 30, 0, 0, 1000);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..10_000 {
            let kind = match workload.next() {
                Step::Null => "null",
                Step::Add(_) => "add",
                Step::Get => "get",
                Step::Read(_) => "read",
                Step::Update(_) => "update",
                Step::Insert(_) => "insert",
                Step::Scan(..) => "scan",
                Step::ReadToWrite(_) => "read-to-write",
            };
            *counts.entry(kind).or_insert(0_usize) += 1;
        }
        counts.into_iter().collect()
    }

    #[test]
    fn each_workload_has_its_shares() {
        let expected = [
            (WorkloadName::Null, &[("null", 100)][..]),
            (WorkloadName::Counter, &[("add", 70), ("get", 30)]),
            (WorkloadName::YcsbA, &[("read", 50), ("update", 50)]),
            (WorkloadName::YcsbB, &[("read", 95), ("update", 5)]),
            (WorkloadName::YcsbC, &[("read", 100)]),
            (WorkloadName::YcsbD, &[("insert", 5), ("read", 95)]),
            (WorkloadName::YcsbE, &[("insert", 5), ("scan", 95)]),
            (WorkloadName::YcsbF, &[("read", 50), ("read-to-write", 50)]),
        ];
        for (name, expected) in expected {
            let shares = shares(name);
            assert_eq!(shares.len(), expected.len(), "{shares:?}");
            for ((kind, count), (expected_kind, percent)) in shares.iter().zip(expected) {
                assert_eq!(kind, expected_kind);
                assert!(count.abs_diff(percent * 100) < 200, "{name:?}: {shares:?}");
            }
        }
    }

    #[test]
    fn preparation_writes_every_record() {
        let workload = Workload::new(WorkloadName::YcsbA, 0, 1000, 0, 500);
        let requests = workload.preparation(100 << 10);
        let operations: usize = requests
            .iter()
            .map(|request| match regency_services::kv::Request::decode(request) {
                Ok(regency_services::kv::Request::Pipeline(operations)) => operations.len(),
                other => panic!("{other:?}"),
            })
            .sum();
        assert_eq!(operations, 500);
        assert!(requests.len() > 1 && requests.iter().all(|request| request.len() <= 100 << 10));
    }

    #[test]
    fn results_are_checked() {
        let workload = Workload::new(WorkloadName::Null, 0, 0, 10, 0);
        assert_eq!(workload.check(&Step::Null, &Bytes::from_static(&[0; 10])), Some(String::new()));
        assert_eq!(workload.check(&Step::Null, &Bytes::new()), None);
        let counted = counter::Answer::Value(7).encode();
        assert_eq!(workload.check(&Step::Add(1), &counted), Some("7".to_owned()));
        assert_eq!(workload.check(&Step::Read(1), &Bytes::from_static(b"nonsense")), None);
    }
}
