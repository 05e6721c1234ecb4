//! Every reason with its sentence, as an operator would read it.

use super::{Ahead, Facts, LastTry, Need, Pause, Waiting, clock, ordinal, why_waiting};
use reelyard_model::{TaskState, Tier, work::TaskKind};

/// 2026-11-20 12:00:00 UTC.
const NOON_MS: i64 = 1_795_176_000_000;
const MINUTE_MS: i64 = 60_000;

fn ready() -> Facts {
    Facts {
        state: TaskState::Ready,
        kind: TaskKind::Encode,
        tier: Tier::Normal,
        needs: Vec::new(),
        last_try: None,
        paused: None,
        tenant_running: 2,
        tenant_cap: Some(8),
        workers: 3,
        workers_draining: 1,
        ahead: Ahead { in_higher_tiers: 0, in_its_tier: 12, of_its_tenant: 3 },
    }
}

fn sentence(facts: &Facts) -> String {
    why_waiting(facts).sentence(NOON_MS)
}

fn ahead(in_higher_tiers: u64, in_its_tier: u64, of_its_tenant: u64) -> String {
    sentence(&Facts { ahead: Ahead { in_higher_tiers, in_its_tier, of_its_tenant }, ..ready() })
}

#[test]
fn a_ready_task_waits_for_those_ahead_of_it() {
    assert_eq!(
        ahead(0, 12, 3),
        "Waits for a free worker: 12 tasks are ahead of it in its tier, 3 of them of this tenant"
    );
    assert_eq!(
        ahead(0, 12, 0),
        "Waits for a free worker: 12 tasks are ahead of it in its tier, none of them of this tenant"
    );
    assert_eq!(
        ahead(0, 12, 12),
        "Waits for a free worker: 12 tasks are ahead of it in its tier, all of this tenant"
    );
    assert_eq!(ahead(0, 1, 1), "Waits for a free worker: 1 task is ahead of it in its tier, of this tenant");
    assert_eq!(
        ahead(0, 1, 0),
        "Waits for a free worker: 1 task is ahead of it in its tier, of another tenant"
    );
    assert_eq!(ahead(0, 0, 0), "Waits for a free worker: it is the next of the normal encode tasks");
    assert_eq!(ahead(1, 0, 0), "Waits for a free worker: 1 task of a higher tier goes first");
    assert_eq!(
        ahead(40, 2, 1),
        "Waits for a free worker: 2 tasks are ahead of it in its tier, 1 of them of this tenant, and 40 tasks of \
         higher tiers go first"
    );
}

#[test]
fn a_tenant_at_its_cap_waits_for_itself() {
    let at = |tenant_running, cap| sentence(&Facts { tenant_running, tenant_cap: Some(cap), ..ready() });
    assert_eq!(at(8, 8), "Its tenant runs 8 of 8 tasks at a time; it starts when one of them ends");
    assert_eq!(
        at(11, 8),
        "Its tenant runs 11 tasks, but only 8 at a time now; it starts when fewer than 8 are left"
    );
    assert_eq!(at(0, 0), "Its tenant may run no tasks at all: somebody set its cap to 0");
}

#[test]
fn a_task_that_no_worker_takes_says_so() {
    let with = |workers, workers_draining| sentence(&Facts { workers, workers_draining, ..ready() });
    assert_eq!(with(0, 0), "No worker that is connected takes encode tasks: start one that does");
    assert_eq!(
        with(3, 3),
        "All 3 workers that take encode tasks accept nothing new, because they are paused or being drained"
    );
    assert_eq!(
        with(1, 1),
        "The one worker that takes encode tasks accepts nothing new, because it is paused or being drained"
    );
}

#[test]
fn a_task_in_back_off_says_until_when_and_what_went_wrong() {
    let last = |until_ms, tries, failure: Option<&str>| {
        let failure = failure.map(str::to_owned);
        let last_try = Some(LastTry { until_ms, tries, failure });
        sentence(&Facts { state: TaskState::RetryWait, last_try, ..ready() })
    };
    assert_eq!(
        last(NOON_MS + 2 * MINUTE_MS + 10_500, 2, Some("the disk is full.")),
        "Waits until 12:02:10 UTC before the third try, because the second failed: the disk is full"
    );
    assert_eq!(
        last(NOON_MS + 13 * 60 * MINUTE_MS, 1, None),
        "Waits until 2026-11-21 01:00:00 UTC before the second try, because the worker that had the first fell silent"
    );
    assert_eq!(
        last(NOON_MS - 1, 1, Some("two\n  lines")),
        "Its wait is over: the second try starts in a moment. The first failed: two lines"
    );
    let long = last(NOON_MS + 1, 1, Some(&"ä".repeat(300)));
    assert!(long.ends_with(&format!("failed: {}…", "ä".repeat(200))), "{long}");
    assert_eq!(
        sentence(&Facts { state: TaskState::RetryWait, ..ready() }),
        "Its wait is over: the next try starts in a moment"
    );
}

#[test]
fn a_paused_queue_is_named_with_who_and_how_to_go_on() {
    let pause = Pause { by: "alice".to_owned(), at_ms: NOON_MS - 60 * MINUTE_MS };
    assert_eq!(
        sentence(&Facts { paused: Some(pause), ..ready() }),
        "Its queue was paused by alice at 11:00:00 UTC: resume it with `reelyard queues resume encode`"
    );
}

#[test]
fn a_blocked_task_counts_what_it_needs() {
    let needs = |needs: &[(TaskKind, u32, u32)]| {
        let needs = needs.iter().map(|&(kind, done, total)| Need { kind, done, total }).collect();
        sentence(&Facts { state: TaskState::Blocked, needs, ..ready() })
    };
    assert_eq!(needs(&[(TaskKind::Encode, 11, 14), (TaskKind::Audio, 1, 1)]), "Waits for 3 of 14 chunks");
    assert_eq!(
        needs(&[(TaskKind::Encode, 0, 2), (TaskKind::Audio, 0, 1), (TaskKind::Stills, 0, 1)]),
        "Waits for 2 of 2 chunks, its sound and its stills"
    );
    assert_eq!(needs(&[(TaskKind::Encode, 0, 1)]), "Waits for its only chunk");
    assert_eq!(needs(&[(TaskKind::Probe, 0, 1)]), "Waits for its probe");
    assert_eq!(needs(&[]), "All it waited for is done: it becomes ready in a moment");
}

#[test]
fn what_does_not_wait_says_what_it_does() {
    for (state, expected) in [
        (TaskState::Leased, "It does not wait: a worker has it"),
        (TaskState::Done, "It does not wait: it is done"),
        (TaskState::Dead, "It does not wait: it was given up and starts again only when somebody retries it"),
        (TaskState::Cancelled, "It does not wait: it was cancelled"),
    ] {
        assert_eq!(sentence(&Facts { state, ..ready() }), expected);
    }
}

#[test]
fn of_several_reasons_the_one_that_would_stay_longest_is_told() {
    let pause = Pause { by: "alice".to_owned(), at_ms: NOON_MS };
    let mut facts = Facts { paused: Some(pause), workers: 0, tenant_running: 8, ..ready() };
    assert!(matches!(why_waiting(&facts), Waiting::ForResume { .. }));
    facts.paused = None;
    assert!(matches!(why_waiting(&facts), Waiting::ForSomeWorker { .. }));
    facts.workers = 3;
    assert!(matches!(why_waiting(&facts), Waiting::ForOwnTenant { .. }));
    facts.tenant_running = 7;
    assert!(matches!(why_waiting(&facts), Waiting::ForFreeWorker { .. }));
    facts.tenant_cap = None;
    assert!(matches!(why_waiting(&facts), Waiting::ForFreeWorker { .. }));
}

#[test]
fn every_state_and_reason_has_a_sentence() {
    for &state in TaskState::ALL {
        for kind in TaskKind::ALL {
            for workers in [0, 1, 2] {
                let facts = Facts { state, kind, workers, workers_draining: 1, ..ready() };
                let text = sentence(&facts);
                assert!(text.len() > 20 && !text.ends_with('.'), "{state} {kind:?}: {text}");
            }
        }
    }
}

#[test]
fn days_and_ordinals_are_those_of_the_calendar_and_of_english() {
    assert_eq!(clock(0, NOON_MS), "1970-01-01 00:00:00 UTC");
    assert_eq!(clock(951_782_400_000, NOON_MS), "2000-02-29 00:00:00 UTC");
    assert_eq!(clock(-1, NOON_MS), "1969-12-31 23:59:59 UTC");
    assert_eq!(clock(1_798_761_599_999, NOON_MS), "2026-12-31 23:59:59 UTC");
    let said: Vec<String> = [1, 10, 11, 12, 21, 22, 103, 111].into_iter().map(ordinal).collect();
    assert_eq!(said, ["first", "tenth", "11th", "12th", "21st", "22nd", "103rd", "111th"]);
}
