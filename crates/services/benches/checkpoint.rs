//! What a checkpoint costs the thread that executes, and what the structure that makes it cheap costs always.
//!
//! `cargo bench -p regency-services --bench checkpoint -- [KEYS]`, a million keys by default with values of 1 KiB.
//! Prints the pace of single operations, and for several paces of writing what a checkpoint took from the executor:
//! the call itself, the longest hundred operations while the image was written, the time that all of them took
//! beyond what they take alone, and beside a thread that only shares the machine, and how the resident size grew. Operations are timed by the thread's own processor time:
//! what other threads and processes take from it is not counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use regency::protocol::ids::{ClientId, Digest, InstanceId, Sequence, SessionId, ViewId};
use regency::protocol::time::Timestamp;
use regency::{Bytes, Context, Service};
use regency_services::kv::{KvService, Operation, RequestWriter};

const KEYS: u64 = 1_000_000;
const VALUE_BYTES: usize = 1024;
/// Operations whose time is taken together.
const BATCH: usize = 100;

fn main() {
    let keys = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(KEYS);
    let mut load = Load { service: KvService::default(), keys, random: 0x2545_f491_4f6c_dd1d, instance: 0 };
    let begun = Instant::now();
    (0..keys).for_each(|key| load.put(key));
    println!("{keys} keys filled in {:.2?}, {} MiB resident", begun.elapsed(), resident() >> 20);

    let count = keys.min(500_000);
    for (name, operation) in
        [("get", Load::get as fn(&mut Load, u64)), ("put", Load::put), ("increment", Load::increment)]
    {
        let took = load.time(count, operation);
        println!("{name:10} {:6.0} ns each, random keys", took.as_secs_f64() * 1e9 / count as f64);
    }
    for _ in 0..3 {
        for pace in [10_000, 50_000, u64::MAX] {
            load.checkpoint(pace);
        }
    }

    let mut image = Vec::new();
    load.service.snapshot().write(&mut image).expect("memory takes it");
    let begun = Instant::now();
    let mut restored = KvService::default();
    restored.restore(&mut &image[..]).expect("an image of the service's own");
    println!("restored from {} MiB in {:.2?}", image.len() >> 20, begun.elapsed());
}

struct Load {
    service: KvService,
    keys: u64,
    random: u64,
    instance: u64,
}

impl Load {
    fn key(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % self.keys
    }

    fn get(&mut self, key: u64) {
        self.execute(&Operation::Get { key: &name(key) });
    }

    fn put(&mut self, key: u64) {
        self.execute(&Operation::put(&name(key), &[b'v'; VALUE_BYTES]));
    }

    fn increment(&mut self, key: u64) {
        // Few enough that the values of the others stay as long as they are.
        let name = [&b"number:"[..], &name(key % 1000)].concat();
        self.execute(&Operation::Increment { key: &name, by: 1 });
    }

    fn execute(&mut self, operation: &Operation<'_>) {
        self.instance += 1;
        let context = Context {
            timestamp: Timestamp(self.instance),
            client: ClientId::default(),
            session: SessionId::NONE,
            sequence: Sequence(0),
            view: ViewId(0),
            instance: InstanceId(self.instance),
            position: 0,
            is_last: true,
            chain: Digest::default(),
        };
        let reply: Bytes = self.service.execute(&context, &RequestWriter::single(operation));
        assert!(!reply.is_empty());
    }

    /// How long `count` operations on random keys take.
    fn time(&mut self, count: u64, operation: fn(&mut Self, u64)) -> Duration {
        let begun = on_processor();
        for _ in 0..count {
            let key = self.key();
            operation(self, key);
        }
        on_processor() - begun
    }

    /// Puts at `pace` operations a second: alone, beside a thread that hashes something else, and while an image
    /// is written.
    fn checkpoint(&mut self, pace: u64) {
        let second = |elapsed| elapsed > Duration::from_secs(1);
        let alone = self.puts(pace, second);
        let is_over = AtomicBool::new(false);
        let beside = thread::scope(|scope| {
            scope.spawn(|| {
                let other = vec![7; 64 << 20];
                while !is_over.load(Ordering::Acquire) {
                    other.chunks(64 << 10).for_each(|chunk| drop(Sink::default().write(chunk)));
                }
            });
            let beside = self.puts(pace, second);
            is_over.store(true, Ordering::Release);
            beside
        });

        let (before, mut peak, is_written) = (resident(), 0, AtomicBool::new(false));
        let begun = on_processor();
        let snapshot = self.service.snapshot();
        let froze = on_processor() - begun;
        let (during, written) = thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let begun = Instant::now();
                snapshot.write(&mut Sink::default()).expect("nothing fails");
                is_written.store(true, Ordering::Release);
                begun.elapsed()
            });
            let during = self.puts(pace, |_| {
                peak = peak.max(resident());
                is_written.load(Ordering::Acquire)
            });
            (during, writer.join().expect("the writer ends"))
        });
        let more_than = |usual: &Puts| (during.each() - usual.each()) * during.count as f64 * 1e3;
        println!(
            "checkpoint at {:>6} puts/s: frozen in {froze:.1?}, written in {written:.2?}; {} puts took {:.0} ns \
             each, {:.0} alone, {:.0} beside another thread that hashes: {:+.1} and {:+.1} ms in all; the longest \
             {BATCH} {:.2?}, {:.2?} alone; {:+.1} % resident",
            if pace == u64::MAX { "all".to_owned() } else { pace.to_string() },
            during.count,
            during.each() * 1e9,
            alone.each() * 1e9,
            beside.each() * 1e9,
            more_than(&alone),
            more_than(&beside),
            during.worst,
            alone.worst,
            (peak as f64 / before as f64 - 1.0) * 100.0,
        );
    }

    fn puts(&mut self, pace: u64, mut is_done: impl FnMut(Duration) -> bool) -> Puts {
        let (begun, mut puts) = (Instant::now(), Puts::default());
        while !is_done(begun.elapsed()) {
            let due = Duration::from_secs_f64(puts.count as f64 / pace as f64);
            if let Some(early) = due.checked_sub(begun.elapsed()) {
                thread::sleep(early);
            }
            let took = self.time(BATCH as u64, Self::put);
            puts.busy += took;
            puts.worst = puts.worst.max(took);
            puts.count += BATCH as u64;
        }
        puts
    }
}

#[derive(Default)]
struct Puts {
    count: u64,
    busy: Duration,
    worst: Duration,
}

impl Puts {
    fn each(&self) -> f64 {
        self.busy.as_secs_f64() / self.count as f64
    }
}

/// Takes an image as a background thread does that hashes what it writes.
#[derive(Default)]
struct Sink(blake3::Hasher);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How long this thread has run.
fn on_processor() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("processor time is never negative")
}

/// Keys that are spread over the whole order, as those of a hash would be.
fn name(key: u64) -> Vec<u8> {
    format!("key:{:016x}", key.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into_bytes()
}

/// Bytes of memory that this process holds.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}
