//! RabbitMQ's broker and network fail in every way we could think of. Nothing confirmed is lost but by a wipe, nothing
//! waits for ever, and everything works again by itself afterwards.

use super::{
    A_WHILE, impatient, issued, next, nothing_comes, rabbit, settings, some, soon, take, tasks, ticket,
};
use reelyard_model::{TaskId, Tier, work::TaskKind};
use reelyard_testkit::{Line, RabbitServer, TcpProxy};
use reelyard_tickets::{RabbitSettings, RabbitTickets, Subscription, Ticket, TicketError, Tickets};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// For issuing in all the tests here: connect, declare, publish, each with its own limit, on a busy machine.
const BOUND: Duration = Duration::from_secs(30);

/// Until it works: what the outbox's relay does.
async fn issued_in_the_end(tickets: &dyn Tickets, some: &[Ticket]) {
    soon(async {
        let mut left = some.to_vec();
        while !left.is_empty() {
            let outcomes = tickets.issue(&left).await;
            let failed = left.into_iter().zip(outcomes).filter(|(_, outcome)| outcome.is_err());
            left = failed.map(|(ticket, _)| ticket).collect();
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// How each ended, which is told in bounded time.
async fn outcomes(tickets: &dyn Tickets, some: &[Ticket]) -> Vec<Result<(), TicketError>> {
    let begin = Instant::now();
    let outcomes = tickets.issue(some).await;
    assert!(begin.elapsed() < BOUND, "issuing took {:?}", begin.elapsed());
    assert_eq!(outcomes.len(), some.len());
    outcomes
}

async fn all_fail(tickets: &dyn Tickets, some: &[Ticket]) {
    for outcome in outcomes(tickets, some).await {
        assert!(matches!(outcome, Err(TicketError::Unavailable(_))), "{outcome:?}");
    }
}

/// Acknowledges what comes until all of `wanted` came; what comes twice is fine.
async fn take_at_least(subscription: &mut Subscription, wanted: &[TaskId]) {
    let mut missing: BTreeSet<TaskId> = wanted.iter().copied().collect();
    while !missing.is_empty() {
        let delivery = next(subscription).await;
        missing.remove(&delivery.ticket().task.unwrap());
        let _ = delivery.acknowledge().await;
    }
}

/// Issues again and again until a ticket comes, as the sweep does for tasks that wait. A queue that is declared while its
/// namesake is still being deleted may confirm tickets and lose them (seen on RabbitMQ 3.10.8).
async fn woken(tickets: &dyn Tickets, subscription: &mut Subscription, class: TaskKind) {
    soon(async {
        for round in 1.. {
            issued_in_the_end(tickets, &[ticket(class, Tier::Normal)]).await;
            if let Ok(delivery) = tokio::time::timeout(Duration::from_secs(1), subscription.next()).await {
                let _ = delivery.acknowledge().await;
                println!("woken after {round} tickets");
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_survives_a_killed_broker_and_both_sides_come_back() {
    let Some(mut broker) = RabbitServer::start() else { return };
    // Room for all that is issued until the kill.
    let roomy = RabbitSettings { max_waiting: 1_000_000, ..settings(broker.url(), "kill") };
    let tickets = Arc::new(RabbitTickets::new(roomy).unwrap());
    tickets.ping().await.unwrap();
    let mut subscription = tickets.subscribe(&[TaskKind::Audio], 1);
    let held = {
        issued(&*tickets, &[ticket(TaskKind::Audio, Tier::Normal)]).await;
        next(&mut subscription).await
    };
    let held_task = held.ticket().task;

    let stop = Arc::new(AtomicBool::new(false));
    let (count, mut counted) = watch::channel(0);
    let load = tokio::spawn({
        let (tickets, stop) = (tickets.clone(), stop.clone());
        async move {
            let mut confirmed = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let batch = some(50);
                let outcomes = tickets.issue(&batch).await;
                confirmed.extend(batch.into_iter().zip(outcomes).filter(|(_, outcome)| outcome.is_ok()));
                count.send_replace(confirmed.len());
            }
            confirmed.into_iter().map(|(ticket, _)| ticket.task.unwrap()).collect::<Vec<_>>()
        }
    });
    soon(counted.wait_for(|confirmed| *confirmed >= 500)).await.unwrap();
    tokio::task::block_in_place(|| broker.kill());
    all_fail(&*tickets, &some(10)).await;
    tokio::task::block_in_place(|| broker.restart());
    issued_in_the_end(&*tickets, &some(1)).await;
    stop.store(true, Ordering::Relaxed);
    let confirmed = load.await.unwrap();
    assert!(confirmed.len() >= 500);
    println!("{} confirmed tickets over a kill", confirmed.len());

    // What was in hand when the broker died comes again, on the same subscription.
    let again = next(&mut subscription).await;
    assert_eq!(again.ticket().task, held_task);
    assert!(held.acknowledge().await.is_err(), "its connection is gone");
    again.acknowledge().await.unwrap();
    take_at_least(&mut tickets.subscribe(&[TaskKind::Encode], 200), &confirmed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_broker_is_as_good_as_a_new_one() {
    let Some(mut broker) = RabbitServer::start() else { return };
    let tickets = rabbit(broker.url(), "wipe");
    let mut subscription = tickets.subscribe(&[TaskKind::Encode], 2);
    issued(&tickets, &some(5)).await;
    let _held = next(&mut subscription).await;
    tokio::task::block_in_place(|| broker.wipe_and_restart());
    let new = some(3);
    issued_in_the_end(&tickets, &new).await;
    take_at_least(&mut subscription, &tasks(&new)).await;
    nothing_comes(&mut subscription).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_broker_is_a_failure_in_bounded_time() {
    let Some(broker) = RabbitServer::start() else { return };
    let tickets = RabbitTickets::new(impatient(broker.url(), "pause")).unwrap();
    let mut subscription = tickets.subscribe(&[TaskKind::Encode], 2);
    let first = some(1);
    issued_in_the_end(&tickets, &first).await;
    take_at_least(&mut subscription, &tasks(&first)).await;
    broker.pause();
    // On the connection there is, and on one that should be made.
    all_fail(&tickets, &some(3)).await;
    all_fail(&tickets, &some(3)).await;
    let not_connected = RabbitTickets::new(impatient(broker.url(), "pause-new")).unwrap();
    all_fail(&not_connected, &some(1)).await;
    assert!(tickets.ping().await.is_err());
    broker.resume();
    let new = some(2);
    issued_in_the_end(&tickets, &new).await;
    take_at_least(&mut subscription, &tasks(&new)).await;

    // Who stops waiting for a batch disturbs no other.
    let given_up = tokio::time::timeout(Duration::from_micros(200), tickets.issue(&some(200))).await;
    let new = some(2);
    issued_in_the_end(&tickets, &new).await;
    take_at_least(&mut subscription, &tasks(&new)).await;
    drop(given_up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_queues_and_queues_of_others() {
    let Some(broker) = RabbitServer::start() else { return };
    let tickets = RabbitTickets::new(impatient(broker.url(), "deleted")).unwrap();
    let mut subscription = tickets.subscribe(&[TaskKind::Encode], 2);
    let first = some(1);
    issued_in_the_end(&tickets, &first).await;
    take_at_least(&mut subscription, &tasks(&first)).await;
    delete_queue(&broker, "deleted.encode.normal");
    woken(&tickets, &mut subscription, TaskKind::Encode).await;

    // Declared with another bound: told with what to do, for that queue only, and working as soon as it was done.
    // It answers for one of them, and perhaps not for a queue that is being deleted.
    let confirm_timeout = BOUND / 3;
    let other = RabbitSettings { max_waiting: 7, confirm_timeout, ..settings(broker.url(), "deleted") };
    let other = RabbitTickets::new(other).unwrap();
    let both = [ticket(TaskKind::Encode, Tier::Normal), ticket(TaskKind::Stills, Tier::Bulk)];
    let outcome = outcomes(&other, &both).await;
    assert_eq!(outcome[1], Ok(()));
    let Err(TicketError::Misconfigured(text)) = &outcome[0] else { panic!("{outcome:?}") };
    assert!(text.contains("rabbitmqctl delete_queue deleted.encode.normal"), "{text}");
    assert!(matches!(other.ping().await, Err(TicketError::Misconfigured(_))));
    let depths = other.depth().await.unwrap();
    assert!(
        depths.iter().all(|depth| depth.class != TaskKind::Encode),
        "wrong queues are left out: {depths:?}"
    );
    assert_eq!(
        depths.iter().map(|depth| depth.waiting).sum::<u64>(),
        1,
        "the others are counted: {depths:?}"
    );
    drop((subscription, tickets));
    let mut subscription = other.subscribe(&[TaskKind::Encode], 1);
    for tier in Tier::ALL {
        delete_queue(&broker, &format!("deleted.encode.{tier}"));
    }
    woken(&other, &mut subscription, TaskKind::Encode).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_users_and_strange_messages() {
    let Some(broker) = RabbitServer::start() else { return };
    let wrong = format!("amqp://guest:not-the-password@{}/%2f", broker.address());
    let Err(TicketError::Misconfigured(text)) = rabbit(wrong, "refused").ping().await else {
        panic!("not refused")
    };
    assert!(text.contains("user") && !text.contains("not-the-password"), "{text}");
    let elsewhere = format!("amqp://guest:guest@{}/nowhere", broker.address());
    let refused = rabbit(elsewhere, "refused").ping().await;
    assert!(matches!(refused, Err(TicketError::Misconfigured(_))), "{refused:?}");

    // A message that is no ticket is a wake-up of its queue.
    let tickets = rabbit(broker.url(), "strange");
    tickets.ping().await.unwrap();
    let publish = "rabbit_basic:publish(rabbit_misc:r(<<\"/\">>, exchange, <<>>), <<\"strange.audio.urgent\">>, [], \
                   <<\"not JSON\">>).";
    tokio::task::block_in_place(|| broker.eval(publish));
    let mut subscription = tickets.subscribe(&[TaskKind::Audio], 1);
    let delivery = next(&mut subscription).await;
    let expected =
        Ticket { task: None, class: TaskKind::Audio, tier: Tier::Urgent, traceparent: String::new() };
    assert_eq!(delivery.ticket(), &expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_spoken_with_brokers_whose_certificate_is_trusted() {
    let Some(broker) = RabbitServer::start_with_tls() else { return };
    let trusting = RabbitSettings {
        certificates: Some(broker.certificate_authority()),
        ..settings(broker.tls_url(), "tls")
    };
    let tickets = RabbitTickets::new(trusting).unwrap();
    let mut subscription = tickets.subscribe(&[TaskKind::Encode], 1);
    let sent = some(2);
    issued(&tickets, &sent).await;
    assert_eq!(take(&mut subscription, 2).await, tasks(&sent));

    let Err(TicketError::Misconfigured(text)) = rabbit(broker.tls_url(), "tls").ping().await else {
        panic!("a certificate of nobody should not be trusted")
    };
    assert!(text.contains("certificate"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_short_of_memory_is_a_failure_in_bounded_time() {
    let Some(broker) = RabbitServer::start() else { return };
    let tickets = RabbitTickets::new(impatient(broker.url(), "alarm")).unwrap();
    let mut subscription = tickets.subscribe(&[TaskKind::Encode], 2);
    issued_in_the_end(&tickets, &some(3)).await;
    let held = next(&mut subscription).await;
    tokio::task::block_in_place(|| broker.eval("vm_memory_monitor:set_vm_memory_high_watermark(0.00001)."));
    soon(async {
        while tickets.issue(&some(1)).await[0].is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for _ in 0..20 {
        all_fail(&tickets, &some(2)).await;
    }
    let connections = tokio::task::block_in_place(|| broker.eval("length(rabbit_networking:connections())."));
    assert!(connections.trim().parse::<u32>().unwrap() <= 3, "{connections} connections");
    // Takers are not stopped by it.
    held.acknowledge().await.unwrap();
    take(&mut subscription, 2).await;
    tokio::task::block_in_place(|| broker.eval("vm_memory_monitor:set_vm_memory_high_watermark(0.4)."));
    let new = some(2);
    issued_in_the_end(&tickets, &new).await;
    take_at_least(&mut subscription, &tasks(&new)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_network_delays_tickets_and_loses_none() {
    let Some(broker) = RabbitServer::start() else { return };
    let proxy = TcpProxy::start(&broker.address());
    let tickets = rabbit(broker.url_through(&proxy.address()), "network");
    let mut subscription = tickets.subscribe(&[TaskKind::Encode], 5);
    issued(&tickets, &some(1)).await;
    take(&mut subscription, 1).await;

    proxy.set_line(Line::Delay(Duration::from_millis(40)));
    let slow = some(10);
    issued(&tickets, &slow).await;
    assert_eq!(take(&mut subscription, 10).await, tasks(&slow));

    proxy.set_line(Line::Reset);
    all_fail(&tickets, &some(2)).await;
    proxy.set_line(Line::Clear);
    let after_reset = some(2);
    issued_in_the_end(&tickets, &after_reset).await;
    take_at_least(&mut subscription, &tasks(&after_reset)).await;

    // Cut in the handshake, in a declaration, between header and body: wherever it falls. Each time it is told, or the
    // ticket is there.
    let issuing = TcpProxy::start(&broker.address());
    let (mut failed, mut confirmed) = (0, 0);
    for limit in (300..4000).step_by(250) {
        // For some cuts the client learns of nothing: only the limits end its wait.
        let settings = impatient(broker.url_through(&issuing.address()), "network");
        let tickets = RabbitTickets::new(settings).unwrap();
        issuing.set_line(Line::CutAfter(limit));
        let cut = some(4);
        let outcomes = outcomes(&tickets, &cut).await;
        let there: Vec<Ticket> =
            cut.into_iter().zip(outcomes).filter(|(_, it)| it.is_ok()).map(|(it, _)| it).collect();
        (failed, confirmed) = (failed + 4 - there.len(), confirmed + there.len());
        take_at_least(&mut subscription, &tasks(&there)).await;
        issuing.set_line(Line::Clear);
        let after = some(1);
        issued_in_the_end(&tickets, &after).await;
        take_at_least(&mut subscription, &tasks(&after)).await;
    }
    println!("{failed} failed and {confirmed} confirmed over lines that were cut");
    assert!(failed > 0 && confirmed > 0);
    let last = some(3);
    issued_in_the_end(&tickets, &last).await;
    take_at_least(&mut subscription, &tasks(&last)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_is_noticed_by_both_sides() {
    let Some(broker) = RabbitServer::start() else { return };
    let proxy = TcpProxy::start(&broker.address());
    let tickets = RabbitTickets::new(impatient(broker.url_through(&proxy.address()), "hole")).unwrap();
    let mut subscription = tickets.subscribe(&[TaskKind::Encode], 5);
    issued_in_the_end(&tickets, &some(1)).await;
    let held = next(&mut subscription).await;
    let before = proxy.connections();
    proxy.set_line(Line::BlackHole);
    let begin = Instant::now();
    all_fail(&tickets, &some(2)).await;
    // The taker has nothing to send: only heartbeats tell it.
    soon(async {
        while proxy.connections() == before {
            tokio::time::sleep(A_WHILE / 30).await;
        }
    })
    .await;
    println!("a new connection was tried {:?} after the black hole opened", begin.elapsed());
    assert!(begin.elapsed() < BOUND);
    proxy.set_line(Line::Clear);
    let new = some(2);
    issued_in_the_end(&tickets, &new).await;
    take_at_least(&mut subscription, &[tasks(&new), vec![held.ticket().task.unwrap()]].concat()).await;
}

fn delete_queue(broker: &RabbitServer, name: &str) {
    let delete = format!(
        "case rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{name}\">>)) of {{ok, Q}} -> \
         rabbit_amqqueue:delete(Q, false, false, <<\"test\">>); Other -> Other end."
    );
    tokio::task::block_in_place(|| broker.eval(&delete));
}
