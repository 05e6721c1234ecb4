//! The suite that every backend passes. RabbitMQ's run shares one broker, as starting one takes seconds; each promise
//! has queues of its own there.

use super::{MAX_WAITING, issued, next, nothing_comes, rabbit, some, soon, take, tasks, ticket};
use futures::future::join_all;
use reelyard_model::{Tier, work::TaskKind};
use reelyard_testkit::RabbitServer;
use reelyard_tickets::{Depth, Ticket, Tickets};
use std::{sync::Arc, time::Duration};

macro_rules! promises {
    ($($name:ident)*) => {
        mod embedded {
            $(#[tokio::test] async fn $name() { super::$name(std::sync::Arc::new(crate::embedded())).await; })*
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn rabbitmq_keeps_every_promise() {
            let Some(broker) = RabbitServer::start() else { return };
            let begin = std::time::Instant::now();
            $({
                println!("{:?} {}", begin.elapsed(), stringify!($name));
                let prefix = stringify!($name);
                super::promises::$name(Arc::new(rabbit(broker.url(), prefix))).await;
            })*
        }
    };
}

promises! {
    a_ticket_arrives_as_it_was_issued
    an_issued_ticket_waits_for_a_subscriber_that_comes_later
    an_acknowledged_ticket_is_gone
    a_dropped_ticket_comes_again
    tickets_of_a_dropped_subscription_go_to_others
    no_more_are_in_hand_than_the_prefetch
    subscribers_share_and_get_only_their_classes
    urgent_comes_first_and_bulk_is_not_forgotten
    a_cancelled_wait_loses_nothing
    depth_counts_what_waits
    a_full_queue_forgets_its_oldest
    many_issuers_at_the_same_time_are_all_confirmed
    issuing_nothing_is_nothing
}

type Shared = Arc<dyn Tickets>;

async fn a_ticket_arrives_as_it_was_issued(tickets: Shared) {
    tickets.ping().await.unwrap();
    for class in TaskKind::ALL {
        for tier in Tier::ALL {
            let mut subscription = tickets.subscribe(&[class], 1);
            let sent = Ticket { task: None, ..ticket(class, *tier) };
            issued(&*tickets, std::slice::from_ref(&sent)).await;
            let delivery = next(&mut subscription).await;
            assert_eq!(delivery.ticket(), &sent);
            delivery.acknowledge().await.unwrap();
        }
    }
    let plain = Ticket { traceparent: String::new(), ..ticket(TaskKind::Probe, Tier::Urgent) };
    issued(&*tickets, std::slice::from_ref(&plain)).await;
    assert_eq!(next(&mut tickets.subscribe(&[TaskKind::Probe], 1)).await.ticket(), &plain);
}

async fn an_issued_ticket_waits_for_a_subscriber_that_comes_later(tickets: Shared) {
    let some = some(3);
    issued(&*tickets, &some).await;
    assert_eq!(take(&mut tickets.subscribe(&[TaskKind::Encode], 5), 3).await, tasks(&some));
}

async fn an_acknowledged_ticket_is_gone(tickets: Shared) {
    let mut subscription = tickets.subscribe(&[TaskKind::Encode], 1);
    issued(&*tickets, &some(1)).await;
    next(&mut subscription).await.acknowledge().await.unwrap();
    drop(subscription);
    nothing_comes(&mut tickets.subscribe(&[TaskKind::Encode], 1)).await;
}

async fn a_dropped_ticket_comes_again(tickets: Shared) {
    let mut subscription = tickets.subscribe(&[TaskKind::Encode], 1);
    let some = some(1);
    issued(&*tickets, &some).await;
    for _ in 0..3 {
        let delivery = next(&mut subscription).await;
        assert_eq!(delivery.ticket(), &some[0]);
        drop(delivery);
    }
    next(&mut subscription).await.acknowledge().await.unwrap();
    nothing_comes(&mut subscription).await;
}

async fn tickets_of_a_dropped_subscription_go_to_others(tickets: Shared) {
    let some = some(4);
    issued(&*tickets, &some).await;
    let mut first = tickets.subscribe(&[TaskKind::Encode], 3);
    let in_hand = next(&mut first).await;
    drop(first);
    drop(in_hand);
    assert_eq!(take(&mut tickets.subscribe(&[TaskKind::Encode], 1), 4).await, tasks(&some));
}

async fn no_more_are_in_hand_than_the_prefetch(tickets: Shared) {
    issued(&*tickets, &some(5)).await;
    let mut subscription = tickets.subscribe(&[TaskKind::Encode], 2);
    let one = next(&mut subscription).await;
    let two = next(&mut subscription).await;
    nothing_comes(&mut subscription).await;
    one.acknowledge().await.unwrap();
    let three = next(&mut subscription).await;
    nothing_comes(&mut subscription).await;
    drop(two);
    let two_again = next(&mut subscription).await;
    nothing_comes(&mut subscription).await;
    drop((three, two_again));
    take(&mut subscription, 4).await;
}

async fn subscribers_share_and_get_only_their_classes(tickets: Shared) {
    let mut video = tickets.subscribe(&[TaskKind::Encode, TaskKind::Stills], 1);
    let mut also_stills = tickets.subscribe(&[TaskKind::Stills], 1);
    let sent = [TaskKind::Encode, TaskKind::Stills, TaskKind::Stills, TaskKind::Audio]
        .map(|class| ticket(class, Tier::Normal));
    issued(&*tickets, &sent).await;
    let stills = next(&mut also_stills).await;
    let mut of_video = [next(&mut video).await, next(&mut video).await];
    of_video.sort_by_key(|delivery| delivery.ticket().class);
    let classes = of_video.each_ref().map(|delivery| delivery.ticket().class);
    assert_eq!(classes, [TaskKind::Encode, TaskKind::Stills]);
    assert_eq!(stills.ticket().class, TaskKind::Stills);
    nothing_comes(&mut video).await;
    assert_eq!(take(&mut tickets.subscribe(&[TaskKind::Audio], 1), 1).await, tasks(&sent[3..]));
}

async fn urgent_comes_first_and_bulk_is_not_forgotten(tickets: Shared) {
    // Room for all of them, so that the order is ours and not the broker's.
    let mut subscription = tickets.subscribe(&[TaskKind::Encode], 20);
    let mut all = Vec::new();
    for (tier, count) in [(Tier::Bulk, 2), (Tier::Normal, 4), (Tier::Urgent, 12)] {
        all.extend((0..count).map(|_| ticket(TaskKind::Encode, tier)));
    }
    issued(&*tickets, &all).await;
    soon(async {
        while tickets.depth().await.unwrap().iter().any(|depth| depth.waiting > 0)
            && !holds_in_memory(&*tickets)
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut order = String::new();
    for _ in 0..all.len() {
        let delivery = next(&mut subscription).await;
        order.push_str(&delivery.ticket().tier.as_str()[..1]);
        delivery.acknowledge().await.unwrap();
    }
    assert_eq!(order, "uuuunuuubnuuuununb");
}

/// It hands out when asked, so its tickets count as waiting until then.
fn holds_in_memory(tickets: &dyn Tickets) -> bool {
    format!("{tickets:?}").starts_with("Embedded")
}

async fn a_cancelled_wait_loses_nothing(tickets: Shared) {
    let mut subscription = tickets.subscribe(&[TaskKind::Encode], 20);
    let some = some(20);
    let receiving = async {
        let mut got = Vec::new();
        while got.len() < 20 {
            if let Ok(delivery) = tokio::time::timeout(Duration::from_micros(50), subscription.next()).await {
                got.push(delivery.ticket().task.unwrap());
                delivery.acknowledge().await.unwrap();
            }
        }
        got.sort();
        got
    };
    let (got, ()) = soon(async { tokio::join!(receiving, issued(&*tickets, &some)) }).await;
    assert_eq!(got, tasks(&some));
}

async fn depth_counts_what_waits(tickets: Shared) {
    issued(&*tickets, &some(3)).await;
    issued(&*tickets, &[ticket(TaskKind::Probe, Tier::Urgent)]).await;
    let depth = tickets.depth().await.unwrap();
    assert_eq!(depth.len(), 15);
    let waiting = |depth: &[Depth]| depth.iter().map(|depth| depth.waiting).sum::<u64>();
    assert_eq!(waiting(&depth), 4);
    assert!(depth.contains(&Depth { class: TaskKind::Encode, tier: Tier::Normal, waiting: 3 }));
    take(&mut tickets.subscribe(&[TaskKind::Encode], 1), 3).await;
    assert_eq!(waiting(&tickets.depth().await.unwrap()), 1);
}

async fn a_full_queue_forgets_its_oldest(tickets: Shared) {
    let some = some(MAX_WAITING as usize + 5);
    issued(&*tickets, &some).await;
    let mut subscription = tickets.subscribe(&[TaskKind::Encode], 1);
    assert_eq!(take(&mut subscription, MAX_WAITING as usize).await, tasks(&some[5..]));
    nothing_comes(&mut subscription).await;
}

async fn many_issuers_at_the_same_time_are_all_confirmed(tickets: Shared) {
    let sent: Vec<Ticket> = some(MAX_WAITING as usize);
    let issuing = sent.chunks(2).map(|pair| {
        let (tickets, pair) = (tickets.clone(), pair.to_vec());
        tokio::spawn(async move { issued(&*tickets, &pair).await })
    });
    for outcome in join_all(issuing).await {
        outcome.unwrap();
    }
    assert_eq!(take(&mut tickets.subscribe(&[TaskKind::Encode], 3), sent.len()).await, tasks(&sent));
}

async fn issuing_nothing_is_nothing(tickets: Shared) {
    assert!(tickets.issue(&[]).await.is_empty());
}
