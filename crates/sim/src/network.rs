//! The simulated network: when a frame arrives, how often, or never.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use bytes::Bytes;
use regency_protocol::ids::ReplicaId;

use crate::agenda::Moment;
use crate::random::Stream;
use crate::shrink::choices::Choices;
use crate::shrink::reduction::Kind;

/// Frames of the past that may come again.
const REMEMBERED_FRAMES_MAX: usize = 64;

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// A replica.
    Replica(ReplicaId),
    /// The client with this number.
    Client(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica(id) => write!(f, "replica {id}"),
            Self::Client(number) => write!(f, "client {number}"),
        }
    }
}

/// How the network treats every frame, until it heals. Shares are per mille.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// The shortest way, in µs.
    pub(crate) delay_min: Moment,
    /// The longest usual way.
    pub(crate) delay_max: Moment,
    /// How much longer the way is for each byte: large frames are slow on a thin network.
    pub(crate) per_byte: Moment,
    /// How many bytes travel at once: for frames up to this size `per_byte` does not count.
    pub(crate) free_bytes: usize,
    /// How many frames take much longer.
    pub(crate) late: u64,
    /// How many are lost.
    pub(crate) lost: u64,
    /// How many arrive twice.
    pub(crate) twice: u64,
    /// After how many a frame of the past comes again on its link.
    pub(crate) again: u64,
    /// Whether links keep the order of their frames.
    pub(crate) in_order: bool,
}

impl Weather {
    /// A quick network that does no harm.
    pub(crate) const FAIR: Self = Self {
        delay_min: 100,
        delay_max: 500,
        per_byte: 0,
        free_bytes: 0,
        late: 0,
        lost: 0,
        twice: 0,
        again: 0,
        in_order: true,
    };

    /// How much longer the way of a frame is for its size.
    fn on_the_way(&self, flight: &Flight) -> Moment {
        let bytes = flight.frame.len();
        if bytes > self.free_bytes { self.per_byte * bytes as u64 } else { 0 }
    }
}

/// A frame on its way.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    /// Who sent it.
    pub(crate) from: Place,
    /// To whom.
    pub(crate) to: Place,
    /// Its bytes.
    pub(crate) frame: Bytes,
}

/// What the network did with a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fate {
    /// It was lost.
    pub(crate) lost: bool,
    /// Its link was cut, so that it had to be.
    pub(crate) cut: bool,
    /// It arrives twice.
    pub(crate) twice: bool,
    /// It takes much longer than usual.
    pub(crate) late: bool,
    /// A frame of the past arrives again.
    pub(crate) again: bool,
}

/// All links.
pub(crate) struct Network {
    weather: Weather,
    healed: Weather,
    cuts: BTreeSet<(Place, Place)>,
    last_arrival: BTreeMap<(Place, Place), Moment>,
    past: VecDeque<Flight>,
    stream: Stream,
    /// How many frames it was given.
    frames: u64,
    /// `None` when it has healed: nothing goes wrong any more.
    choices: Option<Choices>,
    /// Whether every frame takes the shortest time.
    is_steady: bool,
}

impl Network {
    /// No link is cut.
    pub(crate) fn new(weather: Weather, healed: Weather, choices: Choices, stream: Stream) -> Self {
        Self {
            frames: 0,
            is_steady: choices.reduction().is_without(Kind::Jitter),
            choices: Some(choices),
            weather,
            healed,
            cuts: BTreeSet::new(),
            last_arrival: BTreeMap::new(),
            past: VecDeque::new(),
            stream,
        }
    }

    /// Cuts one direction of a link.
    pub(crate) fn cut(&mut self, from: Place, to: Place) {
        self.cuts.insert((from, to));
    }

    /// Joins one direction of a link.
    pub(crate) fn join(&mut self, from: Place, to: Place) {
        self.cuts.remove(&(from, to));
    }

    /// All links work from now on, as well as they ever do.
    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
        self.past.clear();
        self.choices = None;
        self.weather = Weather { in_order: self.weather.in_order, ..self.healed };
    }

    /// Takes a frame, and says through `arrive` what arrives when.
    pub(crate) fn send(
        &mut self,
        now: Moment,
        flight: Flight,
        arrive: &mut impl FnMut(Moment, Flight),
    ) -> Fate {
        let mut fate = Fate::default();
        let number = self.frames;
        self.frames += 1;
        if self.weather.again > 0 {
            if self.past.len() == REMEMBERED_FRAMES_MAX {
                self.past.pop_front();
            }
            self.past.push_back(flight.clone());
            let drawn = self.stream.per_mille(self.weather.again);
            fate.again = self.decide(Kind::Again, number, drawn, now, &flight);
            if drawn || fate.again {
                let place = self.stream.index(self.past.len());
                let old = self.past[place].clone();
                if !self.cuts.contains(&(old.from, old.to)) {
                    let at = now + self.stream.between(1, 200_000);
                    if fate.again {
                        arrive(at, old);
                    }
                }
            }
        }
        if self.cuts.contains(&(flight.from, flight.to)) {
            fate.lost = true;
            fate.cut = true;
            return fate;
        }
        // Chance draws all that it wants to; only then it is asked whether that counts.
        let drawn = self.stream.per_mille(self.weather.lost);
        fate.lost = self.decide(Kind::Lost, number, drawn, now, &flight);
        if drawn {
            if !fate.lost {
                let at = now + self.shortest(&flight);
                arrive(self.arrival(at, &flight), flight);
            }
            return fate;
        }
        let (way, late) = self.way(2 * number, now, &flight);
        let twice = self.weather.twice > 0 && self.stream.per_mille(self.weather.twice);
        let second = twice.then(|| self.way(2 * number + 1, now, &flight).0);
        if fate.lost {
            return fate;
        }
        fate.late = late;
        let at = self.arrival(now + way, &flight);
        fate.twice = self.decide(Kind::Twice, number, twice, now, &flight);
        if fate.twice {
            let way = second.unwrap_or_else(|| self.shortest(&flight));
            arrive(self.arrival(now + way, &flight), flight.clone());
        }
        arrive(at, flight);
        fate
    }

    /// Draws for a frame what [`Network::send`] would, and forgets it: what comes later is as if it had been sent.
    pub(crate) fn pass_over(&mut self, now: Moment, flight: Flight) {
        let choices = self.choices.take();
        self.send(now, flight, &mut |_, _| {});
        self.choices = choices;
    }

    fn decide(&self, kind: Kind, number: u64, drawn: bool, now: Moment, flight: &Flight) -> bool {
        self.choices.as_ref().map_or(drawn, |choices| choices.decide(kind, number, drawn, now, flight))
    }

    fn shortest(&self, flight: &Flight) -> Moment {
        self.weather.delay_min + self.weather.on_the_way(flight)
    }

    /// How long a frame is on its way, and whether that is much longer than usual.
    fn way(&mut self, number: u64, now: Moment, flight: &Flight) -> (Moment, bool) {
        let Weather { delay_min, delay_max, late, .. } = self.weather;
        let drawn = late > 0 && self.stream.per_mille(late);
        let is_late = self.decide(Kind::Late, number, drawn, now, flight);
        let longest = if is_late { delay_max.saturating_mul(50) } else { delay_max };
        let way = self.stream.between(delay_min, longest) + self.weather.on_the_way(flight);
        (if self.is_steady && !is_late { self.shortest(flight) } else { way }, is_late)
    }

    /// When a frame arrives that would arrive `at`, where links keep the order of their frames.
    fn arrival(&mut self, at: Moment, flight: &Flight) -> Moment {
        if !self.weather.in_order {
            return at;
        }
        let last = self.last_arrival.entry((flight.from, flight.to)).or_default();
        *last = at.max(*last);
        *last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: (Place, Place) = (Place::Replica(ReplicaId(0)), Place::Replica(ReplicaId(1)));

    fn arrivals(network: &mut Network, count: u8) -> Vec<(Moment, u8)> {
        let mut arrivals = Vec::new();
        for byte in 0..count {
            let flight = Flight { from: LINK.0, to: LINK.1, frame: Bytes::from(vec![byte]) };
            network.send(0, flight, &mut |at, flight| arrivals.push((at, flight.frame[0])));
        }
        arrivals
    }

    #[test]
    fn fair_weather_delivers_all_in_order() {
        let mut network =
            Network::new(Weather::FAIR, Weather::FAIR, Choices::default(), Stream::new(1, "network"));
        let arrivals = arrivals(&mut network, 100);
        assert_eq!(arrivals.len(), 100);
        assert!(arrivals.is_sorted());
    }

    #[test]
    fn a_cut_is_one_way_until_joined() {
        let mut network =
            Network::new(Weather::FAIR, Weather::FAIR, Choices::default(), Stream::new(1, "network"));
        network.cut(LINK.1, LINK.0);
        assert_eq!(arrivals(&mut network, 1).len(), 1);
        network.cut(LINK.0, LINK.1);
        assert_eq!(arrivals(&mut network, 1).len(), 0);
        network.join(LINK.0, LINK.1);
        assert_eq!(arrivals(&mut network, 1).len(), 1);
    }

    #[test]
    fn foul_weather_loses_repeats_and_reorders_until_it_heals() {
        let foul = Weather { lost: 200, twice: 200, again: 100, late: 100, in_order: false, ..Weather::FAIR };
        let mut network = Network::new(foul, Weather::FAIR, Choices::default(), Stream::new(1, "network"));
        let foul = arrivals(&mut network, 200);
        assert!(!foul.is_sorted());
        let mut bytes: Vec<u8> = foul.iter().map(|(_, byte)| *byte).collect();
        bytes.sort_unstable();
        assert!(bytes.windows(2).any(|pair| pair[0] == pair[1]));
        bytes.dedup();
        assert!(bytes.len() < 200);
        network.heal();
        assert_eq!(arrivals(&mut network, 100).len(), 100);
    }
}
