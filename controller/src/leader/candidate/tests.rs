use super::*;
use proptest::prelude::*;
use std::{cmp::Reverse, collections::BinaryHeap};

const DURATION: Duration = Duration::from_secs(30);

fn config(holder: &str) -> LeaseConfig {
    LeaseConfig {
        name: "towline".into(),
        namespace: None,
        holder: holder.into(),
        duration: DURATION,
    }
}

fn s(seconds: u64) -> Moment {
    Moment::from_secs(seconds)
}

/// The API server's part: one Lease, optimistic concurrency.
#[derive(Default)]
struct Server {
    lease: Option<Lease>,
    version: u64,
}

impl Server {
    fn do_it(&mut self, call: &Call) -> Answer {
        let store = |this: &mut Self, lease: &Lease| {
            this.version += 1;
            let mut lease = lease.clone();
            lease.metadata.resource_version = Some(this.version.to_string());
            this.lease = Some(lease.clone());
            Answer::Lease(Box::new(lease))
        };
        match (call, &self.lease) {
            (Call::Read(_) | Call::Replace(_), None) => Answer::Missing,
            (Call::Read(_), Some(lease)) => Answer::Lease(Box::new(lease.clone())),
            (Call::Create(_), Some(_)) => Answer::Conflict,
            (Call::Create(lease), None) => store(self, lease),
            (Call::Replace(new), Some(old)) => {
                if new.metadata.resource_version == old.metadata.resource_version {
                    store(self, new)
                } else {
                    Answer::Conflict
                }
            }
        }
    }
}

/// One question, answered at once. Says how long to wait, or that the Lease was lost.
fn turn(candidate: &mut Candidate, server: &mut Server, now: Moment) -> Result<Duration, String> {
    let call = candidate.next(now, Timestamp::UNIX_EPOCH);
    let answer = server.do_it(&call);
    candidate
        .answered(now, now, &call, answer)
        .map_err(|lost| lost.to_string())
}

fn leads(candidate: &Candidate, now: Moment) -> bool {
    candidate.leads_until().is_some_and(|until| now < until)
}

fn spec(server: &Server) -> LeaseSpec {
    server.lease.clone().unwrap().spec.unwrap()
}

#[test]
fn the_first_makes_the_lease_and_renews_it() {
    let (mut a, mut server) = (Candidate::new(&config("a")), Server::default());
    turn(&mut a, &mut server, s(0)).unwrap();
    assert!(server.lease.is_none() && !leads(&a, s(0)));
    assert_eq!(turn(&mut a, &mut server, s(1)).unwrap(), s(5));
    assert!(leads(&a, s(20)) && !leads(&a, s(21)));
    let made = spec(&server);
    assert_eq!(made.holder_identity.as_deref(), Some("a"));
    assert_eq!(made.lease_duration_seconds, Some(30));
    turn(&mut a, &mut server, s(6)).unwrap();
    assert!(leads(&a, s(25)));
    assert_eq!(spec(&server).lease_transitions, made.lease_transitions);
}

#[test]
fn another_takes_over_when_the_whole_duration_has_passed_without_a_change() {
    let mut server = Server::default();
    let (mut a, mut b) = (Candidate::new(&config("a")), Candidate::new(&config("b")));
    turn(&mut a, &mut server, s(0)).unwrap();
    turn(&mut a, &mut server, s(1)).unwrap();
    // b's clock began elsewhere, and b looks first when a has been silent for long.
    let late = s(1000);
    assert_eq!(turn(&mut b, &mut server, late).unwrap(), s(5));
    turn(&mut b, &mut server, late + s(29)).unwrap();
    assert!(!leads(&b, late + s(29)));
    assert_eq!(turn(&mut b, &mut server, late + s(30)).unwrap(), s(5));
    assert!(leads(&b, late + s(30)));
    assert_eq!(spec(&server).holder_identity.as_deref(), Some("b"));
    assert_eq!(spec(&server).lease_transitions, Some(2));
    // a was frozen all the while: it learns by its clock, before it asks anybody.
    assert!(!leads(&a, s(31)));
    let lost = a.check(s(31)).unwrap_err().to_string();
    assert!(lost.contains("could not be renewed within 20 s"), "{lost}");
}

#[test]
fn a_renewal_that_others_see_keeps_them_waiting() {
    let mut server = Server::default();
    let (mut a, mut b) = (Candidate::new(&config("a")), Candidate::new(&config("b")));
    turn(&mut a, &mut server, s(0)).unwrap();
    for second in (1..600).step_by(5) {
        turn(&mut a, &mut server, s(second)).unwrap();
        turn(&mut b, &mut server, s(second + 2)).unwrap();
        assert!(leads(&a, s(second + 2)) && !leads(&b, s(second + 2)));
    }
}

#[test]
fn who_finds_another_in_its_place_is_lost_at_once() {
    let mut server = Server::default();
    let mut a = Candidate::new(&config("a"));
    turn(&mut a, &mut server, s(0)).unwrap();
    turn(&mut a, &mut server, s(0)).unwrap();
    let mut lease = server.lease.clone().unwrap();
    lease.spec.as_mut().unwrap().holder_identity = Some("b".into());
    server.do_it(&Call::Replace(Box::new(lease)));
    // The renewal names a version that is gone; what stands there now is read.
    turn(&mut a, &mut server, s(5)).unwrap();
    let lost = turn(&mut a, &mut server, s(6)).unwrap_err();
    assert!(lost.contains("held by b"), "{lost}");
}

#[test]
fn a_lost_answer_costs_nothing() {
    let mut server = Server::default();
    let mut a = Candidate::new(&config("a"));
    turn(&mut a, &mut server, s(0)).unwrap();
    turn(&mut a, &mut server, s(0)).unwrap();
    let renewal = a.next(s(5), Timestamp::UNIX_EPOCH);
    server.do_it(&renewal);
    let failed = Answer::Failed("timeout".into());
    assert_eq!(a.answered(s(5), s(10), &renewal, failed).unwrap(), s(5));
    // Conflict with our own write, a look, and the renewal.
    for second in [15, 16, 17] {
        turn(&mut a, &mut server, s(second)).unwrap();
    }
    assert!(leads(&a, s(36)));
}

#[test]
fn questions_and_pauses_end_with_the_term() {
    let mut server = Server::default();
    let mut a = Candidate::new(&config("a"));
    turn(&mut a, &mut server, s(0)).unwrap();
    turn(&mut a, &mut server, s(0)).unwrap();
    assert_eq!(a.patience(s(0)), s(5));
    assert_eq!(a.patience(s(18)), s(2));
    let call = a.next(s(18), Timestamp::UNIX_EPOCH);
    let failed = Answer::Failed("timeout".into());
    assert_eq!(a.answered(s(18), s(19), &call, failed).unwrap(), s(1));
    assert!(a.check(s(20)).is_err());
}

#[test]
fn a_lease_that_was_given_back_is_taken_at_once() {
    let mut server = Server::default();
    let (mut a, mut b) = (Candidate::new(&config("a")), Candidate::new(&config("b")));
    turn(&mut a, &mut server, s(0)).unwrap();
    turn(&mut a, &mut server, s(0)).unwrap();
    turn(&mut b, &mut server, s(1)).unwrap();
    assert!(b.release(s(1), Timestamp::UNIX_EPOCH).is_none());
    let given = a.release(s(2), Timestamp::UNIX_EPOCH).unwrap();
    server.do_it(&Call::Replace(given));
    assert_eq!(spec(&server).lease_transitions, Some(1));
    assert_eq!(turn(&mut b, &mut server, s(2)).unwrap(), Duration::ZERO);
    turn(&mut b, &mut server, s(2)).unwrap();
    assert!(leads(&b, s(2)));
}

#[test]
fn what_is_not_ours_any_more_is_not_given_back() {
    let mut server = Server::default();
    let mut a = Candidate::new(&config("a"));
    turn(&mut a, &mut server, s(0)).unwrap();
    turn(&mut a, &mut server, s(0)).unwrap();
    assert!(a.release(s(19), Timestamp::UNIX_EPOCH).is_some());
    assert!(
        a.release(s(20), Timestamp::UNIX_EPOCH).is_none(),
        "too late"
    );
    let mut lease = server.lease.clone().unwrap();
    lease.spec.as_mut().unwrap().holder_identity = Some("b".into());
    a.saw(s(5), Box::new(lease));
    assert!(
        a.release(s(5), Timestamp::UNIX_EPOCH).is_none(),
        "another's"
    );
}

#[test]
fn whoever_is_started_again_under_its_name_goes_on_at_once() {
    let mut server = Server::default();
    let mut a = Candidate::new(&config("a"));
    turn(&mut a, &mut server, s(0)).unwrap();
    turn(&mut a, &mut server, s(0)).unwrap();
    let before = spec(&server).lease_transitions;
    let mut a = Candidate::new(&config("a"));
    assert_eq!(turn(&mut a, &mut server, s(3)).unwrap(), Duration::ZERO);
    turn(&mut a, &mut server, s(3)).unwrap();
    assert!(leads(&a, s(3)));
    assert_eq!(spec(&server).lease_transitions, before);
}

#[test]
fn a_holder_that_was_given_longer_is_waited_for_longer() {
    let mut server = Server::default();
    let mut a = Candidate::new(&LeaseConfig {
        duration: s(120),
        ..config("a")
    });
    let mut b = Candidate::new(&config("b"));
    turn(&mut a, &mut server, s(0)).unwrap();
    turn(&mut a, &mut server, s(0)).unwrap();
    turn(&mut b, &mut server, s(0)).unwrap();
    turn(&mut b, &mut server, s(119)).unwrap();
    assert!(leads(&a, s(79)) && !leads(&b, s(119)));
    turn(&mut b, &mut server, s(120)).unwrap();
    assert!(leads(&b, s(120)));
}

#[test]
fn a_lease_that_somebody_deletes_is_made_again_by_its_holder() {
    let mut server = Server::default();
    let (mut a, mut b) = (Candidate::new(&config("a")), Candidate::new(&config("b")));
    turn(&mut a, &mut server, s(0)).unwrap();
    turn(&mut a, &mut server, s(0)).unwrap();
    turn(&mut b, &mut server, s(1)).unwrap();
    server.lease = None;
    turn(&mut b, &mut server, s(2)).unwrap();
    turn(&mut b, &mut server, s(3)).unwrap();
    assert!(server.lease.is_none(), "b knows of a's claim");
    turn(&mut a, &mut server, s(5)).unwrap();
    turn(&mut a, &mut server, s(6)).unwrap();
    assert!(leads(&a, s(25)));
    turn(&mut b, &mut server, s(8)).unwrap();
    turn(&mut b, &mut server, s(10)).unwrap();
    assert!(!leads(&b, s(10)));
}

// Replicas, a server and a network in which anything may be slow, lost or frozen.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A replica asks its next question.
    Ask { replica: usize, life: u32 },
    /// A question reaches the server.
    Arrives { request: usize },
    /// The answer is there, or nobody waits for it any longer.
    Answered {
        request: usize,
        life: u32,
        timeout: bool,
    },
    /// A replica is started again.
    Start { replica: usize },
}

struct Request {
    replica: usize,
    life: u32,
    asked: Moment,
    call: Call,
    answer: Option<Answer>,
    over: bool,
}

struct Replica {
    candidate: Candidate,
    life: u32,
    /// What its clock shows at the beginning.
    offset: Duration,
    /// How fast its clock goes, per cent.
    rate: u32,
    frozen_until: Moment,
}

struct World {
    server: Server,
    replicas: Vec<Replica>,
    requests: Vec<Request>,
    events: BinaryHeap<Reverse<(Moment, u64, Event)>>,
    order: u64,
    dice: Vec<u8>,
    thrown: usize,
    now: Moment,
    /// From then on nothing goes wrong any more.
    quiet_from: Moment,
}

impl Replica {
    /// What its clock shows.
    fn clock(&self, now: Moment) -> Moment {
        self.offset + now * self.rate / 100
    }

    /// How long its timers take.
    fn timer(&self, duration: Duration) -> Duration {
        // Never too early, for a clock is read in whole nanoseconds.
        duration * 100 / self.rate + Duration::from_nanos(2)
    }
}

impl World {
    /// Below `sides`; 0, which stands for nothing special, once everything is quiet.
    fn throw(&mut self, sides: u8) -> u8 {
        if self.now >= self.quiet_from {
            return 0;
        }
        let die = self.dice[self.thrown % self.dice.len()];
        self.thrown += 1;
        die % sides
    }

    fn at(&mut self, time: Moment, event: Event) {
        self.order += 1;
        self.events.push(Reverse((time, self.order, event)));
    }

    /// Mostly short, now and then longer than any timer.
    fn delay(&mut self) -> Duration {
        match self.throw(12) {
            0..=7 => Duration::from_millis(20),
            8 => s(3),
            9 => s(9),
            10 => s(19),
            _ => s(45),
        }
    }

    fn start(&mut self, replica: usize) {
        let this = &mut self.replicas[replica];
        this.life += 1;
        this.candidate = Candidate::new(&config(&format!("replica-{replica}")));
        let (life, now) = (this.life, self.now);
        self.at(now, Event::Ask { replica, life });
    }

    /// The process is gone, and comes back after a while.
    fn end(&mut self, replica: usize) {
        let this = &mut self.replicas[replica];
        this.life += 1;
        this.candidate = Candidate::new(&config(&format!("replica-{replica}")));
        let again = self.now + self.delay();
        self.at(again, Event::Start { replica });
    }

    fn step(&mut self) -> bool {
        let Some(Reverse((time, _, event))) = self.events.pop() else {
            return false;
        };
        self.now = time;
        match event {
            Event::Start { replica } => self.start(replica),
            Event::Ask { replica, life } => self.ask(replica, life),
            Event::Arrives { request } => {
                let answer = self.server.do_it(&self.requests[request].call);
                self.requests[request].answer = Some(answer);
                let life = self.requests[request].life;
                // One in eight answers is lost.
                if self.throw(8) != 7 {
                    let at = self.now + self.delay();
                    self.at(
                        at,
                        Event::Answered {
                            request,
                            life,
                            timeout: false,
                        },
                    );
                }
            }
            Event::Answered {
                request,
                life,
                timeout,
            } => self.answered(request, life, timeout),
        }
        true
    }

    /// A frozen process does everything later; its clock goes on.
    fn thaw(&mut self, replica: usize, event: Event) -> bool {
        if self.throw(20) == 19 {
            self.replicas[replica].frozen_until = self.now + self.delay() * 2;
        }
        let until = self.replicas[replica].frozen_until;
        if until > self.now {
            self.at(until, event);
            return false;
        }
        true
    }

    fn ask(&mut self, replica: usize, life: u32) {
        if self.replicas[replica].life != life || !self.thaw(replica, Event::Ask { replica, life })
        {
            return;
        }
        match self.throw(40) {
            38 => return self.end(replica),
            39 => {
                let here = self.replicas[replica].clock(self.now);
                let given = self.replicas[replica]
                    .candidate
                    .release(here, Timestamp::UNIX_EPOCH);
                if let Some(lease) = given {
                    self.send(replica, here, Call::Replace(lease));
                }
                return self.end(replica);
            }
            _ => {}
        }
        let this = &self.replicas[replica];
        let asked = this.clock(self.now);
        if this.candidate.check(asked).is_err() {
            return self.end(replica);
        }
        let call = this.candidate.next(asked, Timestamp::UNIX_EPOCH);
        let patience = this.timer(this.candidate.patience(asked));
        let request = self.send(replica, asked, call);
        let timeout = self.now + patience;
        self.at(
            timeout,
            Event::Answered {
                request,
                life,
                timeout: true,
            },
        );
    }

    /// It arrives, however late, even when its sender has given up.
    fn send(&mut self, replica: usize, asked: Moment, call: Call) -> usize {
        self.requests.push(Request {
            replica,
            life: self.replicas[replica].life,
            asked,
            call,
            answer: None,
            over: false,
        });
        let request = self.requests.len() - 1;
        let at = self.now + self.delay();
        self.at(at, Event::Arrives { request });
        request
    }

    fn answered(&mut self, request: usize, life: u32, timeout: bool) {
        let replica = self.requests[request].replica;
        if self.replicas[replica].life != life || self.requests[request].over {
            return;
        }
        if !self.thaw(
            replica,
            Event::Answered {
                request,
                life,
                timeout,
            },
        ) {
            return;
        }
        let r = &mut self.requests[request];
        r.over = true;
        let answer = match (timeout, r.answer.take()) {
            (false, Some(answer)) => answer,
            _ => Answer::Failed("no answer".into()),
        };
        let this = &mut self.replicas[replica];
        let here = this.clock(self.now);
        match this.candidate.answered(r.asked, here, &r.call, answer) {
            Ok(pause) => {
                let at = self.now + this.timer(pause);
                self.at(at, Event::Ask { replica, life });
            }
            Err(_) => self.end(replica),
        }
    }

    fn leaders(&self) -> Vec<usize> {
        let leads = |r: &Replica| leads(&r.candidate, r.clock(self.now));
        (0..self.replicas.len())
            .filter(|i| leads(&self.replicas[*i]))
            .collect()
    }
}

proptest! {
    /// Requests and answers that are slow, late or lost, processes that freeze, die, go and come
    /// back, clocks of which one shows another time than the other and goes a fifth faster.
    #[test]
    fn two_never_lead_at_once_and_one_does_in_the_end(
        dice in proptest::collection::vec(any::<u8>(), 50..400),
        count in 2_usize..4,
    ) {
        let mut world = World {
            server: Server::default(), replicas: Vec::new(), requests: Vec::new(),
            events: BinaryHeap::new(), order: 0, dice, thrown: 0,
            now: s(0), quiet_from: s(1800),
        };
        for replica in 0..count {
            world.replicas.push(Replica {
                candidate: Candidate::new(&config("nobody")), life: 0,
                offset: s(1000 * replica as u64), rate: [100, 90, 110][replica % 3], frozen_until: s(0),
            });
            world.start(replica);
        }
        let mut led = false;
        while world.now < s(2400) && world.step() {
            let leaders = world.leaders();
            led |= !leaders.is_empty();
            prop_assert!(leaders.len() <= 1, "at {:?}: {leaders:?}", world.now);
        }
        prop_assert!(led);
        prop_assert_eq!(world.leaders().len(), 1);
    }
}
