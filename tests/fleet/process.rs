//! One of our own programs under test: started, killed, stopped and continued by its process id. Its log is one file for
//! all its lives.

use crate::support::wait_for;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

/// A start waits for the catalogue and the store; a busy machine gets more.
const START_PATIENCE: Duration = Duration::from_secs(90);
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// How it is started.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) variables: BTreeMap<String, String>,
    /// Written by the program once it works.
    pub(crate) ready_file: PathBuf,
    pub(crate) log: PathBuf,
}

/// Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) recipe: Recipe,
    child: Option<Child>,
    is_paused: bool,
}

impl Process {
    pub(crate) fn new(recipe: Recipe) -> Self {
        Self { recipe, child: None, is_paused: false }
    }

    /// Starts it with these variables more, for this one life; does not wait.
    pub(crate) fn launch(&mut self, more: &[(&str, String)]) {
        assert!(self.child.is_none(), "{} runs already", self.recipe.name);
        let recipe = &self.recipe;
        let _ = fs::remove_file(&recipe.ready_file);
        let log = File::options().create(true).append(true).open(&recipe.log).expect("the log opens");
        let child = Command::new(&recipe.program)
            .args(&recipe.arguments)
            .envs(&recipe.variables)
            .envs(more.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", recipe.program.display()));
        self.child = Some(child);
        self.is_paused = false;
    }

    /// Until it says that it works; false: it ended before.
    pub(crate) fn wait_until_ready(&mut self) -> bool {
        let ready = self.recipe.ready_file.clone();
        let what = format!("{} to be ready", self.recipe.name);
        wait_for(&what, START_PATIENCE, || {
            if self.has_ended() {
                return Some(false);
            }
            let said = fs::read_to_string(&ready).unwrap_or_default();
            (!said.trim().is_empty()).then_some(true)
        })
    }

    pub(crate) fn start(&mut self) {
        self.launch(&[]);
        assert!(self.wait_until_ready(), "{} ended:\n{}", self.recipe.name, self.log_tail(40));
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub(crate) fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// By itself, or because somebody killed it; then it can be launched again.
    pub(crate) fn has_ended(&mut self) -> bool {
        let Some(child) = &mut self.child else { return true };
        let ended = child.try_wait().expect("a child can be asked").is_some();
        if ended {
            self.child = None;
        }
        ended
    }

    /// `kill -9`, of its media children too when `whole_machine`.
    pub(crate) fn kill(&mut self, whole_machine: bool) {
        let Some(mut child) = self.child.take() else { return };
        let children = if whole_machine { children_of(child.id()) } else { Vec::new() };
        child.kill().expect("a child can be killed");
        for pid in children {
            signal(pid, Signal::KILL);
        }
        child.wait().expect("a child can be waited for");
    }

    /// SIGSTOP, as a machine that sleeps: its children with it.
    pub(crate) fn pause(&mut self) {
        let pid = self.pid();
        signal(pid, Signal::STOP);
        for child in children_of(pid) {
            signal(child, Signal::STOP);
        }
        self.is_paused = true;
    }

    pub(crate) fn resume(&mut self) {
        if !std::mem::take(&mut self.is_paused) || self.child.is_none() {
            return;
        }
        let pid = self.pid();
        for child in children_of(pid) {
            signal(child, Signal::CONT);
        }
        signal(pid, Signal::CONT);
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        signal(child.id(), Signal::TERM);
        let what = format!("{} to stop", self.recipe.name);
        wait_for(&what, STOP_PATIENCE, || child.try_wait().expect("a child can be asked"))
    }

    /// Of its media children: process ids.
    pub(crate) fn media_children(&self) -> Vec<u32> {
        self.child.as_ref().map(|child| children_of(child.id())).unwrap_or_default()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.recipe.log).unwrap_or_default()
    }

    pub(crate) fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill(true);
    }
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Of all children, and theirs.
pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if parent_of(pid) == Some(parent) {
            found.push(pid);
            found.extend(children_of(pid));
        }
    }
    found
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // `pid (comm) state ppid ...`, and comm may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Processor seconds of a process and its children that have ended.
pub(crate) fn processor_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    let Some((_, rest)) = stat.rsplit_once(')') else { return 0.0 };
    // Fields 14 to 17 of proc(5): utime, stime, cutime, cstime, in hundredths of a second.
    let ticks: f64 =
        rest.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}
