//! Why a task waits: the first thing that has to change before it can start, as one plain sentence for its creator or
//! for an operator. Called by the API for one task at a time; the caller counts, this decides and words it.
//!
//! The text of a failure comes in as it may be shown: public text, without what only a log should hold.

use reelyard_model::{TaskState, Tier, work::TaskKind};
use std::fmt::Write as _;

/// Of a failure's text so much goes into the sentence: the rest is in the task's own page.
const LONGEST_FAILURE_CHARS: usize = 200;

/// What is known of one task. Counts that do not apply to its state may be left at 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub state: TaskState,
    pub kind: TaskKind,
    pub tier: Tier,
    /// Of a blocked task: what it needs, kind by kind.
    pub needs: Vec<Need>,
    /// Of one in `retry_wait`.
    pub last_try: Option<LastTry>,
    /// Of its queue, when that is paused.
    pub paused: Option<Pause>,
    pub tenant_running: u32,
    pub tenant_cap: Option<u32>,
    /// Workers that are connected and take this kind.
    pub workers: u32,
    /// Of these, the ones that take nothing new because they are paused or being drained.
    pub workers_draining: u32,
    pub ahead: Ahead,
}

/// Tasks of the same kind that go first, by tier and then age. Fairness between tenants may change that order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    pub in_higher_tiers: u64,
    pub in_its_tier: u64,
    /// Of those in its tier, the ones of its own tenant.
    pub of_its_tenant: u64,
}

/// How many tasks of a kind another one needs, and how many of them are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    pub kind: TaskKind,
    pub done: u32,
    pub total: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastTry {
    /// The next try starts no earlier.
    pub until_ms: i64,
    /// Tries so far; the attempt number.
    pub tries: u32,
    /// What went wrong, in public words. `None`: its worker fell silent.
    pub failure: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    pub by: String,
    pub at_ms: i64,
}

/// The one thing a task waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// It does not wait at all.
    Not(TaskState),
    ForTasks(Vec<Need>),
    ForNextTry(LastTry),
    ForResume {
        kind: TaskKind,
        pause: Pause,
    },
    ForOwnTenant {
        running: u32,
        cap: u32,
    },
    ForSomeWorker {
        kind: TaskKind,
    },
    ForDrainedWorkers {
        kind: TaskKind,
        workers: u32,
    },
    ForFreeWorker {
        kind: TaskKind,
        tier: Tier,
        ahead: Ahead,
    },
}

/// Of several reasons the one that would still hold when all after it were gone.
pub fn why_waiting(facts: &Facts) -> Waiting {
    match facts.state {
        TaskState::Leased | TaskState::Done | TaskState::Dead | TaskState::Cancelled => {
            return Waiting::Not(facts.state);
        }
        TaskState::Blocked => return Waiting::ForTasks(facts.needs.clone()),
        TaskState::RetryWait => {
            let unknown = || LastTry { until_ms: 0, tries: 0, failure: None };
            return Waiting::ForNextTry(facts.last_try.clone().unwrap_or_else(unknown));
        }
        TaskState::Ready => {}
    }
    let kind = facts.kind;
    if let Some(pause) = &facts.paused {
        return Waiting::ForResume { kind, pause: pause.clone() };
    }
    if facts.workers == 0 {
        return Waiting::ForSomeWorker { kind };
    }
    if facts.workers_draining >= facts.workers {
        return Waiting::ForDrainedWorkers { kind, workers: facts.workers };
    }
    match facts.tenant_cap {
        Some(cap) if facts.tenant_running >= cap => {
            Waiting::ForOwnTenant { running: facts.tenant_running, cap }
        }
        _ => Waiting::ForFreeWorker { kind, tier: facts.tier, ahead: facts.ahead },
    }
}

impl Waiting {
    /// One sentence or two, with their full stops left out at the end. `now_ms` decides whether a time needs its date.
    pub fn sentence(&self, now_ms: i64) -> String {
        match self {
            Self::Not(state) => not_waiting(*state).to_owned(),
            Self::ForTasks(needs) => for_tasks(needs),
            Self::ForNextTry(last) => for_next_try(last, now_ms),
            Self::ForResume { kind, pause } => format!(
                "Its queue was paused by {} at {}: resume it with `reelyard queues resume {}`",
                pause.by,
                clock(pause.at_ms, now_ms),
                kind.as_str()
            ),
            Self::ForOwnTenant { cap: 0, .. } => {
                "Its tenant may run no tasks at all: somebody set its cap to 0".to_owned()
            }
            Self::ForOwnTenant { running, cap } if running > cap => format!(
                "Its tenant runs {running} tasks, but only {cap} at a time now; it starts when fewer than {cap} are left"
            ),
            Self::ForOwnTenant { running, cap } => {
                format!("Its tenant runs {running} of {cap} tasks at a time; it starts when one of them ends")
            }
            Self::ForSomeWorker { kind } => {
                format!("No worker that is connected takes {} tasks: start one that does", kind.as_str())
            }
            Self::ForDrainedWorkers { kind, workers } => format!(
                "{} that {} {} tasks {} nothing new, because {} paused or being drained",
                if *workers == 1 { "The one worker".to_owned() } else { format!("All {workers} workers") },
                if *workers == 1 { "takes" } else { "take" },
                kind.as_str(),
                if *workers == 1 { "accepts" } else { "accept" },
                if *workers == 1 { "it is" } else { "they are" },
            ),
            Self::ForFreeWorker { kind, tier, ahead } => for_free_worker(*kind, *tier, *ahead),
        }
    }
}

const fn not_waiting(state: TaskState) -> &'static str {
    match state {
        TaskState::Leased => "It does not wait: a worker has it",
        TaskState::Done => "It does not wait: it is done",
        TaskState::Dead => "It does not wait: it was given up and starts again only when somebody retries it",
        TaskState::Cancelled => "It does not wait: it was cancelled",
        TaskState::Ready | TaskState::Blocked | TaskState::RetryWait => "It can start now",
    }
}

fn for_tasks(needs: &[Need]) -> String {
    let mut open = needs.iter().filter(|need| need.done < need.total).peekable();
    if open.peek().is_none() {
        return "All it waited for is done: it becomes ready in a moment".to_owned();
    }
    let parts: Vec<String> = open
        .map(|need| {
            let left = need.total - need.done;
            let of_all = if need.total == 1 { String::new() } else { format!("{left} of {} ", need.total) };
            match (need.kind, need.total) {
                (TaskKind::Encode, 1) => "its only chunk".to_owned(),
                (TaskKind::Encode, _) => format!("{of_all}chunks"),
                (TaskKind::Audio, 1) => "its sound".to_owned(),
                (TaskKind::Stills, 1) => "its stills".to_owned(),
                (TaskKind::Probe, 1) => "its probe".to_owned(),
                (TaskKind::Publish, 1) => "its publication".to_owned(),
                (kind, _) => format!("{of_all}{} tasks", kind.as_str()),
            }
        })
        .collect();
    match parts.split_last() {
        Some((last, [])) => format!("Waits for {last}"),
        Some((last, before)) => format!("Waits for {} and {last}", before.join(", ")),
        None => String::new(),
    }
}

fn for_next_try(last: &LastTry, now_ms: i64) -> String {
    let next = match last.tries {
        0 => "next".to_owned(),
        tries => ordinal(tries.saturating_add(1)),
    };
    let last_one = ordinal(last.tries);
    let why = match &last.failure {
        Some(failure) => format!("the {last_one} failed: {}", shorten(failure)),
        None => format!("the worker that had the {last_one} fell silent"),
    };
    match (last.until_ms > now_ms, last.tries) {
        (true, 0) => format!("Waits until {} before the next try", clock(last.until_ms, now_ms)),
        (true, _) => {
            format!("Waits until {} before the {next} try, because {why}", clock(last.until_ms, now_ms))
        }
        (false, 0) => "Its wait is over: the next try starts in a moment".to_owned(),
        (false, _) => {
            format!("Its wait is over: the {next} try starts in a moment. {}", why.replacen("the", "The", 1))
        }
    }
}

fn for_free_worker(kind: TaskKind, tier: Tier, ahead: Ahead) -> String {
    let mut text = String::from("Waits for a free worker: ");
    let kind = kind.as_str();
    match ahead.in_its_tier {
        0 if ahead.in_higher_tiers == 0 => {
            let _ = write!(text, "it is the next of the {tier} {kind} tasks");
            return text;
        }
        0 => {}
        1 if ahead.of_its_tenant > 0 => text.push_str("1 task is ahead of it in its tier, of this tenant"),
        1 => text.push_str("1 task is ahead of it in its tier, of another tenant"),
        all if ahead.of_its_tenant >= all => {
            let _ = write!(text, "{all} tasks are ahead of it in its tier, all of this tenant");
        }
        all => {
            let own = match ahead.of_its_tenant {
                0 => "none".to_owned(),
                own => own.to_string(),
            };
            let _ = write!(text, "{all} tasks are ahead of it in its tier, {own} of them of this tenant");
        }
    }
    match ahead.in_higher_tiers {
        0 => {}
        higher => {
            let and = if ahead.in_its_tier == 0 { "" } else { ", and " };
            let verb = if higher == 1 {
                "1 task of a higher tier goes".to_owned()
            } else {
                format!("{higher} tasks of higher tiers go")
            };
            let _ = write!(text, "{and}{verb} first");
        }
    }
    text
}

fn shorten(text: &str) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let one_line = one_line.trim_end_matches('.');
    if one_line.chars().count() <= LONGEST_FAILURE_CHARS {
        return one_line.to_owned();
    }
    let kept: String = one_line.chars().take(LONGEST_FAILURE_CHARS).collect();
    format!("{kept}…")
}

fn ordinal(number: u32) -> String {
    const WORDS: [&str; 11] = [
        "zeroth", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth",
        "tenth",
    ];
    if let Some(word) = WORDS.get(number as usize) {
        return (*word).to_owned();
    }
    let ending = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// A time of day in UTC, with its date when that is not today's. By Howard Hinnant's `civil_from_days`.
fn clock(at_ms: i64, now_ms: i64) -> String {
    const DAY_MS: i64 = 86_400_000;
    let (day, second) = (at_ms.div_euclid(DAY_MS), at_ms.rem_euclid(DAY_MS) / 1_000);
    let time = format!("{:02}:{:02}:{:02} UTC", second / 3_600, second / 60 % 60, second % 60);
    if day == now_ms.div_euclid(DAY_MS) {
        return time;
    }
    let since_march_0000 = day + 719_468;
    let (era, of_era) = (since_march_0000.div_euclid(146_097), since_march_0000.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day_of_month:02} {time}")
}

#[cfg(test)]
#[path = "waiting_tests.rs"]
mod tests;
