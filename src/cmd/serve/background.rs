//! What runs beside the HTTP server in this process: the agent, the publisher, the sweeper.

use crate::cmd::machine;
use crate::{
    app::{App, panic_text},
    flow::{
        self,
        dispatch::{InProcess, LocalDepot},
    },
};
use anyhow::Context;
use futures::FutureExt as _;
use reelyard_agent::{Agent, AgentConfig, Machine, ShutdownHandle, Watch};
use reelyard_catalog::NewWorker;
use reelyard_model::WorkerId;
use reelyard_tickets::Tickets;
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::task::{JoinHandle, JoinSet};
use uuid::Uuid;

/// What a running child has to finish when the server is to stop; then it is killed and its task given back.
const AGENT_DRAIN: Duration = Duration::from_secs(2);
/// Whatever broke a part may break it again at once.
const BEGIN_AGAIN_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Background {
    agent: Option<(ShutdownHandle, JoinHandle<()>)>,
    loops: JoinSet<()>,
}

/// Registers the workers of this process, takes up what the last one left, and starts.
pub(super) async fn start(
    app: &Arc<App>,
    workers: Option<u32>,
    tickets: Option<Arc<dyn Tickets>>,
) -> anyhow::Result<Background> {
    // First: it forgets the workers of the last process.
    flow::sweep::at_start(app).await?;
    register(app, app.control_worker, "control", serde_json::json!({})).await?;
    let agent = match workers {
        Some(0) => {
            tracing::warn!("no media tasks are done in this process (--workers 0)");
            None
        }
        _ => Some(start_agent(app, workers).await?),
    };
    let mut loops = JoinSet::new();
    loops.spawn(keep_running(app.clone(), "publisher", |app| flow::publish::run(app).map(Ok)));
    loops.spawn(keep_running(app.clone(), "leases", |app| flow::sweep::run(app).map(Ok)));
    loops.spawn(keep_running(app.clone(), "sweeper", |app| flow::sweep::run_files(app).map(Ok)));
    loops.spawn(keep_running(app.clone(), "joiner", |app| flow::concatenate::run(app).map(Ok)));
    if app.sources_in_pieces {
        loops.spawn(keep_running(app.clone(), "assembler", |app| flow::assemble::run(app).map(Ok)));
    }
    loops.spawn(keep_running(app.clone(), "holders", |app| async move {
        app.holders.run(app.shutdown.clone(), || app.now_ms()).await;
        Ok(())
    }));
    if app.catalog.is_shared() {
        loops.spawn(keep_running(app.clone(), "news of other nodes", |app| {
            flow::relay::ring_by_events(app).map(Ok)
        }));
    }
    if let Some(tickets) = tickets {
        let to = tickets.clone();
        loops.spawn(keep_running(app.clone(), "relay", move |app| flow::relay::run(app, to.clone()).map(Ok)));
        let to = tickets.clone();
        loops.spawn(keep_running(app.clone(), "tickets anew", move |app| {
            flow::relay::run_reissue(app, to.clone()).map(Ok)
        }));
        loops.spawn(keep_running(app.clone(), "publish tickets", move |app| {
            flow::relay::take_publish_tickets(app, tickets.clone()).map(Ok)
        }));
    }
    Ok(Background { agent, loops })
}

/// A part that breaks begins again: without it the server would look alive and never finish anything.
async fn keep_running<F: Future<Output = anyhow::Result<()>>>(
    app: Arc<App>,
    name: &'static str,
    run: impl Fn(Arc<App>) -> F,
) {
    loop {
        let reason = match AssertUnwindSafe(run(app.clone())).catch_unwind().await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("{error:#}"),
            Err(panic) => format!("it panicked: {}", panic_text(&*panic)),
        };
        tracing::error!(name, reason, "a part of the server broke and begins again");
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(BEGIN_AGAIN_AFTER) => {}
        }
    }
}

/// A worker of this process: its leases end when this node starts anew.
async fn register(app: &App, id: WorkerId, name: &str, machine: serde_json::Value) -> anyhow::Result<()> {
    let new = NewWorker {
        id,
        name: name.to_owned(),
        node: Some(app.node.clone()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        machine,
        now_ms: app.now_ms(),
    };
    app.catalog.register_worker(&new).await?;
    Ok(())
}

async fn start_agent(
    app: &Arc<App>,
    workers: Option<u32>,
) -> anyhow::Result<(ShutdownHandle, JoinHandle<()>)> {
    let machine = tokio::task::spawn_blocking(Machine::look).await?;
    let worker = WorkerId::from_uuid(Uuid::now_v7());
    let slots = machine::slots(&machine, workers);
    register(app, worker, "in-process", serde_json::to_value(machine::facts(&machine, slots))?).await?;
    let config = AgentConfig {
        worker,
        program: app.media_program.clone(),
        // Its own: the agent empties it, and the store has files in the making beside it.
        scratch: app.data_dir.join("scratch/children"),
        slots,
        memory_bytes: machine.memory_bytes,
        watch: Watch::default(),
        drain: AGENT_DRAIN,
    };
    let control = Arc::new(InProcess { app: app.clone() });
    let depot = Arc::new(LocalDepot { app: app.clone() });
    let (handle, shutdown) = reelyard_agent::shutdown();
    let work = move |_| {
        let agent = Agent::new(config.clone(), control.clone(), depot.clone());
        let shutdown = shutdown.clone();
        async move { agent.run(shutdown).await.context("its scratch directory cannot be used") }
    };
    let running = tokio::spawn(keep_running(app.clone(), "agent", work));
    Ok((handle, running))
}

impl Background {
    /// After `app.shutdown` was cancelled: waits for the work in hand. The caller bounds the time.
    pub(super) async fn stop(mut self) {
        if let Some((handle, running)) = self.agent.take() {
            handle.drain();
            if let Err(error) = running.await {
                tracing::error!(%error, "the agent broke");
            }
        }
        while self.loops.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::keep_running;
    use crate::flow::tests::bench::Bench;
    use std::cell::Cell;

    #[tokio::test]
    async fn a_part_that_breaks_begins_again() {
        let bench = Bench::new().await;
        let begun = Cell::new(0);
        keep_running(bench.app.clone(), "for the test", |_| {
            begun.set(begun.get() + 1);
            let number = begun.get();
            async move {
                assert!(number > 1, "for the test");
                anyhow::ensure!(number > 2, "for the test");
                Ok(())
            }
        })
        .await;
        assert_eq!(begun.get(), 3);
    }
}
