//! Rounds: assets come in, their probes are answered while workers are at it, and every task is done once.

use crate::{
    Options, film, raw,
    servers::{Keys, Servers, make_keys},
    usage::{Cpu, Database, Pids, longest_statements},
    worker::{self, Counters, Farm, Granted, Link},
};
use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reelyard_model::work::{Report, TaskKind, TaskResult};
use sqlx::PgPool;
use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Uploads at a time, before a round.
const SENDERS: usize = 8;
/// Tasks that wait besides those that all slots together hold: new assets are planned when there are fewer.
const BACKLOG: usize = 1_000;
/// A round that does not come to its end is told, with what the server has logged.
const STUCK: Duration = Duration::from_secs(60);
/// How often a round is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// The steady part is from this share of the tasks done to the last but this share.
const EDGE: f64 = 0.1;

/// One round, its steady part.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    pub(crate) tasks_per_s: f64,
    pub(crate) raw_per_s: f64,
    pub(crate) claims_ms: Vec<f64>,
    pub(crate) reports_ms: Vec<f64>,
    pub(crate) granted: f64,
    pub(crate) empty_claims: f64,
    pub(crate) tickets: f64,
    pub(crate) beats: f64,
    pub(crate) orders: f64,
    pub(crate) completed: f64,
    pub(crate) seconds: f64,
    pub(crate) cpu: Cpu,
    pub(crate) database: Database,
    /// Of the machine: its processors.
    pub(crate) processors: f64,
}

pub(crate) async fn all(options: &Options, servers: &Servers) -> Result<Vec<Measured>> {
    // Refused when it was chosen before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let keys = make_keys(&servers.database_url, options.tenants).await?;
    let pool = PgPool::connect(&servers.database_url).await?;
    let pids =
        Pids { serve: servers.serve_pid(), postgres: servers.postgres_pid()?, rabbit: servers.rabbit_pid()? };
    let farm = Arc::new(Farm {
        url: servers.url.clone(),
        key: keys.worker.clone(),
        tickets_url: servers.rabbit.url(),
        slots: options.slots,
        work_ms: options.work_ms,
        with_orders: !options.without_orders,
        report: worker::written(&film::encoded())?,
        counters: Counters::default(),
        chance: Default::default(),
    });
    let mut workers = JoinSet::new();
    for number in 0..options.workers {
        workers.spawn(worker::work(farm.clone(), number));
    }
    if options.statements {
        sqlx::query("CREATE EXTENSION pg_stat_statements").execute(&pool).await?;
    }
    let prober = Link::open(farm.clone(), options.workers).await?;
    let mut measured = Vec::new();
    let mut ended: i64 = 0;
    for number in 1..=options.rounds {
        let raw_per_s = match options.raw_tickets {
            0 => 0.0,
            tickets => {
                let prefetch = u16::try_from(options.slots)?;
                raw::rate(&servers.rabbit.url(), tickets, options.workers, prefetch).await?
            }
        };
        let probes = send_sources(options, &keys, &servers.url, &prober).await?;
        if options.statements {
            sqlx::query("SELECT pg_stat_statements_reset()").execute(&pool).await?;
        }
        let round = Round { options, farm: &farm, pool: &pool, pids, prober: &prober };
        let one = tokio::select! {
            one = round.run(probes) => one,
            Some(ended) = workers.join_next() => match ended? {
                Err(error) => Err(error.context("a simulated worker")),
                Ok(()) => bail!("a simulated worker ended"),
            },
        };
        let one = one.inspect_err(|_| {
            for line in servers.warnings().iter().rev().take(20) {
                eprintln!("{line}");
            }
        })?;
        ended += i64::try_from(options.assets)? * i64::from(options.chunks);
        check(&pool, ended).await?;
        tell(number, &one, raw_per_s);
        if options.statements {
            longest_statements(&pool).await?.iter().for_each(|line| eprintln!("{line}"));
        }
        measured.push(Measured { raw_per_s, ..one });
    }
    for line in servers.warnings().iter().take(10) {
        eprintln!("the server has logged: {line}");
    }
    Ok(measured)
}

fn tell(number: usize, one: &Measured, raw_per_s: f64) {
    let each = |seconds: f64| seconds * 1000.0 / one.completed;
    eprintln!(
        "round {number}: {:.0} tasks/s, the broker alone {raw_per_s:.0}/s; CPU ms a task: server {:.2}, PostgreSQL {:.2}, RabbitMQ {:.2}, workers {:.2}",
        one.tasks_per_s,
        each(one.cpu.serve),
        each(one.cpu.postgres),
        each(one.cpu.rabbit),
        each(one.cpu.bench),
    );
}

struct Round<'run> {
    options: &'run Options,
    farm: &'run Farm,
    pool: &'run PgPool,
    pids: Pids,
    prober: &'run Link,
}

impl Round<'_> {
    async fn run(&self, probes: Vec<Granted>) -> Result<Measured> {
        let chunks = self.options.chunks as usize;
        let total = probes.len() * chunks;
        let enough = self.options.workers * self.options.slots as usize + BACKLOG;
        let info = Box::new(film::info(self.options.chunks));
        let probed = worker::written(&Report::Completed { result: TaskResult::Probed { info } })?;
        let counters = &self.farm.counters;
        counters.completed.store(0, Ordering::Relaxed);
        let done = || counters.completed.load(Ordering::Relaxed);
        let mut unplanned = probes;
        unplanned.reverse();
        let mut planned = 0;
        let mut steady: Option<(Instant, Cpu, Database, usize)> = None;
        let mut beaten_at = Instant::now();
        let (mut last_done, mut last_at) = (0, Instant::now());
        let edge = |share: f64| (total as f64 * share) as usize;
        loop {
            let now_done = done();
            if now_done >= edge(EDGE) && steady.is_none() {
                self.reset();
                let database = Database::now(self.pool).await?;
                steady = Some((Instant::now(), Cpu::now(self.pids), database, done()));
            }
            if now_done >= edge(1.0 - EDGE)
                && let Some(from) = steady
            {
                let mut measured = self.measured(from, now_done).await?;
                measured.processors = std::thread::available_parallelism()?.get() as f64;
                self.wait_for(total).await?;
                return Ok(measured);
            }
            if now_done > last_done {
                (last_done, last_at) = (now_done, Instant::now());
            }
            ensure!(last_at.elapsed() < STUCK, "nothing is done any more; {now_done} of {total} are");
            if planned < now_done + enough
                && let Some(probe) = unplanned.pop()
            {
                self.prober.report(probe, &probed).await?;
                planned += chunks;
                continue;
            }
            if beaten_at.elapsed() > Duration::from_secs(5) && !unplanned.is_empty() {
                beaten_at = Instant::now();
                self.prober.beat(&unplanned).await?;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Counting begins.
    fn reset(&self) {
        let counters = &self.farm.counters;
        for times in [&counters.claims_ms, &counters.reports_ms] {
            times.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        for count in
            [&counters.granted, &counters.empty_claims, &counters.tickets, &counters.beats, &counters.orders]
        {
            count.store(0, Ordering::Relaxed);
        }
    }

    async fn measured(&self, from: (Instant, Cpu, Database, usize), done: usize) -> Result<Measured> {
        let (begin, cpu, database, done_before) = from;
        let seconds = begin.elapsed().as_secs_f64();
        let counters = &self.farm.counters;
        let count = |of: &std::sync::atomic::AtomicUsize| of.load(Ordering::Relaxed) as f64;
        let completed = (done - done_before) as f64;
        let times =
            |of: &std::sync::Mutex<Vec<f64>>| of.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Measured {
            tasks_per_s: completed / seconds,
            claims_ms: times(&counters.claims_ms),
            reports_ms: times(&counters.reports_ms),
            granted: count(&counters.granted),
            empty_claims: count(&counters.empty_claims),
            tickets: count(&counters.tickets),
            beats: count(&counters.beats),
            orders: count(&counters.orders),
            completed,
            seconds,
            cpu: Cpu::now(self.pids).since(cpu),
            database: Database::now(self.pool).await?.since(database),
            ..Measured::default()
        })
    }

    async fn wait_for(&self, total: usize) -> Result<()> {
        let begin = Instant::now();
        while self.farm.counters.completed.load(Ordering::Relaxed) < total {
            ensure!(begin.elapsed() < STUCK, "the last tasks are not done");
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// Small files, each of its own content; their probes are claimed, and what a probe says of them is made up later.
async fn send_sources(options: &Options, keys: &Keys, url: &str, prober: &Link) -> Result<Vec<Granted>> {
    let http = reqwest::Client::builder().no_proxy().tls_certs_only(std::iter::empty()).build()?;
    let sending = (0..options.assets).map(|number| {
        let key = &keys.senders[number % keys.senders.len()];
        let body = uuid::Uuid::now_v7().to_string();
        let request = http
            .post(format!("{url}/uploads"))
            .bearer_auth(key)
            .header("Tus-Resumable", "1.0.0")
            .header("Upload-Length", body.len())
            .header("Content-Type", "application/offset+octet-stream")
            .body(body);
        async move {
            let answer = request.send().await?;
            let status = answer.status();
            ensure!(status == 201, "an upload is answered {status}: {}", answer.text().await?);
            Ok(())
        }
    });
    stream::iter(sending).buffer_unordered(SENDERS).try_collect::<Vec<()>>().await?;
    let mut probes = Vec::new();
    while probes.len() < options.assets {
        let missing = (options.assets - probes.len()).min(64);
        let granted = prober.claim(TaskKind::Probe, u32::try_from(missing)?).await?;
        ensure!(!granted.is_empty(), "the probe of an upload cannot be claimed");
        probes.extend(granted);
    }
    Ok(probes)
}

/// Every task was done once: by its first attempt, with one event that says so and a number for every event.
async fn check(pool: &PgPool, tasks: i64) -> Result<()> {
    let count = async |query: &'static str| -> Result<i64> {
        sqlx::query_scalar(query).fetch_one(pool).await.with_context(|| query.to_owned())
    };
    let done = count(
        "SELECT COUNT(*) FROM task WHERE kind = 'encode' AND state = 'done' AND attempt = 1 AND done_attempt = 1",
    );
    let all = count("SELECT COUNT(*) FROM task WHERE kind = 'encode'");
    let told = count(
        "SELECT COUNT(DISTINCT task) FROM event WHERE kind = 'task.changed' AND data::json ->> 'state' = 'done'
         AND data::json ->> 'kind' = 'encode'",
    );
    let told_twice = count(
        "SELECT COUNT(*) FROM (SELECT task FROM event WHERE kind = 'task.changed' AND data::json ->> 'state' = 'done'
         GROUP BY task HAVING COUNT(*) > 1) AS twice",
    );
    let gaps = count("SELECT MAX(seq) - MIN(seq) + 1 - COUNT(*) FROM event");
    let found = (done.await?, all.await?, told.await?, told_twice.await?, gaps.await?);
    ensure!(
        found == (tasks, tasks, tasks, 0, 0),
        "of {tasks} tasks, (done once, all, told of, told of twice, missing event numbers) are {found:?}"
    );
    Ok(())
}
