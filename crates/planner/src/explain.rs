//! A plan as text, for `reelyard plan` and for tests.

use reelyard_model::Plan;
use std::fmt::Write;

/// Wide enough for the longest topic.
const TOPIC_WIDTH: usize = 10;

/// What will be made, then why. Writing into a String cannot fail, so its results are not looked at.
pub fn explain(plan: &Plan) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "Plan by preset {}: {:.3} s", plan.preset, plan.duration_us as f64 / 1e6);
    let _ = writeln!(text);
    if let Some(video) = &plan.video {
        for rung in &video.rungs {
            let _ = writeln!(
                text,
                "  {:<8} {:<12} H.264 crf {:<4} at most {} kbit/s",
                rung.name,
                format!("{}x{}", rung.width, rung.height),
                rung.crf,
                rung.max_bit_rate / 1000
            );
        }
    }
    if let Some(audio) = &plan.audio {
        let _ = writeln!(
            text,
            "  {:<8} {:<12} AAC {} kbit/s",
            "audio",
            format!("{} Hz x {}", audio.sample_rate, audio.channels),
            audio.bit_rate / 1000
        );
    }
    if let Some(stills) = &plan.stills {
        let _ = writeln!(
            text,
            "  {:<8} {:<12} tiles of {}x{} every {:.3} s",
            "poster",
            format!("{}x{}", stills.poster_width, stills.poster_height),
            stills.tile_width,
            stills.tile_height,
            stills.interval_us as f64 / 1e6
        );
    }
    let _ = writeln!(text, "\nWhy:");
    let mut topic_before = "";
    for decision in &plan.decisions {
        let topic = if decision.topic == topic_before { "" } else { &decision.topic };
        let _ = writeln!(text, "  {topic:<TOPIC_WIDTH$} {}", decision.text);
        topic_before = &decision.topic;
    }
    text
}
