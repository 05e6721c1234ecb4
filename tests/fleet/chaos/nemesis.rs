//! Who breaks things: one fault after the other, chosen by the seed. Every fault ends before the next begins, but for
//! lines, which may stay broken for some faults more.

use super::World;
use crate::{
    farm::{Farm, Lines},
    process::{self, Process},
    support::Chance,
};
use reelyard_testkit::{Fault, Line, Plan, TcpProxy};
use rustix::process::Signal;
use std::{collections::BTreeMap, thread, time::Duration};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    KillNode,
    KillWorker,
    KillMediaChild,
    StopNode,
    StopWorker,
    SleepingNode,
    SleepingWorker,
    CutOffWorker,
    KillBroker,
    WipeBroker,
    SleepingBroker,
    KillDatabase,
    RestartDatabase,
    SleepingDatabase,
    LineToDatabase,
    LineToBroker,
    LineToStore,
    LineToNode,
    LineOfClients,
    StoreFails,
}

/// How often each is drawn. Starting a broker again costs ten seconds of a processor, so it is rarer.
const WEIGHTS: [(Kind, u64); 20] = [
    (Kind::KillNode, 10),
    (Kind::KillWorker, 12),
    (Kind::KillMediaChild, 10),
    (Kind::StopNode, 3),
    (Kind::StopWorker, 3),
    (Kind::SleepingNode, 5),
    (Kind::SleepingWorker, 8),
    (Kind::CutOffWorker, 5),
    (Kind::KillBroker, 2),
    (Kind::WipeBroker, 2),
    (Kind::SleepingBroker, 3),
    (Kind::KillDatabase, 4),
    (Kind::RestartDatabase, 3),
    (Kind::SleepingDatabase, 3),
    (Kind::LineToDatabase, 8),
    (Kind::LineToBroker, 6),
    (Kind::LineToStore, 6),
    (Kind::LineToNode, 6),
    (Kind::LineOfClients, 6),
    (Kind::StoreFails, 12),
];

pub(super) struct Nemesis<'a> {
    farm: &'a mut Farm,
    world: &'a World,
    chance: Chance,
    /// Without the safety net the broker's data is left alone: only the net makes up for their loss.
    may_wipe: bool,
    /// Half of all draws are of these, where a promise is switched off that they would show.
    favours: Vec<Kind>,
    pub(super) counts: BTreeMap<String, u64>,
}

impl<'a> Nemesis<'a> {
    /// `switches`: promises that are switched off.
    pub(super) fn new(farm: &'a mut Farm, world: &'a World, seed: u64, switches: &[&str]) -> Self {
        let mut favours = Vec::new();
        for switch in switches {
            favours.extend(match *switch {
                "without-fencing" => vec![Kind::CutOffWorker],
                "without-confirms" => vec![Kind::KillBroker, Kind::LineToBroker, Kind::SleepingBroker],
                "without-sync" => vec![Kind::KillNode],
                _ => Vec::new(),
            });
        }
        let may_wipe = !switches.contains(&"without-safety-net");
        Self { farm, world, chance: Chance(seed ^ 0x4E45_4D45), may_wipe, favours, counts: BTreeMap::new() }
    }

    /// So many faults, and then everything is whole again.
    pub(super) fn run(&mut self, rounds: u64) {
        for round in 0..rounds {
            // The random moment, not a wait for something.
            self.sleep(100, 1200);
            let kind = self.draw();
            *self.counts.entry(format!("{kind:?}")).or_default() += 1;
            self.world.ledger.fault(&format!("{round}: {kind:?}"));
            self.strike(kind);
            self.look_for_the_dead();
            if self.world.has_violations() {
                break;
            }
        }
        self.calm();
    }

    fn draw(&mut self) -> Kind {
        if !self.favours.is_empty() && self.chance.below(2) == 0 {
            let index = self.one_of(self.favours.len());
            return self.favours[index];
        }
        let total: u64 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.chance.below(total);
        for (kind, weight) in WEIGHTS {
            if drawn < weight {
                return if kind == Kind::WipeBroker && !self.may_wipe { Kind::KillBroker } else { kind };
            }
            drawn -= weight;
        }
        Kind::KillWorker
    }

    fn sleep(&mut self, least_ms: u64, most_ms: u64) {
        thread::sleep(Duration::from_millis(least_ms + self.chance.below(most_ms - least_ms)));
    }

    fn one_of(&mut self, count: usize) -> usize {
        usize::try_from(self.chance.below(count as u64)).expect("few")
    }

    fn strike(&mut self, kind: Kind) {
        match kind {
            Kind::KillNode | Kind::SleepingNode => self.strike_node(kind == Kind::KillNode),
            Kind::KillWorker | Kind::SleepingWorker => self.strike_worker(kind == Kind::KillWorker),
            Kind::KillMediaChild => self.kill_media_child(),
            Kind::CutOffWorker => self.cut_off_worker(),
            Kind::StopNode | Kind::StopWorker => self.stop(kind == Kind::StopNode),
            Kind::KillBroker => {
                self.farm.servers.rabbit.kill();
                self.sleep(100, 2000);
                self.farm.servers.rabbit.restart();
            }
            Kind::WipeBroker => self.farm.servers.rabbit.wipe_and_restart(),
            Kind::SleepingBroker => {
                self.farm.servers.rabbit.pause();
                self.sleep(500, 4000);
                self.farm.servers.rabbit.resume();
            }
            Kind::KillDatabase | Kind::RestartDatabase => {
                if kind == Kind::KillDatabase {
                    self.farm.servers.postgres.kill();
                } else {
                    self.farm.servers.postgres.stop_fast();
                }
                self.sleep(50, 2500);
                self.farm.servers.postgres.restart();
            }
            Kind::SleepingDatabase => {
                self.farm.servers.postgres.pause();
                self.sleep(500, 3000);
                self.farm.servers.postgres.resume();
            }
            Kind::LineToDatabase
            | Kind::LineToBroker
            | Kind::LineToStore
            | Kind::LineToNode
            | Kind::LineOfClients => {
                self.strike_line(kind);
            }
            Kind::StoreFails => self.fail_store(),
        }
    }

    fn strike_node(&mut self, is_killed: bool) {
        let number = self.one_of(self.farm.nodes.len());
        let (pause_ms, is_long) = (self.chance.below(1500), self.chance.below(4) == 0);
        let node = &mut self.farm.nodes[number];
        if is_killed {
            node.process.kill(true);
            thread::sleep(Duration::from_millis(pause_ms));
            node.lines.calm();
            start_again(self.world, &mut node.process);
        } else {
            node.process.pause();
            thread::sleep(Duration::from_millis(500 + pause_ms + if is_long { 5000 } else { 0 }));
            node.process.resume();
        }
    }

    fn strike_worker(&mut self, is_killed: bool) {
        let number = self.one_of(self.farm.workers.len());
        let (pause_ms, whole_machine) = (self.chance.below(1500), self.chance.below(2) == 0);
        // A third of the sleepers sleep through their lease.
        let sleep_ms = if self.chance.below(3) == 0 { 8000 } else { 300 } + self.chance.below(3000);
        let worker = &mut self.farm.workers[number];
        if is_killed {
            worker.process.kill(whole_machine);
            thread::sleep(Duration::from_millis(pause_ms));
            worker.lines.calm();
            worker.to_nodes.iter().for_each(|line| line.set_line(Line::Clear));
            start_again(self.world, &mut worker.process);
        } else {
            worker.process.pause();
            thread::sleep(Duration::from_millis(sleep_ms));
            worker.process.resume();
        }
    }

    /// From all nodes, for longer than a lease. What it says meanwhile is on the way and arrives when somebody else has
    /// the task. Every other time it falls asleep with its words on the way, so that its own clock cannot keep it from
    /// them.
    fn cut_off_worker(&mut self) {
        let number = self.one_of(self.farm.workers.len());
        let (talks_ms, last_ms) = (1_000 + self.chance.below(2_000), 5_500 + self.chance.below(4_000));
        let falls_asleep = self.chance.below(2) == 0;
        let worker = &mut self.farm.workers[number];
        worker.to_nodes.iter().for_each(|line| line.set_line(Line::BlackHole));
        thread::sleep(Duration::from_millis(talks_ms));
        if falls_asleep {
            worker.process.pause();
        }
        thread::sleep(Duration::from_millis(last_ms));
        worker.to_nodes.iter().for_each(|line| line.set_line(Line::Clear));
        thread::sleep(Duration::from_millis(300));
        worker.process.resume();
    }

    /// As an operator does it, by SIGTERM: it ends in order and in bounded time.
    fn stop(&mut self, is_node: bool) {
        let process = if is_node {
            let number = self.one_of(self.farm.nodes.len());
            let node = &mut self.farm.nodes[number];
            node.lines.calm();
            &mut node.process
        } else {
            let number = self.one_of(self.farm.workers.len());
            let worker = &mut self.farm.workers[number];
            worker.lines.calm();
            &mut worker.process
        };
        let ended = process.stop();
        if !ended.success() {
            self.world.violation(format!("{} was asked to stop, and said {ended}", process.recipe.name));
        }
        start_again(self.world, process);
    }

    fn kill_media_child(&mut self) {
        let children: Vec<u32> =
            self.farm.workers.iter().flat_map(|worker| worker.process.media_children()).collect();
        if !children.is_empty() {
            let victim = children[self.one_of(children.len())];
            process::signal(victim, Signal::KILL);
        }
    }

    fn strike_line(&mut self, kind: Kind) {
        let fault = match self.chance.below(4) {
            0 => Line::Delay(Duration::from_millis(20 + self.chance.below(400))),
            1 => Line::CutAfter(self.chance.below(60_000)),
            2 => Line::Reset,
            _ => Line::BlackHole,
        };
        let process = self.one_of(self.farm.nodes.len() + self.farm.workers.len());
        let node = self.one_of(self.farm.nodes.len());
        let worker = self.one_of(self.farm.workers.len());
        let last_ms = 500 + self.chance.below(4500);
        let line: &TcpProxy = match kind {
            Kind::LineToDatabase => &self.farm.nodes[node].lines.database,
            Kind::LineToBroker => &self.lines_of(process).tickets,
            Kind::LineToStore => &self.lines_of(process).storage,
            Kind::LineToNode => &self.farm.workers[worker].to_nodes[node],
            _ => &self.farm.nodes[node].front,
        };
        line.set_line(fault);
        thread::sleep(Duration::from_millis(last_ms));
        line.set_line(Line::Clear);
    }

    fn lines_of(&self, number: usize) -> &Lines {
        match self.farm.nodes.get(number) {
            Some(node) => &node.lines,
            None => &self.farm.workers[number - self.farm.nodes.len()].lines,
        }
    }

    /// For one process or for all, and it stays so for some faults more.
    fn fail_store(&mut self) {
        let seed = self.chance.next();
        let plan = match self.chance.below(3) {
            0 => Plan::calm(),
            1 => Plan {
                seed,
                per_thousand: vec![
                    (150, Fault::SlowDown),
                    (80, Fault::LostReply),
                    (50, Fault::CutBefore),
                    (50, Fault::HalfReply),
                ],
                methods: Vec::new(),
            },
            _ => Plan {
                seed,
                per_thousand: vec![
                    (400, Fault::SlowDown),
                    (100, Fault::Delay(Duration::from_millis(500))),
                    (10, Fault::Hang),
                ],
                methods: Vec::new(),
            },
        };
        let only = self.one_of(2 * (self.farm.nodes.len() + self.farm.workers.len()));
        let all = self.farm.nodes.len() + self.farm.workers.len();
        for number in 0..all {
            if only >= all || only == number {
                self.lines_of(number).storage_requests.set_plan(plan.clone());
            }
        }
        self.sleep(500, 3000);
    }

    /// Nobody ends by itself, whatever breaks around it.
    fn look_for_the_dead(&mut self) {
        let nodes = self.farm.nodes.iter_mut().map(|node| &mut node.process);
        for process in nodes.chain(self.farm.workers.iter_mut().map(|worker| &mut worker.process)) {
            if process.has_ended() {
                let name = process.recipe.name.clone();
                self.world.violation(format!("{name} ended by itself:\n{}", process.log_tail(15)));
            }
        }
    }

    fn calm(&mut self) {
        for node in &mut self.farm.nodes {
            node.lines.calm();
            node.front.set_line(Line::Clear);
            node.process.resume();
        }
        for worker in &mut self.farm.workers {
            worker.lines.calm();
            worker.to_nodes.iter().for_each(|line| line.set_line(Line::Clear));
            worker.process.resume();
        }
    }
}

/// A server that finds the database or the broker away may give up at its start, as its operator's service starts it again.
fn start_again(world: &World, process: &mut Process) {
    for _ in 0..5 {
        process.launch(&[]);
        if process.wait_until_ready() {
            return;
        }
    }
    world.violation(format!("{} does not start any more:\n{}", process.recipe.name, process.log_tail(15)));
}
