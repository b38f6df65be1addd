//! A simulation of a lane whose jobs call destinations, by a clock of its own: jobs take permits
//! of the lane in turn, ask, call, are held and are released a few at a time, as workers, governor
//! and store do it.

mod runs;

use std::collections::VecDeque;

use super::destination::Why;
use super::*;

const TICK: Duration = Duration::from_millis(5);
/// The deadline of a call.
const DEADLINE: Duration = Duration::from_secs(10);
const QUICK: Duration = Duration::from_millis(20);
const HOST: &str = "dev.azure.com";

/// A moment, as the time since the start of the run.
type At = Duration;
/// How long a call takes that begins at a moment; `None` if it is not answered.
type Answers = Box<dyn FnMut(At) -> Option<Duration>>;

/// A tenant's jobs, all alike, and the destination that they call.
struct Tenant {
    scope: Scope,
    answers: Answers,
    /// When its jobs arrive.
    comes: At,
    /// The calls of one job, one after the other.
    calls: usize,
    /// The jobs that wait for a permit of the lane, each with the number of its remaining calls.
    queue: VecDeque<usize>,
    /// The holds of the destination and of its permits.
    holds: [Hold; 2],
    done: usize,
}

/// A hold, and the jobs that wait for it.
#[derive(Default)]
struct Hold {
    until: Option<Instant>,
    waiting: VecDeque<usize>,
    /// How many were released last.
    step: usize,
    stepped: Option<Instant>,
}

/// A job with a permit of the lane.
struct Job {
    tenant: usize,
    left: usize,
    since: Instant,
    /// The call in flight, its end and its result.
    call: Option<(AdmittedCall, Instant, CallResult)>,
}

struct Simulation {
    states: DestinationStates,
    start: Instant,
    now: Instant,
    permits: usize,
    tenants: Vec<Tenant>,
    jobs: Vec<Job>,
    turn: usize,
    /// Every hold: tenant, reason, time.
    holds: Vec<(usize, Why, At)>,
}

impl Tenant {
    /// Returns an organization with `jobs` jobs, each of which makes `calls` calls to a host.
    fn of_host(
        name: &str,
        jobs: usize,
        calls: usize,
        answers: impl FnMut(At) -> Option<Duration> + 'static,
    ) -> Self {
        Self::new(
            Scope::host(name, "azure_devops", HOST),
            jobs,
            calls,
            Box::new(answers),
        )
    }

    /// Returns a destination with `jobs` messages to deliver.
    fn of_messages(
        id: i64,
        jobs: usize,
        answers: impl FnMut(At) -> Option<Duration> + 'static,
    ) -> Self {
        Self::new(
            Scope::destination("acme", "webhook", id),
            jobs,
            1,
            Box::new(answers),
        )
    }

    fn new(scope: Scope, jobs: usize, calls: usize, answers: Answers) -> Self {
        let queue = std::iter::repeat_n(calls, jobs).collect();
        Self {
            scope,
            answers,
            comes: Duration::ZERO,
            calls,
            queue,
            holds: Default::default(),
            done: 0,
        }
    }

    fn coming(self, comes: At) -> Self {
        Self { comes, ..self }
    }
}

impl Hold {
    fn place(&mut self, until: Instant) {
        self.until = self.until.max(Some(until));
        (self.step, self.stepped) = (0, None);
    }

    fn is_in_force(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Returns the jobs that are released at `now`: four when the hold ends, then twice as many
    /// each second.
    fn let_go(&mut self, now: Instant) -> Vec<usize> {
        let is_time = self
            .stepped
            .is_none_or(|stepped| now >= stepped + seconds(1));
        if self.is_in_force(now) || self.waiting.is_empty() || !is_time {
            return Vec::new();
        }
        self.step = if self.step == 0 {
            4
        } else {
            (self.step * 2).min(64)
        };
        self.stepped = Some(now);
        self.waiting
            .drain(..self.step.min(self.waiting.len()))
            .collect()
    }
}

impl Simulation {
    /// Creates a lane with this number of permits.
    fn new(permits: usize, tenants: Vec<Tenant>) -> Self {
        // The rates are high, so that only permits limit the calls.
        let rates = Rates::parse("azure_devops=1000000/1,webhook=1000000/1").unwrap();
        let start = Instant::now();
        let (states, jobs, holds) = (
            DestinationStates::new(rates, Lanes::all(permits)),
            Vec::new(),
            Vec::new(),
        );
        Self {
            states,
            start,
            now: start,
            permits,
            tenants,
            jobs,
            turn: 0,
            holds,
        }
    }

    /// Runs until `until` after the start, and calls `look` at each tick.
    fn run(&mut self, until: Duration, mut look: impl FnMut(&Self)) {
        while self.now < self.start + until {
            self.end_calls();
            for tenant in &mut self.tenants {
                let let_go = tenant
                    .holds
                    .each_mut()
                    .map(|hold| hold.let_go(self.now))
                    .concat();
                tenant.queue.extend(let_go);
            }
            self.take_permits();
            self.ask();
            look(self);
            self.now += TICK;
        }
    }

    fn end_calls(&mut self) {
        let now = self.now;
        for mut job in std::mem::take(&mut self.jobs) {
            match job.call.take() {
                Some((call, end, outcome)) if now >= end => {
                    let place = self.states.of(&self.tenants[job.tenant].scope, now);
                    if let Some(request) =
                        place.count_out(call, now, |one, ticket| one.settle(ticket, outcome, now))
                    {
                        self.hold(job.tenant, request);
                    }
                    self.tenants[job.tenant].done += usize::from(outcome == CallResult::Done);
                    job.left -= usize::from(outcome == CallResult::Done);
                    job.since = now;
                    if job.left > 0 {
                        self.jobs.push(job);
                    } else {
                        let tenant = &mut self.tenants[job.tenant];
                        tenant.queue.push_back(tenant.calls);
                    }
                }
                call => self.jobs.push(Job { call, ..job }),
            }
        }
    }

    /// Gives the free permits to the tenants in turn.
    fn take_permits(&mut self) {
        let mut passed = 0;
        while self.jobs.len() < self.permits && passed < self.tenants.len() {
            let tenant = self.turn % self.tenants.len();
            self.turn += 1;
            passed += 1;
            let one = &mut self.tenants[tenant];
            let is_here = self.now >= self.start + one.comes;
            if let Some(left) = one.queue.pop_front_if(|_| is_here) {
                self.jobs.push(Job {
                    tenant,
                    left,
                    since: self.now,
                    call: None,
                });
                passed = 0;
            }
        }
    }

    fn ask(&mut self) {
        let now = self.now;
        for mut job in std::mem::take(&mut self.jobs) {
            if job.call.is_some() {
                self.jobs.push(job);
                continue;
            }
            let Tenant {
                scope,
                answers,
                holds,
                ..
            } = &mut self.tenants[job.tenant];
            let lane = scope.lane();
            let [held, held_for_permits] = holds.each_ref().map(|hold| hold.is_in_force(now));
            let place = self.states.of(scope, now);
            let asking = Asking {
                lane,
                active_count: self.states.active_count(&place, lane, now),
                since: job.since,
                now,
            };
            let let_out = if held {
                None
            } else {
                Some(place.let_out(asking))
            };
            let waits_for = match let_out {
                Some(Ok(call)) => {
                    let answer = answers(now - self.start);
                    let (after, outcome) = answer.map_or((DEADLINE, CallResult::Failed), |after| {
                        (after, CallResult::Done)
                    });
                    job.call = Some((call, now + after, outcome));
                    self.jobs.push(job);
                    continue;
                }
                None => 0,
                Some(Err(refused)) if held_for_permits && refused.is_for_permits() => 1,
                Some(Err(NotNow::Wait { .. })) => {
                    self.jobs.push(job);
                    continue;
                }
                Some(Err(NotNow::Hold(request))) => self.hold(job.tenant, request),
            };
            self.tenants[job.tenant].holds[waits_for]
                .waiting
                .push_back(job.left);
        }
    }

    /// Places a hold, and returns which of the tenant's two holds it is.
    fn hold(&mut self, tenant: usize, HoldRequest { why, length }: HoldRequest) -> usize {
        self.holds.push((tenant, why, self.now - self.start));
        let which = usize::from(why.is_for_permits());
        self.tenants[tenant].holds[which].place(self.now + length);
        which
    }

    fn under_way(&self, tenant: usize) -> usize {
        self.jobs
            .iter()
            .filter(|job| job.tenant == tenant && job.call.is_some())
            .count()
    }

    /// Returns how many calls of a tenant are answered between two moments.
    fn done_between(&mut self, tenant: usize, from: At, until: At) -> usize {
        self.run(from, |_| ());
        let before = self.tenants[tenant].done;
        self.run(until, |_| ());
        self.tenants[tenant].done - before
    }

    /// Returns the fewest and the most calls of a tenant that are in flight at any tick between
    /// two moments.
    fn under_way_between(&mut self, tenant: usize, from: At, until: At) -> (usize, usize) {
        self.run(from, |_| ());
        let mut seen = (usize::MAX, 0);
        self.run(until, |lane| {
            let count = lane.under_way(tenant);
            seen = (seen.0.min(count), seen.1.max(count));
        });
        seen
    }

    /// Returns the holds of destinations that were considered hanging.
    fn hanging(&self) -> Vec<(usize, Why, At)> {
        let hangs =
            |(_, why, _): &&(usize, Why, At)| matches!(why, Why::Hanging | Why::ProviderHangs);
        self.holds.iter().filter(hangs).copied().collect()
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Returns answers that take four to six seconds, at random.
fn calm(seed: u64) -> impl FnMut(At) -> Option<Duration> {
    let mut random = seed;
    move |_| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Some(Duration::from_millis(4000 + (random >> 33) % 2001))
    }
}

const fn quick(_: At) -> Option<Duration> {
    Some(QUICK)
}

const fn never(_: At) -> Option<Duration> {
    None
}
