//! Tickets on their way from the outbox to a broker.

use super::bench::Bench;
use crate::flow::relay::{Relayed, relay_some};
use async_trait::async_trait;
use reelyard_model::{TaskId, work::TaskKind};
use reelyard_tickets::{Depth, Embedded, Subscription, Ticket, TicketError, Tickets};

/// A broker whose queue for this task is not as it should be.
#[derive(Debug)]
struct Refusing {
    task: TaskId,
    others: Embedded,
}

#[async_trait]
impl Tickets for Refusing {
    async fn issue(&self, tickets: &[Ticket]) -> Vec<Result<(), TicketError>> {
        let mut outcomes = self.others.issue(tickets).await;
        for (ticket, outcome) in tickets.iter().zip(&mut outcomes) {
            if ticket.task == Some(self.task) {
                *outcome = Err(TicketError::Misconfigured("declared with another bound".to_owned()));
            }
        }
        outcomes
    }

    fn subscribe(&self, classes: &[TaskKind], prefetch: u16) -> Subscription {
        self.others.subscribe(classes, prefetch)
    }

    async fn ping(&self) -> Result<(), TicketError> {
        self.others.ping().await
    }

    async fn depth(&self) -> Result<Vec<Depth>, TicketError> {
        self.others.depth().await
    }
}

#[tokio::test]
async fn a_ticket_that_is_refused_for_good_is_out_of_the_way_of_the_others() {
    let bench = Bench::with_outbox().await;
    let probe_of = async |bytes: &'static [u8]| {
        let asset = bench.asset_of(bytes).await;
        bench.app.catalog.tasks_of_asset(asset).await.unwrap()[0].id
    };
    let refused = probe_of(b"the first").await;
    let broker = Refusing { task: refused, others: Embedded::default() };
    assert_eq!(relay_some(&bench.app, &broker).await.unwrap(), Relayed::Some, "the broker is there");
    assert_eq!(
        relay_some(&bench.app, &broker).await.unwrap(),
        Relayed::Nothing,
        "it is not asked over and over"
    );
    assert_eq!(bench.app.catalog.outbox_len().await.unwrap(), 1, "and nothing is lost");

    probe_of(b"the second").await;
    assert_eq!(relay_some(&bench.app, &broker).await.unwrap(), Relayed::Some);
    assert_eq!(bench.app.catalog.outbox_len().await.unwrap(), 1, "the one that came later has gone");
}
