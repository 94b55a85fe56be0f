//! The cluster that is damaged: brought into a state with snapshots and a log, damaged, started again, and looked at.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::files::{Files, replace_folder, tear_tail};
use super::kind::{Demand, Fate, Harm, Kind, Target};
use crate::binary::Binary;
use crate::failover::history;
use crate::failover::replicas::{Replicas, Setup, is_normal};
use crate::random::Random;
use crate::trial::clients::{Bench, Clients};
use crate::trial::{self, REPLICAS};

/// Replicas that a decision takes.
const QUORUM: usize = 3;
/// How long a load takes: into it the damage of a case falls.
const LOAD: Duration = Duration::from_millis(1000);
/// How long it takes to make the state that cases begin with.
const FIRST_LOAD: Duration = Duration::from_millis(1500);
/// By then a damaged replica must have healed.
const HEAL_LIMIT: Duration = Duration::from_secs(30);
/// By then one that need not heal has shown what becomes of it.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);
/// So long it has to say the same.
const SETTLED_AFTER: Duration = Duration::from_secs(1);
const LOOK_PERIOD: Duration = Duration::from_millis(50);
/// What a replica says of itself while it reads its log: it is not judged yet.
const READING: &str = "reads its log";
/// What a replica says that has lost its votes.
const LOST: &str = "state-lost: ";
/// What a replica may end with that finds its directory damaged, or another's.
const REFUSALS: [&str; 4] = ["E106", "E119", "E121", "E132"];
/// The first bytes of what is an error code.
const CODE_BYTES: usize = 4;

/// Peers that retain everything: a replica that has lost its state may follow from the beginning.
const RETAINING: Setup<'_> =
    Setup { settings: &["checkpoint_interval=50", "retained_bytes=16777216"], ..trial::SETUP };
/// Peers that retain little: it needs their snapshots.
const FORGETTING: Setup<'_> =
    Setup { settings: &["checkpoint_interval=50", "retained_bytes=65536"], ..trial::SETUP };

/// What is demanded of damaged replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// What their kind of damage says.
    Heals,
    /// That they do no harm.
    Survives,
}

/// A cluster that goes from case to case.
pub(super) struct Subject {
    replicas: Replicas,
    clients: Bench,
    scratch: PathBuf,
    random: Random,
    care: Care,
    /// What the case at hand demands.
    demand: Demand,
    /// Whether every replica takes part, and none has forgotten anything.
    is_whole: bool,
    replies: usize,
    /// The replicas that the last case damaged.
    last_damaged: Vec<usize>,
}

impl Subject {
    /// A new cluster below `scratch`, with snapshots and two log segments at each replica.
    pub(super) fn new(binary: &Binary, scratch: &Path, random: Random, care: Care) -> Result<Self> {
        let setup = match care {
            Care::Heals => &FORGETTING,
            Care::Survives => &RETAINING,
        };
        let mut replicas = Replicas::start(binary, scratch, setup)?;
        let mut clients = Bench::new(binary.clone(), scratch.join("record"));
        clients.begin(&replicas, FIRST_LOAD)?;
        clients.end()?;
        (0..REPLICAS).try_for_each(|replica| replicas.kill(replica))?;
        // A torn tail makes a replica go on in another segment.
        let mut subject = Self {
            replicas,
            clients,
            scratch: scratch.to_owned(),
            random,
            care,
            demand: Demand::Safety,
            is_whole: false,
            replies: 0,
            last_damaged: Vec::new(),
        };
        for replica in 0..REPLICAS {
            tear_tail(&subject.data(replica), &mut subject.random)?;
        }
        subject.replicas.launch(None)?;
        subject.replicas.await_service()?;
        subject.clients.begin(&subject.replicas, FIRST_LOAD)?;
        subject.clients.end()?;
        subject.replicas.await_agreement(REPLICAS)?;
        (0..REPLICAS).try_for_each(|replica| subject.replicas.stop(replica))?;
        replace_folder(Path::new(subject.replicas.directory()), &subject.template())?;
        Ok(subject)
    }

    /// Replies of clients that were checked.
    pub(super) fn replies(&self) -> usize {
        self.replies
    }

    /// Goes through one case; what became of the replicas that were damaged.
    pub(super) fn bear(&mut self, kind: Kind) -> Result<Vec<Fate>> {
        if !self.is_whole {
            self.renew()?;
        }
        self.demand = match self.care {
            Care::Heals => kind.demand(),
            Care::Survives => Demand::Safety,
        };
        let fates = match kind {
            Kind::File(harm, target) => vec![self.one(|files, random| files.harm(harm, target, random))?],
            Kind::OldDirectory => vec![self.one(|files, _| {
                replace_folder(files.old, files.own)?;
                Ok("the whole directory".to_owned())
            })?],
            Kind::Everywhere => self.all(false)?,
            Kind::EveryLog => self.all(true)?,
        };
        for fate in &fates {
            ensure!(fate.meets(self.demand), "a damaged replica must heal and is {fate}");
        }
        let is_good = |fate: &Fate| match self.care {
            Care::Heals => fate.takes_part(),
            // What others gave it may not have reached its disk.
            Care::Survives => *fate == Fate::Recovered,
        };
        self.is_whole = !kind.is_spent() && fates.iter().all(is_good);
        if self.is_whole && fates.contains(&Fate::Healed) {
            self.check_kept(&fates)?;
        }
        Ok(fates)
    }

    /// Puts the state that cases begin with back, at all replicas at once.
    fn renew(&mut self) -> Result<()> {
        self.replicas.end();
        replace_folder(&self.template(), Path::new(self.replicas.directory()))?;
        self.replicas.launch(None)?;
        self.replicas.await_service()?;
        self.replicas.await_agreement(REPLICAS)
    }

    /// What has healed comes back from its own disk the next time.
    fn check_kept(&mut self, fates: &[Fate]) -> Result<()> {
        let everyone: Vec<usize> = (0..REPLICAS).collect();
        for replica in self.last_damaged.clone() {
            let said = self.log_bytes(replica)?;
            self.replicas.kill(replica)?;
            self.replicas.restart(replica)?;
            let fate = self.fate(replica, &everyone, said)?;
            ensure!(
                fate == Fate::Recovered,
                "replica {replica} had healed and is {fate} after a restart: {fates:?}"
            );
        }
        self.replicas.await_agreement(REPLICAS)
    }

    /// Damage to one replica while the others serve.
    fn one(&mut self, harm: impl FnOnce(&Files<'_>, &mut Random) -> Result<String>) -> Result<Fate> {
        let victim = self.random.place(REPLICAS);
        self.last_damaged = vec![victim];
        let others: Vec<usize> = (0..REPLICAS).filter(|replica| *replica != victim).collect();
        let base = self.replicas.value()?;
        self.clients.begin(&self.replicas, LOAD)?;
        trial::pause(&mut self.random);
        let how = self.take_down(victim)?;
        let own = self.data(victim);
        let old = self.old(victim);
        let other = *self.random.pick(&others).context("no other replica")?;
        let other = self.data(other);
        let done = harm(&Files { own: &own, old: &old, other: &other }, &mut self.random)?;
        let said = self.log_bytes(victim)?;
        self.replicas.restart(victim)?;
        let look = |subject: &mut Self| {
            let told = subject.clients.end()?;
            subject.replicas.await_agreement_among(&others)?;
            subject.replies += told.len();
            history::check_since(base, told, subject.replicas.value()?)?;
            subject.fate(victim, &others, said)
        };
        let fate = look(self).with_context(|| format!("replica {victim} {how}, {done}"))?;
        eprintln!("replica {victim} {how}, {done}: {fate}");
        Ok(fate)
    }

    /// Damage to all replicas while none runs: their logs in disjoint places, or one log and the others' snapshots.
    fn all(&mut self, is_every_log: bool) -> Result<Vec<Fate>> {
        let told = self.load()?;
        self.last_damaged = (0..REPLICAS).collect();
        let unlucky = self.random.place(REPLICAS);
        let mut done = String::new();
        let mut said = [0; REPLICAS];
        for (replica, said) in said.iter_mut().enumerate() {
            let how = self.take_down(replica)?;
            *said = self.log_bytes(replica)?;
            let (own, old) = (self.data(replica), self.old(replica));
            let files = Files { own: &own, old: &old, other: &own };
            let random = &mut self.random;
            let harm = *random.pick(&Harm::ALONE).context("no harm")?;
            let what = if is_every_log {
                let harm = if harm == Harm::Flip { Harm::Flip } else { Harm::Zero };
                files.harm_log_part(harm, replica as u64, REPLICAS as u64, random)?
            } else if replica == unlucky {
                files.harm(harm, Target::Segment, random)?
            } else {
                let target = if random.below(2) == 0 { Target::SnapshotData } else { Target::Manifest };
                files.harm(harm, target, random)?
            };
            done += &format!("replica {replica} {how}, {what}; ");
        }
        self.replicas.launch(None)?;
        let fates = self.look_at_all(told, said).with_context(|| done.clone())?;
        eprintln!("{done}{fates:?}");
        Ok(fates)
    }

    fn look_at_all(&mut self, told: u64, said: [u64; REPLICAS]) -> Result<Vec<Fate>> {
        let everyone: Vec<usize> = (0..REPLICAS).collect();
        let mut fates = Vec::new();
        for (replica, said) in said.into_iter().enumerate() {
            fates.push(self.fate(replica, &everyone, said)?);
        }
        let taking_part: Vec<usize> = (0..REPLICAS).filter(|replica| fates[*replica].takes_part()).collect();
        if taking_part.len() < QUORUM {
            ensure!(self.replicas.value().is_err(), "the counter is told without a quorum that knows it");
            return Ok(fates);
        }
        self.replicas.await_agreement_among(&taking_part)?;
        let found = self.replicas.value()?;
        ensure!(found == told, "the counter was {told} and is {found}");
        self.load()?;
        Ok(fates)
    }

    /// A load without a blow; the counter's value after it.
    fn load(&mut self) -> Result<u64> {
        let base = self.replicas.value()?;
        self.clients.start(&self.replicas, LOAD / 2)?;
        let told = self.clients.end()?;
        let last = self.replicas.value()?;
        self.replies += told.len();
        history::check_since(base, told, last)?;
        Ok(last)
    }

    /// Stops a replica in order or without a warning; says which.
    fn take_down(&mut self, replica: usize) -> Result<&'static str> {
        if self.random.below(2) == 0 {
            self.replicas.stop(replica)?;
            return Ok("stopped");
        }
        self.replicas.kill(replica)?;
        Ok("killed")
    }

    /// Waits for what becomes of a damaged replica beside these others.
    fn fate(&mut self, victim: usize, others: &[usize], said: u64) -> Result<Fate> {
        let limit = match self.demand {
            Demand::Heal | Demand::HealOrRefuse => HEAL_LIMIT,
            Demand::Safety => SETTLE_LIMIT,
        };
        let begun = Instant::now();
        let mut seen = (Value::Null, Value::Null);
        let mut since = begun;
        loop {
            if let Some(status) = self.replicas.ending(victim)? {
                return self.refusal(victim, status, said);
            }
            let rows = self.replicas.rows()?;
            let row = rows.get(victim).context("no such replica")?;
            let state = row["state"].as_str().unwrap_or("unreachable").to_owned();
            let peers: Vec<&Value> = others.iter().filter_map(|other| rows.get(*other)).collect();
            if takes_part(row, &peers)? {
                let has_lost = self.log_since(victim, said)?.contains(LOST);
                return Ok(if has_lost { Fate::Healed } else { Fate::Recovered });
            }
            let now = (row["state"].clone(), row["executed"].clone());
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            let reason = row["readiness"]["reason"].as_str().unwrap_or_default();
            let is_lost = ["state-lost", "recovering"].contains(&state.as_str()) && !reason.contains(READING);
            if self.demand == Demand::Safety && is_lost && since.elapsed() >= SETTLED_AFTER {
                return Ok(Fate::Apart(state));
            }
            // One that still gets further is not judged yet.
            let is_still = since.elapsed() >= SETTLED_AFTER || begun.elapsed() >= HEAL_LIMIT;
            if begun.elapsed() >= limit && is_still {
                eprintln!("replica {victim} is behind: {row}");
                return Ok(Fate::Apart(format!("{state}, behind")));
            }
            thread::sleep(LOOK_PERIOD);
        }
    }

    /// What a replica said when it ended.
    fn refusal(&self, replica: usize, status: ExitStatus, said: u64) -> Result<Fate> {
        let log = fs::read(self.replicas.log(replica))?;
        let text =
            String::from_utf8_lossy(log.get(usize::try_from(said)?..).unwrap_or_default()).into_owned();
        let code = text.lines().rev().find_map(error_code);
        match code {
            Some(code) if status.code().is_some() && REFUSALS.contains(&code) => {
                Ok(Fate::Refused(code.to_owned()))
            }
            Some(_) | None => bail!("replica {replica} ended with {status}: {text}"),
        }
    }

    /// What a replica has written to standard error after so many bytes.
    fn log_since(&self, replica: usize, said: u64) -> Result<String> {
        let log = fs::read(self.replicas.log(replica))?;
        let since = log.get(usize::try_from(said)?..).unwrap_or_default();
        Ok(String::from_utf8_lossy(since).into_owned())
    }

    fn log_bytes(&self, replica: usize) -> Result<u64> {
        Ok(fs::metadata(self.replicas.log(replica))?.len())
    }

    fn data(&self, replica: usize) -> PathBuf {
        self.replicas.home(replica).join("data")
    }

    fn template(&self) -> PathBuf {
        self.scratch.join("template")
    }

    /// A replica's data directory as it was when the cases began.
    fn old(&self, replica: usize) -> PathBuf {
        self.template().join(format!("replica-{replica}")).join("data")
    }
}

/// Whether a replica takes part and is as far as a peer that does; an error if it has another history than any.
fn takes_part(row: &Value, peers: &[&Value]) -> Result<bool> {
    let mut is_level = false;
    for peer in peers.iter().filter(|peer| is_normal(peer)) {
        let is_as_far = !row["executed"].is_null() && row["executed"] == peer["executed"];
        ensure!(!is_as_far || row["chain"] == peer["chain"], "diverged: {row} and {peer}");
        is_level |= is_as_far && row["regency"] == peer["regency"];
    }
    Ok(is_level && is_normal(row))
}

/// The error code with which a line begins.
fn error_code(line: &str) -> Option<&str> {
    let code = line.get(..CODE_BYTES).filter(|_| line.as_bytes().get(CODE_BYTES) == Some(&b' '))?;
    let digits = code.strip_prefix('E')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(code)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn another_history_at_the_same_height_is_found() {
        let row =
            |chain: &str, state: &str| json!({"state": state, "executed": 7, "regency": 0, "chain": chain});
        let peer = row("aa", "normal");
        assert!(takes_part(&row("aa", "normal"), &[&peer]).unwrap());
        assert!(!takes_part(&row("aa", "state-lost"), &[&peer]).unwrap());
        assert!(takes_part(&row("bb", "state-lost"), &[&peer]).unwrap_err().to_string().contains("diverged"));
        let behind = json!({"state": "normal", "executed": 6, "regency": 0, "chain": "cc"});
        assert!(!takes_part(&behind, &[&peer]).unwrap());
    }

    #[test]
    fn codes_are_found_at_the_beginning_of_a_line_only() {
        assert_eq!(error_code("E121 data directory: wrong directory?"), Some("E121"));
        assert_eq!(error_code("Everything is fine"), None);
        assert_eq!(error_code("2026 E121 x"), None);
    }
}
