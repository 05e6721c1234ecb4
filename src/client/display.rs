//! What people see while they wait: bars on a terminal, a line now and then elsewhere, nothing when told to be quiet.
//!
//! Everything goes to standard error; standard output is for results.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    collections::BTreeMap,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

const BYTES_TEMPLATE: &str =
    "{msg:10!} {bar:30} {percent:>3} %  {bytes:>10} of {total_bytes}  {binary_bytes_per_sec}  {eta} left";
const STAGE_TEMPLATE: &str = "{msg:10!} {bar:30} {percent:>3} %";
const NOTE_TEMPLATE: &str = "{msg}";
/// Between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// A stage has thousandths.
const STAGE_STEPS: u64 = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Bars,
    Lines,
    Quiet,
}

pub(crate) struct Display {
    manner: Manner,
    bars: MultiProgress,
    stages: BTreeMap<String, Stage>,
}

struct Stage {
    bar: ProgressBar,
    shown_state: String,
    shown_at: Instant,
}

/// The progress of the transfer.
pub(crate) struct BytesBar {
    manner: Manner,
    bar: ProgressBar,
    /// Position and time of the beginning, for the rate in lines.
    began: (u64, Instant),
    line_at: Instant,
}

impl Display {
    pub(crate) fn new(quiet: bool) -> Self {
        let manner = match (std::io::stderr().is_terminal(), quiet) {
            (true, _) => Manner::Bars,
            (false, true) => Manner::Quiet,
            (false, false) => Manner::Lines,
        };
        let target =
            if manner == Manner::Bars { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { manner, bars: MultiProgress::with_draw_target(target), stages: BTreeMap::new() }
    }

    /// A sentence between the bars.
    pub(crate) fn say(&self, text: &str) {
        match self.manner {
            Manner::Bars => {
                let _ = self.bars.println(text);
            }
            Manner::Lines => eprintln!("{text}"),
            Manner::Quiet => {}
        }
    }

    /// As [`Self::say`], and also when told to be quiet: that it has to wait is no chatter.
    pub(crate) fn warn(&self, text: &str) {
        match self.manner {
            Manner::Quiet => eprintln!("{text}"),
            Manner::Bars | Manner::Lines => self.say(text),
        }
    }

    pub(crate) fn bytes(&self, name: &str, position: u64, length: u64) -> BytesBar {
        let bar = self.bars.add(ProgressBar::new(length));
        bar.set_style(style(BYTES_TEMPLATE));
        bar.set_message(name.to_owned());
        // What was sent before this command must not count as sent at infinite speed.
        bar.set_position(position);
        bar.reset_eta();
        bar.enable_steady_tick(Duration::from_millis(200));
        let now = Instant::now();
        BytesBar { manner: self.manner, bar, began: (position, now), line_at: now }
    }

    /// One stage of the processing; `fraction` from 0 to 1.
    pub(crate) fn stage(&mut self, name: &str, state: &str, fraction: f64, note: &str) {
        let now = Instant::now();
        let bars = &self.bars;
        let mut is_new = false;
        let stage = self.stages.entry(name.to_owned()).or_insert_with(|| {
            is_new = true;
            let bar = bars.add(ProgressBar::new(STAGE_STEPS));
            bar.set_style(style(STAGE_TEMPLATE));
            Stage { bar, shown_state: String::new(), shown_at: now }
        });
        stage
            .bar
            .set_style(style(&format!("{STAGE_TEMPLATE}  {}", note.replace('{', "(").replace('}', ")"))));
        stage.bar.set_message(name.to_owned());
        stage.bar.set_position((fraction.clamp(0.0, 1.0) * STAGE_STEPS as f64) as u64);
        let changed = stage.shown_state != state;
        let due = state == "running" && now.duration_since(stage.shown_at) >= LINE_INTERVAL;
        if self.manner == Manner::Lines && (is_new || changed || due) {
            eprintln!("{name:10} {:>3.0} %  {note}", fraction * 100.0);
            stage.shown_at = now;
        }
        state.clone_into(&mut stage.shown_state);
    }

    /// Everything worked: the server stops telling of stages once all of them are done.
    pub(crate) fn all_done(&mut self) {
        let names: Vec<String> = self.stages.keys().cloned().collect();
        for name in names {
            self.stage(&name, "done", 1.0, "done");
        }
    }

    /// Leaves the bars as they stand.
    pub(crate) fn end(&mut self) {
        for stage in std::mem::take(&mut self.stages).into_values() {
            stage.bar.abandon();
        }
    }
}

impl BytesBar {
    pub(crate) fn set(&mut self, position: u64) {
        self.bar.set_position(position);
        if self.manner == Manner::Lines && self.line_at.elapsed() >= LINE_INTERVAL {
            self.line_at = Instant::now();
            eprintln!("{}", self.line(position));
        }
    }

    pub(crate) fn end(self) {
        self.bar.abandon();
        if self.manner == Manner::Lines {
            eprintln!("{}", self.line(self.bar.position()));
        }
    }

    fn line(&self, position: u64) -> String {
        let length = self.bar.length().unwrap_or(position);
        let (start, began) = self.began;
        let rate = position.saturating_sub(start) as f64 / began.elapsed().as_secs_f64().max(0.001);
        let left = if rate > 0.0 && position < length {
            let seconds = (length - position) as f64 / rate;
            format!("  {} left", indicatif::HumanDuration(Duration::from_secs_f64(seconds.min(1e9))))
        } else {
            String::new()
        };
        format!(
            "{:10} {:>3} %  {} of {}  {}/s{left}",
            self.bar.message(),
            (position * 100).checked_div(length).unwrap_or(100),
            indicatif::BinaryBytes(position),
            indicatif::BinaryBytes(length),
            indicatif::BinaryBytes(rate as u64),
        )
    }
}

fn style(template: &str) -> ProgressStyle {
    // A template is ours, so it parses; were it not, a plain bar is better than none.
    ProgressStyle::with_template(template)
        .or_else(|_| ProgressStyle::with_template(NOTE_TEMPLATE))
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
